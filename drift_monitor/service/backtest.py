"""A monitor replayed over a log: every window that its schedule would have had, judged as a check judges it.

Rows are read once, in the order of time, into profiles of the stretches between the ends of windows; windows are
put together from these. So a window's profile is that of a check of it, to the last bit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from drift_monitor.config.models import Monitor
from drift_monitor.config.sources import sample_of
from drift_monitor.core import rivals as usual
from drift_monitor.core.alarm import Live, RunScore, score_runs, with_channels
from drift_monitor.core.check import Baseline, check
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.folding import Lost, lost_rows, meets
from drift_monitor.core.policy import format_duration
from drift_monitor.core.profile import Ints, Profile, Spec, whole_columns
from drift_monitor.core.promise import promise
from drift_monitor.core.scores import fine_counts
from drift_monitor.core.sliding import Sliding
from drift_monitor.core.tally import Backtest, Tally, day_of
from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Window
from drift_monitor.service.calibrations import known_of, without_times
from drift_monitor.service.channels import last_day, live_channels
from drift_monitor.service.evaluate import (
    CheckRequest,
    Run,
    fraction_of,
    readable_of,
    windows_at_once,
    with_sample,
)
from drift_monitor.service.references import quality_of, reference_of, watched_specs
from drift_monitor.service.scheduler import fires_after
from drift_monitor.service.scoring import cuts, score
from drift_monitor.sources import SOURCES, Source

MOST_WINDOWS: Final = 200_000
"""More are refused: 22 years of hourly checks, or a mistake in the dates."""
_TOGETHER: Final = 10_000  # profiles of 32 kB in memory at once, unless a single window has more
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def backtest(
    name: str,
    monitor: Monitor,
    state: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    rivals: bool = True,
    progress: Progress | None = None,
) -> Backtest:
    """Judge every window of a stretch of the past and apply the episode rules.

    Nobody is told and no run is stored. What a check keeps for later (a reference built from a training file, the
    calibration) is kept.

    Args:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder.
        start: windows begin here or later; None for the first bucket that the log has rows in.
        end: windows end here or earlier; None for the last such bucket.
        rivals: also ask the usual rules, once a day.
        progress: hears how far it is.

    Raises:
        SourceError: the log cannot be read, or there is no window in it.
        BadReferenceError: there is no reference.
        ConfigError: the policies name features or methods that are not there.
    """
    replay = Replay(name, monitor, state, start, end, rivals=rivals, progress=progress)
    tally = Tally(monitor.alarm, monitor.maintenance)
    for result, said in replay.judged():
        tally.add(result, said)
    return replay.told(tally)


class Replay(Run):
    """The windows of a monitor over a log.

    Args:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder.
        start, end: see `backtest`.
        rivals: see `backtest`.
        progress: see `backtest`.

    Attributes:
        span: between which all windows lie.
        windows: in order.
    """

    def __init__(
        self,
        name: str,
        monitor: Monitor,
        state: Path,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        rivals: bool = True,
        progress: Progress | None = None,
    ) -> None:
        quick = monitor.alarm.model_copy(update={"report": ()})  # what is only shown costs as much as what decides
        monitor = monitor.model_copy(update={"alarm": quick})
        super().__init__(CheckRequest(name=name, monitor=monitor, state=state, window=None))
        self._progress = progress or (lambda _what, _done, _all: None)
        self._reference = reference_of(
            name, monitor, state, now=lambda: datetime.now(UTC), progress=self._on("building the reference")
        )
        self.reference_id = self._reference.id
        self._watched = watched_specs(monitor, self._reference)
        self._source = SOURCES[monitor.source.type](monitor.source, self._kinds(self._watched))
        self.span = self._between(start, end)
        self.windows = windows_between(monitor, self.span)
        self._alarms = known_of(
            name, monitor, self._reference, state, self._watched, progress=self._on("calibrating")
        )
        self._known = self._newest = self._baseline(self._reference, self.windows[0], self._watched, self._alarms)
        self._say = self._rivals() if rivals else None
        ends = {_micros(w.end) for w in self.windows}
        self._limits = sorted(ends.union(*(cuts(w, self._alarms) for w in self.windows)))
        """Where stretches begin and end, in microseconds since 1970; stretch i lies between limits i and i + 1."""
        self._stretches: dict[int, Profile] = {}
        self._errors: dict[int, SchemaError] = {}
        self._lost: list[Lost] = []

    def judged(self) -> Iterator[tuple[CheckResult, Mapping[str, bool] | None]]:
        """The result of every window, and what the usual rules say of the last one of each day."""
        sliding = Sliding(self._stretches.get)
        begins = [bisect_left(self._limits, _micros(w.start)) for w in self.windows]
        ends = [bisect_left(self._limits, _micros(w.end)) for w in self.windows]
        days = [day_of(w) for w in self.windows]
        done = read = 0
        while done < len(self.windows):
            unread = max(read, begins[done])
            until = done + 1
            while until < len(ends) and (ends[until] - unread) * len(self._watched) <= _TOGETHER:
                until += 1
            self._forget(begins[done])
            self._fill(unread, ends[until - 1])
            read = ends[until - 1]
            scores = self._scores(begins[done], read, self.windows[done:until])
            for i in range(done, until):
                result, profile = self._judge(self.windows[i], begins[i], ends[i], sliding, scores[i - done])
                said = None
                if self._say is not None and profile is not None and days[i] not in days[i + 1 : i + 2]:
                    said = self._say(profile)
                yield result, said
                self._progress("judging", i + 1, len(self.windows))
            done = until

    def told(self, tally: Tally) -> Backtest:
        """What was counted, with what is promised."""
        calibration = self._newest.calibration
        threshold = calibration.drift if calibration is not None else None
        assert self.reference_id is not None  # noqa: S101 - it was opened
        return tally.backtest(
            self._request.name,
            self.reference_id,
            self.span,
            promise=promise(threshold, self._monitor.alarm, self._newest.why_not),
            basis=threshold.basis if threshold is not None else "none",
            budget=threshold.budget if threshold is not None and threshold.value is not None else None,
        )

    # -- before any window ----------------------------------------------------------------------------

    def _on(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(what, done, total)

    def _between(self, start: datetime | None, end: datetime | None) -> Window:
        """The stretch to replay; where it is not given, the whole buckets that the log has rows in."""
        name, timestamp = self._request.name, self._monitor.source.timestamp
        if timestamp is None:
            raise SourceError(f"monitors.{name}.source has no timestamp, so there is no past to replay")
        if start is not None and end is not None:
            return Window(start=start, end=end)
        bounds = Window(start=start or _FIRST, end=end or _LAST)
        found = event_times(self._source, timestamp, bounds, self._on("looking for the first and last event"))
        if found is None:
            raise SourceError(f"monitors.{name}.source has no rows there")
        width = self._reference.manifest.bucket_length
        first, last = ((t - _EPOCH) // width * width + _EPOCH for t in found)
        return Window(start=start or first, end=end or last + width)

    def _rivals(self) -> Callable[[Profile], dict[str, bool]]:
        reference, length = self._reference, self._monitor.window.length
        at_most = windows_at_once(self._watched)
        windows = reference.windows(length, at_most=at_most, cache=self._request.state / "cache")
        columns = whole_columns(self._watched)  # the usual rules know no segments
        return usual.fit(columns, reference.profile, [w for w in windows.values() if w.features])

    # -- reading --------------------------------------------------------------------------------------

    def _at(self, start: datetime, end: datetime) -> None:
        """Look at this stretch of event time from now on."""
        self._request = self._request.model_copy(update={"window": Window(start=start, end=end)})

    def _forget(self, stretch: int) -> None:
        """No window before this stretch is needed any more."""
        for known in (self._stretches, self._errors):
            for i in [i for i in known if i < stretch]:
                del known[i]
        self._lost = [lost for lost in self._lost if meets(lost, self._limits[stretch], None)]

    def _fill(self, first: int, end: int) -> None:
        """Read the stretches from `first` to before `end`.

        Where the files of a stretch do not fit together, its two halves may still do, each by itself.
        """
        if first == end:
            return
        self._at(_moment(self._limits[first]), _moment(self._limits[end]))
        try:
            profiles, lost = self._profiles(self._limits[first:end])
        except SchemaError as error:
            if end - first == 1:
                self._errors[first] = error
                return
            middle = (first + end) // 2
            self._fill(first, middle)
            self._fill(middle, end)
            return
        places = {limit: first + i for i, limit in enumerate(self._limits[first:end])}
        self._stretches |= {places[start]: profile for start, profile in profiles.items()}
        self._lost += lost

    def _profiles(self, limits: Sequence[int]) -> tuple[Mapping[int, Profile], Sequence[Lost]]:
        """The profiles of the stretches that begin at some times, and the rows without a time."""
        specs = readable_of(self._watched, self._schema(self._source, self._watched))
        folding = self._folding(specs, self._reference.pairs, limits)
        folded = self._folded(self._source, folding, None, self._on("reading"))
        return folding.unpacked(folded), folded.lost

    # -- judging --------------------------------------------------------------------------------------

    def _scores(self, first: int, end: int, windows: Sequence[Window]) -> Sequence[RunScore | None]:
        """The runs on the scales of the calibration; the stretches from `first` to before `end` are read."""
        calibration, watch = self._alarms.calibration, self._alarms.watch
        if self._known.calibration is None or calibration is None:
            return [None] * len(windows)
        limits = np.array(self._limits[first : end + 1])
        width = round(calibration.bucket * 1e6)
        closes = np.array([_micros(w.end) for w in windows])
        since: dict[int, Ints] = {}
        run: dict[int, Ints] = {}
        parts: dict[int, tuple[Ints, Ints]] = {}
        for length in watch.lengths:
            seconds, micros = int(length.total_seconds()), length // _MICROSECOND
            back = np.arange(watch.tiles(length)) * micros
            last = (closes[:, None] - back).ravel()
            since[seconds] = last // width
            run[seconds] = np.repeat(np.arange(len(windows)), len(back))
            parts[seconds] = np.searchsorted(limits, last - micros), np.searchsorted(limits, last)
        profiles = [self._stretches.get(i) for i in range(first, end)]
        live = Live(len(windows), since, run, _Counts(self._watched, profiles, parts))
        return score_runs(calibration, watch, self._watched, self._alarms.yardsticks, live)

    def _judge(
        self, window: Window, first: int, end: int, sliding: Sliding, scored: RunScore | None
    ) -> tuple[CheckResult, Profile | None]:
        self._at(window.start, window.end)
        self.rows = 0
        try:
            schema = self._schema(self._source, self._watched)
            for i in range(first, end) if self._errors else ():
                if i in self._errors:
                    raise self._errors[i]
            readable = readable_of(self._watched, schema)
            profile = sliding.over(first, end)
            if profile is not None and len(readable) < len(self._watched):
                kept = {s.name for s in readable} & profile.features.keys()
                profile = replace(profile, features={name: profile.features[name] for name in sorted(kept)})
            self.rows = profile.rows if profile is not None else 0
            low, high = _micros(window.start), _micros(window.end)
            invalid = lost_rows([lost for lost in self._lost if meets(lost, low, high)])
            self._refuse_unreadable(invalid)
            known, details = self._known, dict[str, str]()
            if self.rows and profile is not None:
                known, scored, details = self._score_of(window, schema, profile, readable, scored)
            fraction = fraction_of(self._source, window)
            result = check(
                self._request.name,
                window,
                self._watched,
                self._reference.profile,
                self._reference.id,
                profile,
                {field.name: str(field.type) for field in schema},
                self._monitor.alarm,
                quality_of(self._monitor, self._reference),
                known,
                extra=self._extra(self._reference, self._source, readable) if self.rows else None,
                scored=scored if self.rows else None,
                details=details,
                invalid_rows=invalid,
                fraction=fraction,
                brief=True,
            )
        except SchemaError as error:
            return self._failed(window, error), None
        return with_sample(result, fraction, sample_of(self._monitor.source)), profile

    def _score_of(
        self,
        window: Window,
        schema: pa.Schema,
        profile: Profile,
        readable: Sequence[Spec],
        scored: RunScore | None,
    ) -> tuple[Baseline, RunScore | None, dict[str, str]]:
        """What the window is judged by, its score with all channels, and what those that are no feature say."""
        alarms, known = self._alarms, self._known
        if alarms.calibration is None:  # without times in the reference it depends on how many rows a window has
            alarms = without_times(alarms, self._monitor, self._reference, self._watched, self.rows)
            known = self._newest = self._baseline(self._reference, window, self._watched, alarms)
        if known.calibration is None:
            return known, None, {}
        timestamp = self._monitor.source.timestamp
        day = last_day(alarms.calibration, alarms.watch, self._source, schema, readable, window, timestamp)
        values, details = live_channels(alarms.calibration, alarms.watch, readable, self._reference, day, profile)
        if scored is None:
            scored = score(alarms, self._watched, window, {_micros(window.start): profile}, values)
        else:
            scored = with_channels(scored, known.calibration, values)
        return known, scored, details

    def _failed(self, window: Window, error: SchemaError) -> CheckResult:
        return CheckResult(
            monitor=self._request.name,
            window=window,
            rows=self.rows,
            verdict=Outcome.CANNOT_JUDGE,
            reason="; ".join(str(error).splitlines()),
            failure=FailureReason.SCHEMA,
            promise="none: nothing was judged",
            reference=self.reference_id,
        )


class _Counts(Mapping[str, Mapping[int, Ints]]):
    """Counts by fine cell of each feature in the windows, put together when they are asked for.

    Args:
        specs: of the features.
        profiles: of the stretches, None without rows.
        parts: by window length in seconds: the first stretch of each window, and the one after its last.
    """

    def __init__(
        self, specs: Sequence[Spec], profiles: Sequence[Profile | None], parts: Mapping[int, tuple[Ints, Ints]]
    ) -> None:
        self._profiles, self._parts = profiles, parts
        self._names = [
            spec.name for spec in specs if any(p is not None and spec.name in p.features for p in profiles)
        ]
        self._newest: tuple[str, Mapping[int, Ints]] = "", {}

    def __getitem__(self, name: str) -> Mapping[int, Ints]:
        if self._newest[0] != name:
            self._newest = name, self._sums(name)
        return self._newest[1]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _sums(self, name: str) -> dict[int, Ints]:
        """A window of which a part was read without the feature counts as one without rows of it."""
        cells = next(len(fine_counts(p.features[name])) for p in self._profiles if p and name in p.features)
        running = np.zeros((len(self._profiles) + 1, cells), np.int64)
        lacking = np.zeros(len(self._profiles) + 1, np.int64)
        for i, profile in enumerate(self._profiles, 1):
            if profile is not None and name in profile.features:
                running[i] = fine_counts(profile.features[name])
            elif profile is not None:
                lacking[i] = 1
        running, lacking = np.cumsum(running, axis=0, out=running), np.cumsum(lacking)
        found = {}
        for seconds, (first, end) in self._parts.items():
            found[seconds] = running[end] - running[first]
            found[seconds][lacking[end] > lacking[first]] = 0
        return found


def event_times(
    source: Source[Any], timestamp: str, bounds: Window, progress: Callable[[int, int], None]
) -> tuple[datetime, datetime] | None:
    """The first and the last event between two times; None without rows there."""
    oldest, newest = None, None
    splits = source.splits(bounds)
    for done, split in enumerate(splits):
        progress(done, len(splits))
        for batch in source.batches(split, [timestamp]):
            times = batch.column(timestamp).drop_null()
            if len(times):
                raw = times.cast(pa.int64()).to_numpy()
                oldest = min(int(raw.min()), oldest if oldest is not None else int(raw.min()))
                newest = max(int(raw.max()), newest if newest is not None else int(raw.max()))
    return None if oldest is None or newest is None else (_moment(oldest), _moment(newest))


def windows_between(monitor: Monitor, span: Window) -> list[Window]:
    """The windows of a monitor's schedule that lie whole in a stretch, in order.

    Raises:
        SourceError: there is none, or there are more than MOST_WINDOWS.
    """
    length = monitor.window.length
    found: list[Window] = []
    for fire in fires_after(monitor.schedule, span.start + length - _MICROSECOND):
        if fire > span.end:
            break
        if len(found) == MOST_WINDOWS:
            raise SourceError(f"there are more than {MOST_WINDOWS:,} windows in {span}: choose a shorter stretch")
        found.append(Window(start=fire - length, end=fire))
    if not found:
        raise SourceError(f"no window of {format_duration(length)} lies whole in {span}")
    return found


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND
