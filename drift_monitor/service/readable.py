"""What is stored as text or as a blob, and what it was."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from pydantic import ValidationError

from drift_monitor.core.types import CheckResult, Episode
from drift_monitor.service.logs import fields

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Readable:
    """Reads results and episodes. One that another version wrote and cannot be read is told once in the log."""

    def __init__(self) -> None:
        self._unreadable: set[str] = set()

    def result(self, run: int, summary: str, blob: bytes | None) -> CheckResult | None:
        """What is kept of a result; None when not even its summary can be read."""
        whole = None
        if blob is not None:
            whole = self._read(f"the result of run {run}", partial(_unpack, blob))
        return whole or self._read(f"the summary of run {run}", partial(CheckResult.model_validate_json, summary))

    def episodes(self, rows: Sequence[tuple[str, str]]) -> list[Episode]:
        """Those of the rows (id, body) that can be read."""
        episodes = (
            self._read(f"episode {name}", partial(Episode.model_validate_json, body)) for name, body in rows
        )
        return [episode for episode in episodes if episode is not None]

    def _read(self, what: str, parse: Callable[[], _T]) -> _T | None:
        try:
            return parse()
        except (ValidationError, zlib.error) as error:
            if what not in self._unreadable:
                self._unreadable.add(what)
                log.error("something stored cannot be read", extra=fields(what=what, error=error))  # noqa: TRY400
            return None


def columns_of(result: CheckResult) -> dict[str, str | bytes]:
    """A result as the ledger keeps it: verdict, summary, and all of it."""
    return {
        "verdict": result.verdict.value,
        "summary": result.model_copy(update={"features": (), "quality": ()}).model_dump_json(),
        "result": zlib.compress(result.model_dump_json().encode()),
    }


def _unpack(blob: bytes) -> CheckResult:
    return CheckResult.model_validate_json(zlib.decompress(blob))
