"""One check of one window, from files to verdict: what a worker child and `drift-monitor check` both run.

The daemon imports this module for `CheckRequest`, so whatever is large is imported when a check begins.
"""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import BadReferenceError, ConfigError, DriftMonitorError, SchemaError, SourceError
from drift_monitor.core.types import (
    CheckResult,
    FailureReason,
    Kind,
    Outcome,
    ReferenceId,
    StatResult,
    Value,
    Window,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from drift_monitor.core.check import Baseline
    from drift_monitor.core.products import PairSpec
    from drift_monitor.core.profile import Profile, Spec
    from drift_monitor.reference import Reference
    from drift_monitor.sources import Source

WORKERS: Final = 1
"""Splits read at once. Two threads take half the wall time but more CPU and memory; other monitors wait anyway."""
UNREADABLE: Final = 0.05
"""Share of rows without a readable event time above which a window is not judged: they may be anything."""
_DENSE: Final = 2500  # profiles of 32 kB in memory at once: 80 MB
_LONGEST_REASON: Final = 2000
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BASELINES: Final = 64
_log = logging.getLogger(__name__)
# A worker judges many windows against the same reference; what that says of windows is learnt once.
_baselines: dict[tuple[str, timedelta, tuple[str, ...], str], Baseline] = {}


class CheckRequest(Value):
    """What a check needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        state: the state folder; a reference built from a training file is kept below it.
        window: the stretch of event time; None for the whole source (no timestamp column).
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None


def evaluate(request: CheckRequest, *, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Read, profile and judge one window.

    Never raises for what can go wrong with data, files or the reference: those end as verdict
    `cannot_judge` with a reason that names what and where.

    Args:
        request: monitor and window.
        progress: called with (splits done, splits in all).
    """
    run = _Run(request)
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
    )


def _failure(error: DriftMonitorError) -> FailureReason:
    kinds: dict[type[DriftMonitorError], FailureReason] = {
        SourceError: FailureReason.SOURCE,
        SchemaError: FailureReason.SCHEMA,
        BadReferenceError: FailureReason.REFERENCE,
        ConfigError: FailureReason.SCHEMA,  # the policy names features that the reference does not have
    }
    return next((reason for kind, reason in kinds.items() if isinstance(error, kind)), FailureReason.INTERNAL)


@dataclass(frozen=True)
class _Part:
    """What was read of a window: a profile, and how many rows could not be read as rows."""

    profile: Profile | None
    invalid: int

    def merge(self, other: _Part) -> _Part:
        profiles = [p for p in (self.profile, other.profile) if p is not None]
        whole = profiles[0].merge(profiles[1]) if len(profiles) == 2 else next(iter(profiles), None)
        return _Part(whole, self.invalid + other.invalid)


