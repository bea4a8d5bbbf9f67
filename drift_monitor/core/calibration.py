"""Calibration: what a monitor shows on its own reference, and the thresholds that follow.

The reference is watched by the monitor that will watch the live data (`replay.py`), quality lane first, since a
broken window raises no drift alarm. A day's score is the largest over all features, statistics, window lengths and
channels; no correction for their number is needed, since the maximum is the correction. `threshold.py` turns the
days' scores into a threshold. The result says all that live windows are scored by, and what it was made from, so
that it can be made again bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from drift_monitor.core import excess
from drift_monitor.core.history import Context, Grid, History, window_sums
from drift_monitor.core.pairs import PairCalibration
from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import Floats, Ints, NumericSpec, Spec
from drift_monitor.core.replay import (
    OFFSETS,
    Replayed,
    Runs,
    Scale,
    block_days,
    choose_context,
    cross_scaled,
    replay_feature,
    tiles,
)
from drift_monitor.core.scores import STATISTICS, layout
from drift_monitor.core.threshold import (
    DRIFT_SHARE,
    QUALITY_SHARE,
    Threshold,
    choose_threshold,
    daily_maxima,
    persistent,
    replay_episodes,
)
from drift_monitor.core.types import Finite, Outcome, Value, Window

FORMAT: Final = 4
TOGETHER: Final = 0.45
"""The finest scale of the mean over all features, times the root of their number: that of independent rows."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Watch:
    """How a monitor looks at its data: what a calibration depends on besides the reference.

    Attributes:
        monitor: its name.
        alarm, quality: the policies.
        lengths: of the windows, rising; the longest is the run's own. Whole numbers of buckets.
        step: between two runs; a whole number of buckets.
        offset: of the runs' ends from multiples of `step` since 1970.
    """

    monitor: str
    alarm: Alarm
    quality: Quality
    lengths: tuple[timedelta, ...]
    step: timedelta
    offset: timedelta = timedelta(0)

    def runs(self, grid: Grid) -> Runs:
        """The evaluations over a stretch of time."""
        width = timedelta(microseconds=grid.width)
        return Runs.over(grid, [n // width for n in self.lengths], self.step // width, self.offset // width)

    def tiles(self, length: timedelta) -> int:
        """How many windows of a length a run looks at."""
        return tiles(*(n // timedelta(microseconds=1) for n in (length, self.lengths[-1], self.step)))

    def floor(self, spec: Spec) -> float:
        """Effects that are not larger do not count."""
        numeric = isinstance(spec, NumericSpec)
        return self.alarm.effect_floor_ks if numeric else self.alarm.effect_floor_share

    def methods(self, spec: Spec) -> tuple[str, ...]:
        """The statistics that decide."""
        return self.alarm.methods.get(spec.kind, STATISTICS[spec.kind])


class FeatureCalibration(Value):
    """What one feature shows when nothing is wrong.

    Attributes:
        scales: by window length in seconds and statistic: (90% quantile, mean excess over it).
        caps: by window length, the most rows of a window; a larger live window counts as one of so many.
        excess: the same as scales for the checks of the quality lane.
    """

    scales: dict[int, dict[str, tuple[Finite, Finite]]]
    caps: dict[int, int]
    excess: dict[str, tuple[Finite, Finite]] = {}


class RowsCalibration(Value):
    """How the classifier of the channel `rows` is asked.

    Attributes:
        rows: of a day.
        most_reference: rows of the reference at most.
        seed: of folds and choices.
    """

    rows: int
    most_reference: int
    seed: int


class Extra(NamedTuple):
    """A further channel over the runs of a reference.

    Attributes:
        ratios: on the common scale, nan where there is none, shape (runs,).
        scale: for live values.
        known: what else is needed for these.
    """

    ratios: Floats
    scale: Scale
    known: PairCalibration | RowsCalibration


class Calibration(Value):
    """All that live windows are scored by.

    Attributes:
        format: of this record.
        reference: sha256 of the version that was replayed.
        context: what windows are compared with.
        bucket, step, offset: of the replay, in seconds.
        lengths: of the windows looked at, in seconds, rising; the longest is the run's own.
        block: days that were left out together.
        runs: that were replayed.
        start, end: of the replayed stretch.
        features: by name.
        together: by window length: the scale of the mean over all features.
        channels: scales of further channels (`pairs`, `rows`).
        pairs, rows: what else is needed for these; None without the channel.
        typical: by channel, the median of its daily maxima; scores count from there.
        volume: median logarithm of the rows of a run, and the scale of how far they are from it.
        drift, quality: the thresholds of the lanes.
        days: dates of the drift lane's daily scores.
        seed: of whatever was drawn.
        versions: of the packages that computed it.
    """

    format: int = FORMAT
    reference: str
    context: Context
    bucket: Finite
    step: Finite
    offset: Finite
    lengths: tuple[int, ...]
    block: int
    runs: int
    start: datetime | None = None
    end: datetime | None = None
    features: dict[str, FeatureCalibration]
    together: dict[int, tuple[Finite, Finite]] = {}
    channels: dict[str, tuple[Finite, Finite]] = {}
    pairs: PairCalibration | None = None
    rows: RowsCalibration | None = None
    typical: dict[str, Finite] = {}
    volume: tuple[Finite, Finite, Finite] | None = None
    drift: Threshold
    quality: Threshold
    days: tuple[str, ...] = ()
    seed: int = 0
    versions: dict[str, str] = {}


def channel(kind: str, seconds: int) -> str:
    """The name of a channel of one window length."""
    return f"{kind}/{seconds}"


def calibrate(
    watch: Watch,
    reference: str,
    grid: Grid,
    rows: Ints,
    histories: Iterable[tuple[Spec, History]],
    *,
    features: int,
    extra: Mapping[str, Extra] | None = None,
    versions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    mapper: Callable[..., Iterable[_Feature]] = map,
) -> Calibration:
    """Replay a monitor over its reference.

    Args:
        watch: the monitor.
        reference: sha256 of the reference.
        grid: of its buckets.
        rows: of the reference, by bucket, shape (buckets,).
        histories: of the features, one after the other, so that one at a time is in memory.
        features: how many there are.
        extra: further channels, by name.
        versions: of packages, to be recorded.
        seed: to be recorded.
        progress: called with (features done, features in all).
        mapper: `map`, or one that works on several features at a time and keeps their order.
    """
    runs = watch.runs(grid)
    context = choose_context(watch.alarm.context, grid)
    board = _Board(watch, runs, context)
    for done, feature in enumerate(mapper(board.replay, histories), 1):
        board.add(feature)
        if progress is not None:
            progress(done, features)
    board.add_volume(window_sums(rows, runs.ends, runs.lengths[-1]))
    quality = board.quality_threshold()
    drift, typical, days = board.drift_threshold(extra or {}, quality)
    return Calibration(
        reference=reference,
        context=context,
        bucket=grid.width / 1e6,
        step=watch.step.total_seconds(),
        offset=watch.offset.total_seconds(),
        lengths=tuple(board.seconds(n) for n in runs.lengths),
        block=block_days(grid),
        runs=len(runs.ends),
        start=_moment(grid.start),
        end=_moment(grid.end),
        features=board.features,
        together={board.seconds(n): scale for n, scale in board.together.items()},
        channels={name: given.scale for name, given in (extra or {}).items()},
        pairs=next((x.known for x in (extra or {}).values() if isinstance(x.known, PairCalibration)), None),
        rows=next((x.known for x in (extra or {}).values() if isinstance(x.known, RowsCalibration)), None),
        typical=typical,
        volume=board.volume,
        drift=drift,
        quality=quality,
        days=tuple(str(np.datetime64(int(day), "D")) for day in days),
        seed=seed,
        versions=dict(versions or {}),
    )


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, eq=False)
class _Feature:
    """What the replay of one feature gave."""

    name: str
    replayed: Replayed
    excess: Mapping[str, Floats]
    excess_scales: Mapping[str, Scale]


class _Board:
    """The scores of a replay, feature by feature."""

    def __init__(self, watch: Watch, runs: Runs, context: Context) -> None:
        self._watch, self._runs, self._context = watch, runs, context
        self._width = runs.grid.width
        needed = watch.alarm.drifted_features
        self._best = {n: np.full((needed, len(runs.windows(n)[0])), -np.inf) for n in runs.lengths}
        self._sum = {n: np.zeros(len(runs.windows(n)[0])) for n in runs.lengths}
        self._count = {n: np.zeros(len(runs.windows(n)[0])) for n in runs.lengths}
        self._quality = np.full(len(runs.ends), -np.inf)
        self._rows = np.zeros(len(runs.ends), np.int64)
        self.features: dict[str, FeatureCalibration] = {}
        self.together: dict[int, Scale] = {}
        self.volume: tuple[float, float, float] | None = None

    def seconds(self, length: int) -> int:
        """A window length in seconds."""
        return length * self._width // 1_000_000

    def replay(self, given: tuple[Spec, History]) -> _Feature:
        """All that is computed of one feature."""
        spec, history = given
        watch, runs = self._watch, self._runs
        cells = layout(spec, history.fine.sum(axis=0, dtype=np.int64))
        replayed = replay_feature(
            cells,
            cells.group(history.fine),
            runs,
            self._context,
            effect_floor=watch.floor(spec),
            min_rows=watch.alarm.min_rows,
            methods=watch.methods(spec),
        )
        found = excess.excesses(spec, history, runs)
        made = {name: v for name, v in found.items() if excess.is_made(name, spec.name, watch.quality)}
        if spec.segment is not None:  # a window with few rows of it is not checked
            few = window_sums(history.rows, runs.ends, runs.lengths[-1]) < max(watch.alarm.min_rows, 1)
            made = {name: np.where(few, np.nan, values) for name, values in made.items()}
        ratios, scales = {}, {}
        for name, values in made.items():
            ratios[name], scales[name] = cross_scaled(values * values, runs.blocks, excess.FLOORS[name])
        return _Feature(spec.name, replayed, ratios, scales)

    def add(self, feature: _Feature) -> None:
        """Take the maxima."""
        for length in self._runs.lengths:
            table = np.vstack((self._best[length], feature.replayed.best[length]))
            self._best[length] = np.sort(table, axis=0)[1:]
            known = ~np.isnan(feature.replayed.leading[length])
            self._sum[length][known] += feature.replayed.leading[length][known]
            self._count[length] += known
        for ratios in feature.excess.values():
            self._quality = np.fmax(self._quality, ratios)
        replayed = feature.replayed
        self.features[feature.name] = FeatureCalibration(
            scales={self.seconds(n): dict(scales) for n, scales in replayed.scales.items()},
            caps={self.seconds(n): cap for n, cap in replayed.caps.items()},
            excess=dict(feature.excess_scales),
        )

    def add_volume(self, rows: Ints) -> None:
        """Rows of the runs."""
        self._rows = rows
        if "volume" in self._watch.quality.disable or not len(rows):
            return
        away, middle = excess.volumes(rows.astype(np.float64), self._runs.blocks)
        ratios, scale = cross_scaled(away, self._runs.blocks, excess.FLOORS["volume"])
        if self._watch.quality.min_rows is None and self._watch.quality.max_rows is None:
            self._quality = np.fmax(self._quality, ratios)
        self.volume = (middle, *scale)

    def quality_threshold(self) -> Threshold:
        """Of the quality lane."""
        judged = self._rows > 0
        values = np.where(judged, self._quality, np.nan)
        return self._threshold("quality", values, self._watch.quality.false_alerts_per_month, QUALITY_SHARE)

    def drift_threshold(
        self, extra: Mapping[str, Extra], quality: Threshold
    ) -> tuple[Threshold, dict[str, float], Ints]:
        """Of the drift lane, with the typical daily maximum of each channel, and the days that were judged."""
        runs, days, blocks = self._runs, self._runs.days, self._runs.blocks
        enough = self._rows >= self._watch.alarm.min_rows
        if quality.value is not None:
            enough &= ~(self._quality > quality.value)
        channels: dict[str, Floats] = {}
        for length in runs.lengths:
            _, run = runs.windows(length)
            seconds = self.seconds(length)
            channels[channel("features", seconds)] = by_run(self._best[length][0], run, len(runs.ends))
            if self._watch.alarm.drifted_features == 1 and len(self.features) > 1:
                with np.errstate(invalid="ignore"):
                    mean = self._sum[length] / self._count[length]
                ratios, self.together[length] = cross_scaled(
                    mean, blocks[run], TOGETHER / math.sqrt(len(self.features))
                )
                channels[channel("together", seconds)] = by_run(ratios, run, len(runs.ends))
        channels |= {name: given.ratios for name, given in extra.items()}
        total = np.full(len(runs.ends), -np.inf)
        typical = {}
        for name, values in channels.items():
            scored, typical[name] = _centred(days, blocks, np.where(enough, values, np.nan))
            scored = scored - OFFSETS.get(name, 0.0)
            total = np.fmax(total, scored)
        total = np.where(enough, total, np.nan)
        found = self._threshold("drift", total, self._watch.alarm.false_alerts_per_month, DRIFT_SHARE)
        return found, typical, np.unique(days[enough])

    def _threshold(self, lane: str, values: Floats, budget: float | None, share: float) -> Threshold:
        runs, alarm = self._runs, self._watch.alarm
        if budget is None:
            return Threshold(value=None, basis="none", budget=0.0, days=0)
        hits, of = alarm.persistence.hits, alarm.persistence.of
        daily = daily_maxima(runs.days, persistent(values, hits, of))
        width = runs.grid.width * runs.lengths[-1]
        ends = [runs.grid.time(int(end)) for end in runs.ends]
        windows = [Window.model_construct(start=_moment(e - width), end=_moment(e)) for e in ends]
        failing = Outcome.DRIFT if lane == "drift" else Outcome.BROKEN

        def openings(threshold: float) -> int:
            with np.errstate(invalid="ignore"):
                fails = values > threshold
            outcomes = [
                failing if fail else Outcome.CANNOT_JUDGE if unjudged else Outcome.OK
                for fail, unjudged in zip(fails.tolist(), np.isnan(values).tolist(), strict=True)
            ]
            return len(replay_episodes(lane, self._watch.monitor, windows, outcomes, alarm))  # type: ignore[arg-type]

        return choose_threshold(daily, budget, openings, share=share)


def by_run(values: Floats, run: Ints, runs: int) -> Floats:
    """The largest value among the windows of each run; -inf where it has none."""
    top = np.full(runs, -np.inf)
    np.fmax.at(top, run, values)
    return top


def _centred(days: Ints, blocks: Ints, values: Floats) -> tuple[Floats, float]:
    """Values less the median daily maximum of the other blocks, and the median of all, for live ones."""
    scored = np.full(len(values), np.nan)
    for block in np.unique(blocks):
        mine = blocks == block
        scored[mine] = values[mine] - _typical(days[~mine], values[~mine])
    return scored, _typical(days, values)


def _typical(days: Ints, values: Floats) -> float:
    top = daily_maxima(days, values)
    top = top[np.isfinite(top)]
    return float(np.median(top)) if len(top) else 0.0
