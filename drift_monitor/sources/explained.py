"""What libraries say of a table -> errors that name it and keep its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from drift_monitor.core.errors import DriftMonitorError, SourceError
from drift_monitor.sources.secrets import Secrets

_LONGEST = 500


class Explained:
    """A context in which whatever goes wrong becomes a SourceError.

    Args:
        where: the table and its place, without secrets.
        secrets: that were filled in.
        hints: words that a library uses -> what to do then.
    """

    def __init__(self, where: str, secrets: Secrets, hints: Mapping[str, str] | None = None) -> None:
        self._where, self._secrets, self._hints = where, secrets, hints or {}

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, MemoryError):
            return
        said = self._secrets.hidden(" ".join(str(error).split()))[:_LONGEST]
        if isinstance(error, DriftMonitorError):
            raise type(error)(said if self._where in said else f"{self._where}: {said}") from None
        if "OutOfMemory" in type(error).__name__:  # DuckDB's own
            raise MemoryError(f"{self._where}: {said}") from None
        if type(error).__module__ == "builtins" and not isinstance(error, OSError):
            said = f"{type(error).__name__}: {said}"  # no library's own words, so they may say little
        hint = next((f": {hint}" for word, hint in self._hints.items() if word in said), "")
        raise SourceError(f"{self._where} cannot be read: {said}{hint}") from None
