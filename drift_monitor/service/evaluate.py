"""One check of one window, from files to verdict: what a worker child and `drift-monitor check` both run.

The daemon imports this module for `CheckRequest`, so whatever is large is imported when a check begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from drift_monitor.config.clusters import ThreadsExecutor
from drift_monitor.config.models import Monitor
from drift_monitor.config.sources import sample_of
from drift_monitor.core.errors import BadReferenceError, ConfigError, DriftMonitorError, SchemaError, SourceError
from drift_monitor.core.types import (
    CheckResult,
    Comparison,
    FailureReason,
    Kind,
    Outcome,
    Performance,
    ReferenceId,
    StatResult,
    Value,
    Window,
)
from drift_monitor.service.packages import versions

if TYPE_CHECKING:
    import pyarrow as pa

    from drift_monitor.core.alarm import RunScore
    from drift_monitor.core.check import Baseline
    from drift_monitor.core.folding import Folded, Folding
    from drift_monitor.core.products import PairSpec
    from drift_monitor.core.profile import Profile, Spec
    from drift_monitor.reference import Reference
    from drift_monitor.service.calibrations import Known
    from drift_monitor.service.channels import LastDay
    from drift_monitor.service.kept import Kept
    from drift_monitor.sources import Source

UNREADABLE: Final = 0.05
"""Share of rows without a readable event time above which a window is not judged: they may be anything."""
_IN_HAND: Final = 1 << 29  # bytes of packed profiles that may come back from a cluster at once, about
_DENSE: Final = 2500  # profiles of 32 kB in memory at once: 80 MB
_LONGEST_REASON: Final = 2000
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BASELINES: Final = 256
_log = logging.getLogger(__name__)
# A worker judges many windows against the same reference; what that says of windows is learnt once.
_baselines: dict[tuple[str, timedelta, tuple[str, ...], str], Baseline] = {}


class Earlier(Value):
    """A window that was judged and is looked at again, in case rows of it came since.

    Attributes:
        read_from: of its result.
    """

    window: Window
    read_from: str


class CheckRequest(Value):
    """What a check needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        state: the state folder; a reference built from a training file is kept below it.
        window: the stretch of event time; None for the whole source (no timestamp column).
        earlier: windows that late rows may have reached.
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None
    earlier: tuple[Earlier, ...] = ()


