"""One monitor that takes rows by HTTP: a request in, its rows in the spool, an answer out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from drift_monitor.config.intake import PushSource, SpooledSource
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import ConfigError
from drift_monitor.intake import kserve
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.refused import REASONS, RefusedError, TypeRefusedError
from drift_monitor.intake.rows import Rows, from_arrow_stream, from_json_lines, from_records
from drift_monitor.intake.seen import Seen, digest
from drift_monitor.intake.spool import Spool

JSON_LINES: Final = frozenset({"application/x-ndjson", "application/jsonl"})
ARROW: Final = "application/vnd.apache.arrow.stream"
_ADVICE: Final = (
    f"send {', '.join(sorted(JSON_LINES))}, {ARROW}, or KServe's CloudEvents "
    f"(ce- headers, {kserve.STRUCTURED}, {kserve.BATCHED})"
)
REMEMBERED: Final = 86_400
"""Seconds for which a key is known."""
_LONGEST_KEY: Final = 200
MOST_WAITING: Final = 64 * 2**20
"""Bytes of events that may wait for their other half."""
_SPARE: Final = timedelta(days=3)


class FullError(RefusedError):
    """Nothing more is taken at the moment."""

    reason = "queue_full"


def keep_of(monitor: Monitor, source: SpooledSource) -> timedelta:
    """How long the rows of a monitor are kept."""
    return source.keep or monitor.needed + _SPARE


def spool_of(monitor: Monitor, columns: list[LiveColumn]) -> Spool:
    """The spool of a monitor, for writing.

    Raises:
        ConfigError: its source has none.
        SpoolError: another process writes there.
        OSError: it cannot be read or written.
    """
    source = monitor.source
    if not isinstance(source, SpooledSource) or source.spool is None:
        raise ConfigError([f"a source of type {source.type} has no spool"])
    return Spool(source.spool, Layout.of(source, columns), keep_of(monitor, source))


class Taking:
    """What a monitor takes.

    Args:
        monitor: its configuration.
        columns: that are kept.

    Attributes:
        counts: rows taken (`rows`) and requests refused, by reason, since they were last asked for.
        newest: when rows were last taken, in seconds since 1970.
    """

    def __init__(self, monitor: Monitor, columns: list[LiveColumn]) -> None:
        assert isinstance(monitor.source, PushSource)  # noqa: S101 - the daemon sends no others
        self._source, self._columns = monitor.source, monitor.columns
        self.spool = spool_of(monitor, columns)
        self.counts: Counter[str] = Counter()
        self.newest: float | None = None
        self._known = {column.name for column in columns}

    def take(self, kind: str, headers: Mapping[str, str], key: str | None, body: bytes) -> dict[str, object]:
        """Put the rows of a request in the journal. They are durable after the spool's `sync`.

        Args:
            kind: content type, without parameters.
            headers: those that begin with `ce-`, in lower case.
            key: that makes repetitions known.
            body: as it was sent.

        Returns:
            The answer.

        Raises:
            RefusedError: nothing was taken.
            OSError: the disk is full, or cannot be written.
        """
        try:
            if self.spool.is_full:
                raise FullError("files cannot be written as fast as rows come: send them again in a while")
            answer = self._taken(kind, headers, key, body)
        except RefusedError as error:
            self.counts[error.reason] += 1
            raise
        return answer

    def _taken(self, kind: str, headers: Mapping[str, str], key: str | None, body: bytes) -> dict[str, object]:
        hashed, mark = None, b""
        if key is not None:
            if not 0 < len(key) <= _LONGEST_KEY:
                raise RefusedError(f"a key has 1 to {_LONGEST_KEY} characters", None, "Idempotency-Key", key)
            hashed, mark = digest("key", key), digest(body, size=8)
            before = self.spool.keys.get(hashed)
            if before is not None:
                if before.body != mark:
                    raise RefusedError("other rows were sent with this key", None, "Idempotency-Key", key)
                return {"rows": before.rows, "repeated": True}
        now = datetime.now(UTC)
        layout = self.spool.layout
        if kind in JSON_LINES:
            return self._append(from_json_lines(body, layout, now), hashed, mark)
        if kind == ARROW:
            return self._append(from_arrow_stream(body, layout, now), hashed, mark)
        if kind in (kserve.STRUCTURED, kserve.BATCHED) or (
            kind == "application/json" and "ce-specversion" in headers
        ):
            return self._events(kserve.read_events(kind, headers, body), now, hashed, mark)
        raise TypeRefusedError(f"{kind or 'a body without a Content-Type'} is not read: {_ADVICE}")

    def _append(self, rows: Rows, key: bytes | None, mark: bytes) -> dict[str, object]:
        count = rows.batch.num_rows
        keys = [] if key is None else [(key, Seen(mark, count, int(time.time()) + REMEMBERED))]
        identifier = self.spool.append(rows.batch, keys=keys) if count or keys else ""
        self._note(count)
        answer: dict[str, object] = {"rows": count, "id": identifier}
        return answer | ({"ignored": list(rows.ignored)} if rows.ignored else {})

    def _note(self, rows: int) -> None:
        self.counts["rows"] += rows
        if rows:
            self.newest = time.time()

    # -- CloudEvents -------------------------------------------------------------------------------

    def _events(
        self, events: list[kserve.Event], now: datetime, key: bytes | None, mark: bytes
    ) -> dict[str, object]:
        """Join what is whole, and let the rest wait."""
        spool, prediction = self.spool, self._columns.prediction
        records: list[kserve.Record] = []
        done: list[str] = []
        waits: dict[str, dict[str, Any]] = {}
        ids = []
        for event in events:
            if event.id in done or spool.keys.get(digest("event", event.id)) is not None:
                continue  # said before
            if prediction is None:  # the inputs are all there is to watch
                if event.part == "request":
                    records += self._joined(event, None)
                    done.append(event.id)
                    ids.append(event.id)
                continue
            other = waits.get(event.id) or spool.waiting.get(event.id)
            if other is None or other["part"] == event.part:
                self._fits(event)
                waits[event.id] = self._half(event, len(str(event.data)))
                continue
            half = kserve.Event(event.id, other["part"], other["time"], other["data"])
            request, response = (event, half) if event.part == "request" else (half, event)
            records += self._joined(request, response)
            waits.pop(event.id, None)
            done.append(event.id)
            ids.append(event.id)
        if sum(each["size"] for each in (*waits.values(), *spool.waiting.values())) > MOST_WAITING:
            raise FullError("too many requests wait for their responses: send them again in a while")
        rows = from_records(records, spool.layout, now)
        until = int(time.time())
        # an id is known for as long as its other half could still be waiting anywhere
        within = 2 * int(self._source.join_within.total_seconds()) + 60
        keys = [(digest("event", each), Seen(b"\0" * 8, 1, until + max(within, 3600))) for each in done]
        if key is not None:
            keys.append((key, Seen(mark, len(records), until + REMEMBERED)))
        identifier = ""
        if records or waits or keys:
            identifier = spool.append(rows.batch, keys=keys, resolved=done, waits=waits)
        self._note(len(records))
        answer: dict[str, object] = {"rows": len(records), "id": identifier, "waiting": len(waits)}
        return answer | ({"events": ids} if ids else {})

    def _fits(self, event: kserve.Event) -> None:
        """Refuse a half that could never be joined while its sender still listens."""
        if event.part == "request":
            kserve.inputs_of(event.data, self.spool.layout.positions, self.spool.layout.vectors)
        elif self._columns.prediction is not None:
            kserve.outputs_of(event.data, self._columns.prediction)

    def _half(self, event: kserve.Event, size: int) -> dict[str, Any]:
        return {"part": event.part, "time": event.time, "data": event.data, "size": size, "since": time.time()}

    def _joined(self, request: kserve.Event, response: kserve.Event | None) -> list[kserve.Record]:
        layout, prediction = self.spool.layout, self._columns.prediction
        outputs = None
        if response is not None and prediction is not None:
            outputs = kserve.outputs_of(response.data, prediction)
        identifier = self._columns.id
        return kserve.rows_of(request, outputs, layout.timestamp, layout.positions, identifier, layout.vectors)

    def expire(self) -> None:
        """Give up what has waited for too long."""
        before = time.time() - self._source.join_within.total_seconds()
        for identifier in [each for each, half in self.spool.waiting.items() if half["since"] < before]:
            del self.spool.waiting[identifier]
            self.counts["unjoined"] += 1

    def report(self) -> dict[str, Any]:
        """What is to be told of it; counts begin at 0 again."""
        counts, self.counts = self.counts, Counter()
        return {
            "rows": counts["rows"],
            "refused": {reason: counts[reason] for reason in REASONS if counts[reason]},
            "waiting": len(self.spool.waiting),
            "newest": self.newest,
        }
