"""Live windows on the scales of a calibration: one score a run, and what made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drift_monitor.core.calibration import Calibration, Watch, by_run, channel
from drift_monitor.core.history import Baseline, Context, Grid, History, baseline, window_sums
from drift_monitor.core.profile import Floats, Ints, Profile, Spec
from drift_monitor.core.replay import OFFSETS, Runs, Scale, comparable
from drift_monitor.core.scores import Layout, fine_counts, layout, scores
from drift_monitor.core.threshold import Threshold


@dataclass(frozen=True, eq=False)
class Live:
    """The windows of some runs.

    Attributes:
        runs: how many.
        since: by window length in seconds: the end of each window, in buckets since 1970, shape (windows,).
        run: by window length: which run each belongs to, shape (windows,).
        counts: by feature and window length: rows by fine cell, shape (windows, cells). A feature that was not
            read is missing.
    """

    runs: int
    since: Mapping[int, Ints]
    run: Mapping[int, Ints]
    counts: Mapping[str, Mapping[int, Ints]]


def live_of(runs: Runs, histories: Mapping[str, History]) -> Live:
    """The windows of runs over a stretch of time, for a replay of a log."""
    width = runs.grid.width
    since, run = {}, {}
    counts: dict[str, dict[int, Ints]] = {name: {} for name in histories}
    for length in runs.lengths:
        seconds = length * width // 1_000_000
        ends, run[seconds] = runs.windows(length)
        since[seconds] = ends + runs.grid.start // width
        for name, history in histories.items():
            counts[name][seconds] = window_sums(history.fine, ends, length)
    return Live(len(runs.ends), since, run, counts)


@dataclass(frozen=True)
class FeatureScore:
    """One feature in one run.

    Attributes:
        score: the largest of its statistics over its windows, above what is typical; at least 0.
        method: which statistic that was.
        seconds: length of the window in which it was.
        effect: of that window.
        counts: whether the effect is over the floor.
    """

    score: float
    method: str
    seconds: int
    effect: float
    counts: bool


@dataclass(frozen=True)
class RunScore:
    """One run on the scale of its calibration.

    Attributes:
        threshold: of the drift lane.
        score: the largest of the channels, at least 0; None when no feature could be judged.
        channels: each channel's score.
        features: those that could be judged.
        needed: how many features must be over the threshold.
    """

    threshold: Threshold
    score: float | None
    channels: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, FeatureScore] = field(default_factory=dict)
    needed: int = 1


def baselines(
    specs: Sequence[Spec], reference: Profile, context: Context, phases: Mapping[str, Ints] | None = None
) -> dict[str, Baseline]:
    """What live windows are compared with, by feature.

    Args:
        specs: one a feature.
        reference: the whole of it.
        context: of the calibration.
        phases: where the context is a time of the week: counts by phase and group, by feature (`phase_counts`).
    """
    found = {}
    for spec in specs:
        fine = fine_counts(reference.features[spec.name])
        cells = layout(spec, fine)
        if context == "none" or phases is None:
            found[spec.name] = Baseline(cells, cells.group(fine)[None])
        else:
            counts = phases[spec.name]
            found[spec.name] = Baseline(cells, counts, len(counts) // 7 if context == "day_of_week" else 0)
    return found


def phase_counts(spec: Spec, history: History, grid: Grid, context: Context) -> Ints:
    """A feature's reference by phase of the week and group, shape (phases, groups)."""
    cells = layout(spec, history.fine.sum(axis=0, dtype=np.int64))
    return baseline(cells, cells.group(history.fine), grid, context).counts


def score_runs(
    calibration: Calibration,
    watch: Watch,
    specs: Sequence[Spec],
    known: Mapping[str, Baseline],
    live: Live,
) -> list[RunScore]:
    """Score runs as the replay of the reference scored its own.

    Args:
        calibration: of the monitor on its reference.
        watch: the monitor.
        specs: the features that are watched.
        known: of `baselines`.
        live: the windows.
    """
    bucket = round(calibration.bucket)
    tables: dict[str, dict[int, _Table]] = {}
    totals: dict[int, list[Floats]] = {seconds: [] for seconds in calibration.lengths}
    for spec in specs:
        mine = calibration.features.get(spec.name)
        if mine is None or spec.name not in live.counts:
            continue
        tables[spec.name] = {}
        for seconds in calibration.lengths:
            table = _table(
                known[spec.name],
                live.counts[spec.name][seconds],
                live.since[seconds],
                seconds // bucket,
                {name: Scale(*scale) for name, scale in mine.scales[seconds].items()},
                mine.caps[seconds],
                watch.alarm.min_rows,
            )
            tables[spec.name][seconds] = table
            totals[seconds].append(table.leading)
    channels = _channels(calibration, live, totals)
    windows = {seconds: _by_run(run, live.runs) for seconds, run in live.run.items()}
    return [_run(r, calibration, watch, specs, tables, channels, windows) for r in range(live.runs)]