def evaluate(request: CheckRequest, *, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Read, profile and judge one window.

    Never raises for what can go wrong with data, files or the reference: those end as verdict
    `cannot_judge` with a reason that names what and where.

    For a while after a promotion the window is compared with the reference before as well.

    Args:
        request: monitor and window.
        progress: called with (splits done, splits in all).
    """
    from drift_monitor.service.promotions import promotion_of  # noqa: PLC0415

    result = _evaluate(request, None, progress)
    try:
        promotion = promotion_of(request.state, request.name)
    except BadReferenceError:
        return result  # which says so itself
    if promotion is None or result.rows == 0 or not promotion.on_trial(request.window):
        return result
    if result.reference is None or result.reference.version != promotion.version:
        return result  # another reference was configured since
    before = _evaluate(request, promotion.previous, None)
    compared = Comparison(
        reference=before.reference,
        verdict=before.verdict,
        reason=before.reason,
        score=before.score,
        threshold=before.threshold,
        drifted=tuple(feature.name for feature in before.drifted),
    )
    return result.model_copy(update={"previous": compared})


def _evaluate(
    request: CheckRequest, version: Path | None, progress: Callable[[int, int], None] | None
) -> CheckResult:
    """The same with one reference: that of the monitor now, or the one in a version folder."""
    run = Run(request, version)
    try:
        return run.check(progress)
    except MemoryError as error:
        failure, reason = FailureReason.MEMORY, f"the check ran out of memory ({error}): raise workers.memory"
    except DriftMonitorError as error:
        failure, reason = _failure(error), "; ".join(str(error).splitlines())
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this run and no other
        _log.exception("check of %s failed", request.name)
        failure, reason = FailureReason.INTERNAL, f"the check failed with {type(error).__name__}: {error}"
    if len(reason) > _LONGEST_REASON:  # some libraries put the offending value into their message
        reason = f"{reason[:_LONGEST_REASON]}..."
    now = datetime.now(UTC)
    window = request.window or Window(start=now, end=now)
    return CheckResult(
        monitor=request.name,
        window=window,
        rows=run.rows,
        verdict=Outcome.CANNOT_JUDGE,
        reason=reason,
        failure=failure,
        promise="none: nothing was judged",
        reference=run.reference_id,
        **run.read,
    )


def _failure(error: DriftMonitorError) -> FailureReason:
    kinds: dict[type[DriftMonitorError], FailureReason] = {
        SourceError: FailureReason.SOURCE,
        SchemaError: FailureReason.SCHEMA,
        BadReferenceError: FailureReason.REFERENCE,
        ConfigError: FailureReason.SCHEMA,  # the policy names features that the reference does not have
    }
    return next((reason for kind, reason in kinds.items() if isinstance(error, kind)), FailureReason.INTERNAL)


class Run:
    """One check under way; what is known of it when it fails goes into the result."""

    def __init__(self, request: CheckRequest, version: Path | None = None) -> None:
        self._request, self._version = request, version
        self._monitor = request.monitor
        self.reference_id: ReferenceId | None = None
        self.rows = 0
        self.read: dict[str, Any] = {}  # what the result says of where rows came from

    def check(self, progress: Callable[[int, int], None] | None) -> CheckResult:
        """The cycle: reference -> source -> profile -> judgement."""
        with ExitStack() as held:  # what a source holds, a session of Spark, also serves samples and labels
            return self._check(progress, held)

    def _check(self, progress: Callable[[int, int], None] | None, held: ExitStack) -> CheckResult:
        from drift_monitor.core.check import check  # noqa: PLC0415
        from drift_monitor.core.profile import merge  # noqa: PLC0415
        from drift_monitor.reference import open_reference  # noqa: PLC0415
        from drift_monitor.service.calibrations import known_of, without_times  # noqa: PLC0415
        from drift_monitor.service.channels import last_day, live_channels  # noqa: PLC0415
        from drift_monitor.service.kept import Kept  # noqa: PLC0415
        from drift_monitor.service.references import quality_of, reference_of, watched_specs  # noqa: PLC0415
        from drift_monitor.service.scoring import cuts, score  # noqa: PLC0415
        from drift_monitor.sources import SOURCES  # noqa: PLC0415

        monitor, request = self._monitor, self._request
        clock = [perf_counter()]
        if self._version is None:
            reference = reference_of(request.name, monitor, request.state, now=lambda: datetime.now(UTC))
        else:
            reference = open_reference(self._version, thorough=False)
        self.reference_id = reference.id
        specs = watched_specs(monitor, reference)
        clock.append(perf_counter())
        source = SOURCES[monitor.source.type](monitor.source, self._kinds(specs))
        if hasattr(source, "held"):
            held.enter_context(source.held())
        with Kept.open(request, source, reference.id) as kept:
            schema = self._schema(source, specs)
            readable = readable_of(specs, schema)
            alarms = known_of(request.name, monitor, reference, request.state, specs)
            starts = cuts(request.window, alarms)
            timestamp = monitor.source.timestamp
            day = last_day(alarms.calibration, alarms.watch, source, schema, readable, request.window, timestamp)
            folding = self._folding(readable, reference.pairs, starts)
            profiles, invalid = self._read(kept, source, folding, day, progress)
            fraction = fraction_of(source, request.window)
        profile = merge(profiles[start] for start in sorted(profiles))
        self.rows = profile.rows if profile else 0
        self._refuse_unreadable(invalid)
        window = request.window or _extent(profile)
        clock.append(perf_counter())
        if self.rows:
            alarms = without_times(alarms, monitor, reference, specs, self.rows)
        known = self._baseline(reference, window, specs, alarms)
        scored: RunScore | None = None
        details: dict[str, str] = {}
        if known.calibration is not None and self.rows:
            values, details = live_channels(alarms.calibration, alarms.watch, readable, reference, day, profile)
            scored = score(alarms, specs, window, profiles, values)
        result: CheckResult = check(
            request.name,
            window,
            specs,
            reference.profile,
            reference.id,
            profile,
            {field.name: str(field.type) for field in schema},
            monitor.alarm,
            quality_of(monitor, reference),
            known,
            extra=self._extra(reference, source, readable) if self.rows else None,
            scored=scored,
            details=details,
            invalid_rows=invalid,
            fraction=fraction,
        )
        clock.append(perf_counter())
        performance = self._performance(reference, source)
        clock.append(perf_counter())
        result = with_sample(result, fraction, sample_of(monitor.source))
        facts = {"seconds": _phases(clock, performance), "versions": versions(), "performance": performance}
        return result.model_copy(update={**facts, **self.read})

    def _performance(self, reference: Reference, source: Source[Any]) -> Performance | None:
        """Of the model, where late labels tell it; once a check, whatever references it looks at."""
        if self._monitor.labels is None or self._version is not None:
            return None
        from drift_monitor.service.performance import performance  # noqa: PLC0415

        return performance(self._request, reference, source)

    def _kinds(self, specs: Sequence[Spec]) -> dict[str, Kind]:
        kinds: dict[str, Kind] = {spec.column: spec.kind for spec in specs}
        if self._monitor.columns.id is not None:
            kinds[self._monitor.columns.id] = "categorical"  # 007 and 7 are two ids
        return kinds

    def _schema(self, source: Source[Any], specs: Sequence[Spec]) -> pa.Schema:
        """The columns of the live data; those that a check cannot do without are there."""
        needed = {
            "source.timestamp": self._monitor.source.timestamp,
            "columns.id": self._monitor.columns.id,
        }
        only = {spec.column for spec in specs} | {name for name in needed.values() if name is not None}
        schema: pa.Schema = source.columns(self._request.window, only)
        for setting, name in needed.items():
            if name is not None and name not in schema.names:
                raise SchemaError(
                    f"the live data has no column {name!r} ({setting}); it has {_listed(schema.names)}"
                )
        return schema

    def _read(
        self,
        kept: Kept,
        source: Source[Any],
        folding: Folding,
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Mapping[int, Profile], int]:
        """The profiles of the stretches that begin at some times, and the rows without a usable time."""
        from drift_monitor.core.folding import lost_rows  # noqa: PLC0415

        if not isinstance(self._monitor.executor, ThreadsExecutor):
            day = None  # its rows do not come by here

        def each(parts: Sequence[Any], folding: Folding) -> Iterator[tuple[Any, Folded]]:
            return self._each(source, parts, folding, day)

        found = kept.read(folding, day, progress, each)
        reopened = kept.look_back(folding, lambda parts, folding: self._each(source, parts, folding, None))
        self.read = {"read_from": kept.read_from, "reopened": reopened}
        if found is not None:
            return found
        if day is not None:
            day.begin()
        folded = self._folded(source, folding, day, progress)
        if day is not None:
            day.read_in(self._request.window, fraction_of(source, self._request.window))
        return folding.unpacked(folded), lost_rows(folded.lost)

    def _folding(self, specs: Sequence[Spec], pairs: PairSpec | None, starts: Sequence[int]) -> Folding:
        """How the rows of a stretch are folded, into parts that begin at some times."""
        import numpy as np  # noqa: PLC0415

        from drift_monitor.core.folding import Folding  # noqa: PLC0415
        from drift_monitor.core.packed import Layout  # noqa: PLC0415
        from drift_monitor.core.profile import columns_read  # noqa: PLC0415

        timestamp, identifier = self._monitor.source.timestamp, self._monitor.columns.id
        columns = columns_read(specs)
        columns += [name for name in (identifier, timestamp) if name is not None and name not in columns]
        pairs = None if pairs is None else pairs.only([spec.name for spec in specs])
        layout = Layout(tuple(specs), pairs)
        return Folding(layout, tuple(columns), timestamp, identifier, np.array(starts, np.int64))

    def _folded(
        self,
        source: Source[Any],
        folding: Folding,
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
    ) -> Folded:
        """The rows of the window, folded by the source itself or by the monitor's executor."""
        if hasattr(source, "fold"):
            whole: Folded = source.fold(self._request.window, folding)
            return whole
        splits = source.splits(self._request.window)
        parts = (part for _, part in self._each(source, splits, folding, day))
        return folding.merged(_counted(parts, len(splits), progress))

    def _each(
        self, source: Source[Any], parts: Sequence[Any], folding: Folding, day: LastDay | None
    ) -> Iterator[tuple[Any, Folded]]:
        """Parts of the source with what they were folded into, by the monitor's executor."""
        from drift_monitor.core.packed import packed_bytes  # noqa: PLC0415
        from drift_monitor.executors import EXECUTORS  # noqa: PLC0415
        from drift_monitor.sources.reading import Reading  # noqa: PLC0415

        monitor = self._monitor
        executor = EXECUTORS[monitor.executor.type](monitor.executor)
        watch = None if day is None else day.watch
        reading = Reading(monitor.source, self._kinds(folding.layout.specs), folding, source, watch)
        return executor.each(parts, reading, most=max(8, _IN_HAND // packed_bytes(folding.layout)))

    def _refuse_unreadable(self, invalid: int) -> None:
        from drift_monitor.sources.event_time import FIRST_YEAR, LAST_YEAR  # noqa: PLC0415

        if invalid > UNREADABLE * (self.rows + invalid):
            raise SchemaError(
                f"{invalid} of {self.rows + invalid} rows have no usable time in the timestamp column "
                f"{self._monitor.source.timestamp!r}: it is missing, unreadable, or outside the years "
                f"{FIRST_YEAR} to {LAST_YEAR} (at most {UNREADABLE:.0%} may be so)"
            )

    def _baseline(self, reference: Reference, window: Window, specs: Sequence[Spec], alarms: Known) -> Baseline:
        from drift_monitor.core.check import baseline  # noqa: PLC0415
        from drift_monitor.service.references import quality_of  # noqa: PLC0415

        monitor, quality = self._monitor, quality_of(self._monitor, reference)
        calibration, why_not = alarms.calibration, alarms.why_not
        timed = calibration is not None and calibration.drift.basis != "independent_rows"
        if timed and window.length != monitor.window.length:
            calibration, why_not = None, "the window is not of the length that was calibrated"
        settings = monitor.model_dump_json(include={"alarm", "schedule", "window"}) + quality.model_dump_json()
        size = "" if calibration is None or timed else f"{calibration.drift.value}"
        key = (reference.id.sha256, window.length, tuple(spec.name for spec in specs), settings + size)
        if key not in _baselines:
            cache = self._request.state / "cache"
            windows = reference.windows(window.length, at_most=windows_at_once(specs), cache=cache)
            if len(_baselines) >= _BASELINES:
                _baselines.pop(next(iter(_baselines)))
            _baselines[key] = baseline(
                specs, reference.profile, quality, window.length, windows, calibration, why_not
            )
        return _baselines[key]

    def _extra(
        self, reference: Reference, source: Source[Any], specs: Sequence[Spec]
    ) -> dict[str, dict[str, StatResult]] | None:
        """Evidently's own tests, on samples of rows; only where the policy asks for them, since they are dear."""
        from drift_monitor.core.profile import whole_columns  # noqa: PLC0415
        from drift_monitor.core.verdict import outside_methods  # noqa: PLC0415

        asked = outside_methods(whole_columns(specs), self._monitor.alarm)
        wanted = {name: methods for name, methods in asked.items() if methods}
        if not wanted:
            return None
        from drift_monitor.evidently_tests import evidently_statistics  # noqa: PLC0415
        from drift_monitor.sources.sample import sample_rows  # noqa: PLC0415

        live = sample_rows(
            source,
            self._request.window,
            list(wanted),
            self._monitor.report.rows,
            timestamp=self._monitor.source.timestamp,
        )
        return evidently_statistics(
            wanted,
            reference.sample(),
            live,
            reference.manifest.kinds,
            on_failure=lambda feature, method, reason: _log.warning("%s on %r: %s", method, feature, reason),
        )


def fraction_of(source: Any, window: Window | None) -> float | None:
    """The share of the window's rows that a sample of row groups reads; None for a source without one."""
    found: float | None = source.fraction(window) if hasattr(source, "fraction") else None
    return found


def with_sample(result: CheckResult, fraction: float | None, percent: float | None) -> CheckResult:
    """The result with what share was read: of a window's rows where that is known, or else of a table's pages."""
    if fraction is not None:
        percent, said = 100 * fraction, f"{100 * fraction:.5g}% of the rows, in whole row groups"
    elif percent is not None:
        said = f"a sample of {percent:g}% of the table's pages"
    else:
        return result
    return result.model_copy(update={"sample": percent, "reason": f"{result.reason}; read: {said}"})


def windows_at_once(specs: Sequence[Spec]) -> int:
    """How many windows of a reference are held with all features; one of a segment takes a quarter as much."""
    sliced = sum(spec.segment is not None for spec in specs)
    return max(1, int(_DENSE // (len(specs) - 0.75 * sliced)))


def _phases(clock: Sequence[float], performance: Performance | None) -> dict[str, float]:
    """How long each phase took."""
    phases = ("reference", "source", "judge", *(["labels"] if performance is not None else []))
    return {phase: b - a for phase, (a, b) in zip(phases, pairwise(clock), strict=False)}


def _counted(
    parts: Iterator[Folded], in_all: int, progress: Callable[[int, int], None] | None
) -> Iterator[Folded]:
    for done, part in enumerate(parts, 1):
        yield part
        if progress is not None:
            progress(done, in_all)


def readable_of(specs: Sequence[Spec], schema: pa.Schema) -> list[Spec]:
    """The features that the live data has, as what they were in training; of others the quality checks tell."""
    from drift_monitor.core.fold import accepts  # noqa: PLC0415

    types = dict(zip(schema.names, schema.types, strict=True))
    there = {s.column for s in specs if s.column in types and accepts(s.kind, types[s.column])}
    return [s for s in specs if s.column in there and (s.segment is None or s.segment.column in there)]


def _extent(profile: Profile | None) -> Window:
    """The window of a check of everything: from the first to the last event, or now where there are no times."""
    if profile is None or profile.oldest is None or profile.newest is None:
        now = datetime.now(UTC)
        return Window(start=now, end=now)
    start, end = (_EPOCH + t * _MICROSECOND for t in (profile.oldest, profile.newest + 1))
    return Window(start=start, end=end)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
