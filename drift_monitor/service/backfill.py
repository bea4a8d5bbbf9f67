"""A monitor's past from its log: every window that the ledger has no result for, judged and stored one by one.

It is history and no alarm: episodes are recorded, but nobody is told of them, no retraining begins and nothing is
counted. What is still open when the daemon goes on is told as opened at its next window that fails.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drift_monitor.config.models import Monitor
from drift_monitor.core.episode import step
from drift_monitor.core.errors import DriftMonitorError, SourceError
from drift_monitor.core.types import CheckResult, Episode, FailureReason, Outcome, Window
from drift_monitor.service.backtest import event_times, windows_between
from drift_monitor.service.calibrations import known_of
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.references import reference_of, watched_specs
from drift_monitor.service.runs import LANES
from drift_monitor.service.store import Store
from drift_monitor.sources import SOURCES, Source
from drift_monitor.sources.files import FileSplit

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class BackfillError(DriftMonitorError):
    """A window could not be filled; those before it are."""


@dataclass(frozen=True)
class Log:
    """What the source has in the stretch to fill, as far as it tells without being read.

    Attributes:
        rows: in the row groups that overlap it; None where a part does not say.
        files, bytes: that hold rows of it; None where the source is not made of files.
    """

    rows: int | None
    files: int | None
    bytes: int | None


class Backfill:
    """The windows to fill.

    Args:
        name: of the monitor.
        monitor: its configuration; its source has a timestamp.
        state: the state folder.
        judged: ends of the windows that have a result, rising.
        span: windows begin at its first time or later, and end at the second or earlier; a start of None is the
            oldest event after the reference's last.
        progress: hears how far it is.

    Attributes:
        windows: without a result, in order.
        known: how many windows there have one.
        silent: of those filled, the last without data, in order: a log that ended.

    Raises:
        SourceError: the log cannot be read, has no rows there, or there is no window in it.
        BadReferenceError: there is no reference.
        ConfigError: the policies name features or methods that are not there.
    """

    def __init__(
        self,
        name: str,
        monitor: Monitor,
        state: Path,
        judged: Sequence[datetime],
        span: tuple[datetime | None, datetime],
        progress: Progress | None = None,
    ) -> None:
        self._name, self._monitor, self._state, self._judged = name, monitor, state, judged
        self._tell = progress or (lambda _what, _done, _all: None)
        self._reference = reference_of(
            name, monitor, state, now=lambda: datetime.now(UTC), progress=self._on("building the reference")
        )
        self._watched = watched_specs(monitor, self._reference)
        kinds = {spec.column: spec.kind for spec in self._watched}
        self._source: Source[Any] = SOURCES[monitor.source.type](monitor.source, kinds)
        start, end = span
        stretch = Window(start=self._begin(end) if start is None else start, end=end)
        due = windows_between(monitor, stretch)
        there = set(judged)
        self.windows = [window for window in due if window.end not in there]
        self.known = len(due) - len(self.windows)
        self.silent: list[Window] = []

    @property
    def log(self) -> Log:
        """What there is to read for the windows."""
        if not self.windows:
            return Log(0, 0, 0)
        splits = self._source.splits(Window(start=self.windows[0].start, end=self.windows[-1].end))
        parts = [split for split in splits if isinstance(split, FileSplit)]
        rows = [part.rows for part in parts if part.rows is not None]
        sizes = {part.path: part.size for part in parts}
        whole = len(parts) == len(splits)
        return Log(
            rows=sum(rows) if len(rows) == len(splits) else None,
            files=len(sizes) if whole else None,
            bytes=sum(sizes.values()) if whole else None,
        )

    def fill(self, store: Store) -> Counter[Outcome]:
        """Judge the windows in order of time, each committed before the next; how many there were by verdict.

        Raises:
            BackfillError: a window failed for a reason that may pass; it has no result, and those before it have.
            StoreError: a result cannot be stored.
        """
        filled: Counter[Outcome] = Counter()
        on = self._on("calibrating")
        known_of(self._name, self._monitor, self._reference, self._state, self._watched, progress=on)
        for i, window in enumerate(self.windows):
            self._tell("filling", i, len(self.windows))
            request = CheckRequest(name=self._name, monitor=self._monitor, state=self._state, window=window)
            result = evaluate(request)
            if result.failure not in (None, FailureReason.SCHEMA):  # a schema of the past stays what it was
                raise BackfillError(
                    f"monitors.{self._name}: window {window} cannot be judged: {result.reason}; {i:,} windows "
                    "were filled: mend it and call again, which goes on here, or leave it out with "
                    f"--from {window.end:%Y-%m-%dT%H:%M:%SZ}"
                )
            if store.fill(result, now=datetime.now(UTC), episodes=self._episodes(store, result, i)):
                filled[result.verdict] += 1
                self.silent = [*self.silent, window] if result.verdict is Outcome.NO_DATA else []
        self._tell("filling", len(self.windows), len(self.windows))
        return filled

    # -- details --------------------------------------------------------------------------------------

    def _on(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._tell(what, done, total)

    def _begin(self, end: datetime) -> datetime:
        """The first bucket with an event after the training rows, which are no live rows."""
        timestamp, after = self._monitor.source.timestamp, self._reference.manifest.end or _FIRST
        assert timestamp is not None  # noqa: S101 - the caller saw to it
        found = None
        if after < end:
            on = self._on("looking for the first event")
            found = event_times(self._source, timestamp, Window(start=after, end=end), on)
        if found is None:
            raise SourceError(
                f"monitors.{self._name}.source has no rows between {after:%Y-%m-%d %H:%M}Z, where the reference "
                f"ends, and {end:%Y-%m-%d %H:%M}Z: say with --from where to begin"
            )
        width = self._monitor.window.bucket
        return max(after, _FIRST + (found[0] - _FIRST) // width * width)

    def _episodes(self, store: Store, result: CheckResult, i: int) -> list[Episode]:
        """What the window changes, by the rules of the daemon.

        An open episode that receivers know of is left to the daemon. One that meets a window which was judged
        already ends there: what follows was told as it is.
        """
        monitor, end = self._monitor, result.window.end
        later = bisect_right(self._judged, end)
        meets = later < len(self._judged) and (
            i + 1 == len(self.windows) or self._judged[later] < self.windows[i + 1].end
        )
        history = store.history(result.monitor, end, monitor.alarm.persistence.of)
        changed = []
        for lane in LANES:
            previous = store.episode(result.monitor, lane, by=end)
            if previous is not None and previous.closed is None and not previous.untold:
                continue
            moved = step(lane, previous, history, result, monitor.alarm, monitor.maintenance)
            if (episode := moved.episode) is None:
                continue
            closes = meets and episode.closed is None and (episode.updated < end or moved.changed)
            if moved.changed or closes:
                ended = {"updated": end, "closed": end} if closes else {}
                changed.append(episode.model_copy(update={"untold": True, **ended}))
        return changed