def _by_run(run: Ints, runs: int) -> list[list[int]]:
    """The places of the windows of each run."""
    places: list[list[int]] = [[] for _ in range(runs)]
    for place, owner in enumerate(run.tolist()):
        places[owner].append(place)
    return places


def with_channels(run: RunScore, calibration: Calibration, values: Mapping[str, float]) -> RunScore:
    """A run with further channels.

    Args:
        run: of `score_runs`.
        calibration: of the monitor.
        values: raw, by channel; nan where there is none.
    """
    if run.score is None:
        return run
    channels = dict(run.channels)
    for name, value in values.items():
        if name in calibration.channels and not math.isnan(value):
            high, excess = calibration.channels[name]
            offset = OFFSETS.get(name, 0.0)
            channels[name] = max(0.0, (value - high) / excess - calibration.typical[name] - offset)
    return replace(run, score=max(channels.values()), channels=channels)


@dataclass(frozen=True, eq=False)
class _Table:
    """One feature in all windows of one length; shape (windows,) but for `methods`.

    Attributes:
        best: its largest statistic on the common scale; -inf where not judged.
        method: which, as a place in `methods`.
        leading: the first statistic, nan where not judged.
    """

    best: Floats
    method: Ints
    leading: Floats
    effect: Floats
    methods: tuple[str, ...]


def _table(
    base: Baseline,
    fine: Ints,
    since: Ints,
    length: int,
    scales: Mapping[str, Scale],
    cap: int,
    min_rows: int,
) -> _Table:
    cells: Layout = base.cells
    found = scores(cells, cells.group(fine), base.of(since, length), cap=max(cap, min_rows))
    enough = found.rows >= min_rows
    ratios = [
        np.where(enough, scale.ratio(comparable(name, found.values[name])), np.nan)
        for name, scale in scales.items()
    ]
    offset = np.array([OFFSETS.get(name, 0.0) for name in scales])[:, None]
    table = np.stack(ratios) - offset
    table = np.where(np.isnan(table), -np.inf, table)
    return _Table(table.max(axis=0), np.argmax(table, axis=0), ratios[0], found.effect, tuple(scales))


def _channels(calibration: Calibration, live: Live, totals: Mapping[int, Sequence[Floats]]) -> dict[str, Floats]:
    """The channels that are not single features, above what is typical; -inf where there is none."""
    channels = {}
    for seconds, scale in calibration.together.items():
        name = channel("together", seconds)
        if totals[seconds]:
            table = np.stack(list(totals[seconds]))
            count = (~np.isnan(table)).sum(axis=0)
            mean = np.where(count > 0, np.nansum(table, axis=0) / np.maximum(count, 1), np.nan)
            ratios = by_run(Scale(*scale).ratio(mean), live.run[seconds], live.runs)
            channels[name] = ratios - calibration.typical[name]
    return channels


def _run(
    r: int,
    calibration: Calibration,
    watch: Watch,
    specs: Sequence[Spec],
    tables: Mapping[str, Mapping[int, _Table]],
    channels: Mapping[str, Floats],
    windows: Mapping[int, Sequence[Sequence[int]]],
) -> RunScore:
    features: dict[str, FeatureScore] = {}
    counting: list[float] = []
    for spec in specs:
        candidates = [
            _feature(table, window, seconds, calibration, watch.floor(spec))
            for seconds, table in tables.get(spec.name, {}).items()
            for window in windows[seconds][r]
            if table.best[window] > -np.inf
        ]
        if candidates:
            # one whose effect counts before one that does not, however large
            best = max(candidates, key=lambda c: (c.counts, c.score))
            features[spec.name] = best
            counting.append(best.score if best.counts else 0.0)
    needed = max(watch.alarm.drifted_features, math.ceil((watch.alarm.drifted_share or 0) * len(counting) - 1e-9))
    if not counting or needed > len(counting):
        return RunScore(calibration.drift, None, {}, features, needed)
    found = {"features": sorted(counting, reverse=True)[needed - 1]}
    found |= {name: max(0.0, float(values[r])) for name, values in channels.items() if values[r] > -np.inf}
    return RunScore(calibration.drift, max(found.values()), found, features, needed)


def _feature(table: _Table, window: int, seconds: int, calibration: Calibration, floor: float) -> FeatureScore:
    score = float(table.best[window]) - calibration.typical[channel("features", seconds)]
    effect = float(table.effect[window])
    return FeatureScore(
        max(0.0, score),
        table.methods[int(table.method[window])],
        seconds,
        effect,
        counts=effect > floor or not floor,
    )