class _Run:
    """One check under way; what is known of it when it fails goes into the result."""

    def __init__(self, request: CheckRequest) -> None:
        self._request = request
        self._monitor = request.monitor
        self.reference_id: ReferenceId | None = None
        self.rows = 0

    def check(self, progress: Callable[[int, int], None] | None) -> CheckResult:
        """The cycle: reference -> source -> profile -> judgement."""
        from drift_monitor.core.check import check  # noqa: PLC0415
        from drift_monitor.service.references import reference_of  # noqa: PLC0415
        from drift_monitor.sources import SOURCES  # noqa: PLC0415

        monitor, request = self._monitor, self._request
        clock = [perf_counter()]
        reference = reference_of(request.name, monitor, request.state, now=lambda: datetime.now(UTC))
        self.reference_id = reference.id
        specs = self._specs(reference)
        clock.append(perf_counter())
        source = SOURCES[monitor.source.type](monitor.source, self._kinds(specs))
        schema = self._schema(source, specs)
        readable = [s for s in specs if _readable(s, schema)]
        part = self._read(source, readable, reference.pairs, progress)
        self.rows = part.profile.rows if part.profile else 0
        self._refuse_unreadable(part)
        window = request.window or _extent(part.profile)
        clock.append(perf_counter())
        result: CheckResult = check(
            request.name,
            window,
            specs,
            reference.profile,
            reference.id,
            part.profile,
            {field.name: str(field.type) for field in schema},
            monitor.alarm,
            monitor.quality,
            self._baseline(reference, window, specs),
            extra=self._extra(reference, source, readable) if self.rows else None,
            invalid_rows=part.invalid,
        )
        clock.append(perf_counter())
        phases = ("reference", "source", "judge")
        seconds = {phase: b - a for phase, (a, b) in zip(phases, pairwise(clock), strict=True)}
        return result.model_copy(update={"seconds": seconds, "versions": _versions()})

    def _specs(self, reference: Reference) -> list[Spec]:
        """The reference's features that the monitor watches."""
        columns = self._monitor.columns
        kinds = reference.manifest.kinds
        for name, kind in columns.kinds.items():
            if kinds.get(name, kind) != kind:
                raise BadReferenceError(
                    f"columns.kinds says that {name!r} is {kind}, but reference {reference.manifest.version} was "
                    f"built with {kinds[name]}: build a new version"
                )
        apart = {*columns.ignore, columns.label, columns.id, self._monitor.source.timestamp}
        wanted = kinds.keys() if columns.features is None else {*columns.features, columns.prediction}
        specs = [s for s in reference.specs if s.name in wanted and s.name not in apart - {columns.prediction}]
        if not specs:
            raise BadReferenceError(f"reference {reference.manifest.version} has none of the monitor's features")
        return specs

    def _kinds(self, specs: Sequence[Spec]) -> dict[str, Kind]:
        kinds: dict[str, Kind] = {spec.name: spec.kind for spec in specs}
        if self._monitor.columns.id is not None:
            kinds[self._monitor.columns.id] = "categorical"  # 007 and 7 are two ids
        return kinds

    def _schema(self, source: Source[Any], specs: Sequence[Spec]) -> pa.Schema:
        """The columns of the live data; those that a check cannot do without are there."""
        needed = {
            "source.timestamp": self._monitor.source.timestamp,
            "columns.id": self._monitor.columns.id,
        }
        only = {spec.name for spec in specs} | {name for name in needed.values() if name is not None}
        schema: pa.Schema = source.columns(self._request.window, only)
        for setting, name in needed.items():
            if name is not None and name not in schema.names:
                raise SchemaError(
                    f"the live data has no column {name!r} ({setting}); it has {_listed(schema.names)}"
                )
        return schema

    def _read(
        self,
        source: Source[Any],
        specs: Sequence[Spec],
        pairs: PairSpec | None,
        progress: Callable[[int, int], None] | None,
    ) -> _Part:
        from drift_monitor.core.fold import profile_buckets  # noqa: PLC0415
        from drift_monitor.core.profile import merge  # noqa: PLC0415
        from drift_monitor.executors import EXECUTORS  # noqa: PLC0415

        monitor = self._monitor
        timestamp = monitor.source.timestamp
        columns = [spec.name for spec in specs]
        columns += [name for name in (monitor.columns.id, timestamp) if name is not None and name not in columns]
        bucket = self._bucket(len(specs))
        pairs = None if pairs is None else pairs.only([spec.name for spec in specs])

        def fold(split: Any) -> _Part:
            batches = _Placed(source.batches(split, columns), timestamp)
            buckets = profile_buckets(
                specs, batches, timestamp=timestamp, bucket=bucket, id_column=monitor.columns.id, pairs=pairs
            )
            return _Part(merge(buckets.values()), batches.invalid)

        splits = source.splits(self._request.window)
        whole = EXECUTORS["threads"](splits, fold, _Part.merge, workers=WORKERS, progress=progress)
        return whole or _Part(None, 0)

    def _bucket(self, features: int) -> timedelta:
        """The monitor's bucket, or as many together as keep a long window's buckets in memory.

        Merging is exact, so this changes no figure.
        """
        bucket = self._monitor.window.bucket
        if self._request.window is None:
            return bucket
        buckets = math.ceil(self._request.window.length / bucket)
        return bucket * math.ceil(buckets / max(1, _DENSE // features))

    def _refuse_unreadable(self, part: _Part) -> None:
        from drift_monitor.sources.event_time import FIRST_YEAR, LAST_YEAR  # noqa: PLC0415

        if part.invalid > UNREADABLE * (self.rows + part.invalid):
            raise SchemaError(
                f"{part.invalid} of {self.rows + part.invalid} rows have no usable time in the timestamp column "
                f"{self._monitor.source.timestamp!r}: it is missing, unreadable, or outside the years "
                f"{FIRST_YEAR} to {LAST_YEAR} (at most {UNREADABLE:.0%} may be so)"
            )

    def _baseline(self, reference: Reference, window: Window, specs: Sequence[Spec]) -> Baseline:
        from drift_monitor.core.check import baseline  # noqa: PLC0415

        quality = self._monitor.quality
        key = (reference.id.sha256, window.length, tuple(spec.name for spec in specs), quality.model_dump_json())
        if key not in _baselines:
            cache = self._request.state / "cache"
            windows = reference.windows(window.length, at_most=max(1, _DENSE // len(specs)), cache=cache)
            if len(_baselines) >= _BASELINES:
                _baselines.pop(next(iter(_baselines)))
            _baselines[key] = baseline(specs, reference.profile, quality, window.length, windows)
        return _baselines[key]

    def _extra(
        self, reference: Reference, source: Source[Any], specs: Sequence[Spec]
    ) -> dict[str, dict[str, StatResult]] | None:
        """Evidently's own tests, on samples of rows; only where the policy asks for them, since they are dear."""
        from drift_monitor.core.verdict import outside_methods  # noqa: PLC0415

        wanted = {
            name: methods for name, methods in outside_methods(specs, self._monitor.alarm).items() if methods
        }
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


class _Placed:
    """Batches without the rows that have no event time, which are counted."""

    def __init__(self, batches: Iterator[pa.RecordBatch], timestamp: str | None) -> None:
        self._batches = batches
        self._timestamp = timestamp
        self.invalid = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            if self._timestamp is None or not batch.column(self._timestamp).null_count:
                yield batch
                continue
            times = batch.column(self._timestamp)
            self.invalid += times.null_count
            yield batch.filter(times.is_valid())


def _readable(spec: Spec, schema: pa.Schema) -> bool:
    """Whether the live data has the feature, as what it was in training; if not, the quality checks say so."""
    from drift_monitor.core.fold import accepts  # noqa: PLC0415

    return spec.name in schema.names and accepts(spec.kind, schema.field(spec.name).type)


def _extent(profile: Profile | None) -> Window:
    """The window of a check of everything: from the first to the last event, or now where there are no times."""
    if profile is None or profile.oldest is None or profile.newest is None:
        now = datetime.now(UTC)
        return Window(start=now, end=now)
    start, end = (_EPOCH + t * _MICROSECOND for t in (profile.oldest, profile.newest + 1))
    return Window(start=start, end=end)


def _versions() -> dict[str, str]:
    import numpy  # noqa: ICN001, PLC0415
    import pyarrow  # noqa: ICN001, PLC0415
    import scipy  # noqa: PLC0415

    from drift_monitor import __version__  # noqa: PLC0415

    return {
        "drift-monitor": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "scipy": scipy.__version__,
    }


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
