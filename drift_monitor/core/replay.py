"""The reference watched by its own monitor: every window scored against a reference without the days around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from drift_monitor.core.history import DAY, WEEK, Baseline, Context, Grid, baseline, window_sums
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.scores import QUADRATIC, STATISTICS, Layout, Scores, scores

LONGEST_BLOCK: Final = 28
"""Days that are left out together at most. Live days lie beyond the reference, by a fortnight on average if a
reference lasts a month; leaving out a week only, seasonal data gave twice the false alerts."""
FLOORS: Final[Mapping[str, float]] = {"anderson_darling": 0.75, "weighted_supremum": 2.0, "max_bin_z": 1.8}
"""Mean excess over the 90% quantile for independent rows; a scale is never finer than chance makes it."""
OFFSETS: Final[Mapping[str, float]] = {"weighted_supremum": 2.0, "max_bin_z": 0.7, "rows": 2.0}
"""Taken from a statistic or channel on the common scale, where the chance of exceeding x falls like exp(-x). The
weighted supremum and the classifier get exp(-2) of the share of the others, since these see nearly all that those
two see; the largest cell gives up half of its own to shifts, and loses little by it (`benchmarks/power.py`)."""
_QUANTILE: Final = 0.9
_FIRST_CONTEXT: Final[Mapping[Context, int]] = {"hour_of_week": 182, "day_of_week": 84}  # days of the reference


class Scale(NamedTuple):
    """What a statistic shows when nothing is wrong: its 90% quantile, and its mean excess over that."""

    high: float
    excess: float

    def ratio(self, values: Floats) -> Floats:
        """Values on the common scale, on which the chance to exceed x falls like exp(-x)."""
        return np.asarray((values - self.high) / self.excess)


@dataclass(frozen=True, eq=False)
class Runs:
    """The evaluations of a monitor over a stretch of time.

    Attributes:
        ends: the bucket of the grid after the last of each run's window, rising, shape (runs,).
        grid: of the buckets.
        lengths: of all windows that are looked at, in buckets, rising; the longest is the run's own.
        step: buckets between two runs.
    """

    ends: Ints
    grid: Grid
    lengths: tuple[int, ...]
    step: int

    @classmethod
    def over(cls, grid: Grid, lengths: Iterable[int], step: int, offset: int = 0) -> Runs:
        """Every run whose window lies inside a grid; ends are `offset` after multiples of `step` since 1970."""
        widths = tuple(sorted(lengths))
        ends = np.arange(1, grid.size + 1)
        due = (ends + grid.start // grid.width - offset) % step == 0
        return cls(ends[due & (ends >= widths[-1])], grid, widths, step)

    def windows(self, length: int) -> tuple[Ints, Ints]:
        """The windows of one length: their ends, and which run each belongs to.

        A run looks at one window of the longest length, and at those of a shorter one that ended since the run
        before.
        """
        back = np.arange(tiles(length, self.lengths[-1], self.step)) * length
        return (self.ends[:, None] - back).ravel(), np.repeat(np.arange(len(self.ends)), len(back))

    @property
    def since(self) -> Ints:
        """Ends in buckets since 1970, shape (runs,)."""
        return np.asarray(self.ends + self.grid.start // self.grid.width)

    @property
    def days(self) -> Ints:
        """The UTC day of each run, since 1970: that of the last moment of its window."""
        return np.asarray((self.grid.start + self.ends * self.grid.width - 1) // DAY)

    @property
    def blocks(self) -> Ints:
        """The block of days of each run: those that are on one scale together."""
        days = self.days
        return np.asarray((days - days[0]) // block_days(self.grid)) if len(days) else days


def tiles(length: int, main: int, step: int) -> int:
    """How many windows of a length a run looks at."""
    return 1 if length == main else max(1, min(step, main) // length)


def block_days(grid: Grid) -> int:
    """Days that are left out together: a quarter of the reference, `LONGEST_BLOCK` at most."""
    return int(min(LONGEST_BLOCK, max(1, grid.size * grid.width // DAY // 4)))


def choose_context(wanted: Context | None, grid: Grid) -> Context:
    """What windows are compared with: as asked, or the finest that the reference's length can carry."""
    if WEEK % grid.width:
        return "none"
    if wanted is not None:
        return wanted
    days = math.ceil(grid.size * grid.width / DAY)  # the first and the last may begin late and end early
    return next((name for name, least in _FIRST_CONTEXT.items() if days >= least), "none")


@dataclass(frozen=True, eq=False)
class Replayed:
    """One feature over the runs of its own reference.

    Attributes:
        best: by window length, the largest of its statistics in each window on the common scale; -inf where it
            could not be judged or the effect is below the floor; shape (windows,).
        leading: by window length, the first of its statistics on that scale, nan where not judged.
        scales: by window length and statistic, for live windows.
        caps: by window length, the most rows of a window.
    """

    best: Mapping[int, Floats]
    leading: Mapping[int, Floats]
    scales: Mapping[int, Mapping[str, Scale]]
    caps: Mapping[int, int]


def replay_feature(
    cells: Layout,
    by_group: Ints,
    runs: Runs,
    context: Context,
    *,
    effect_floor: float = 0.0,
    min_rows: int = 1,
    methods: Iterable[str] | None = None,
) -> Replayed:
    """Score a feature's own reference, leaving out what is near.

    Args:
        cells: the groups.
        by_group: counts of the reference, shape (buckets, groups).
        runs: of the replay.
        context: what windows are compared with.
        effect_floor: effects that are not larger do not count.
        min_rows: windows with fewer rows are not judged.
        methods: the statistics that decide; all of the kind when None.
    """
    names = [n for n in STATISTICS[cells.kind] if methods is None or n in methods]
    base = baseline(cells, by_group, runs.grid, context)
    blocks = runs.blocks
    best: dict[int, Floats] = {}
    leading: dict[int, Floats] = {}
    scales: dict[int, dict[str, Scale]] = {}
    caps: dict[int, int] = {}
    for length in runs.lengths:
        ends, run = runs.windows(length)
        found = _left_out(cells, ends, length, by_group, base, runs)
        enough = found.rows >= min_rows
        ratios: dict[str, Floats] = {}
        scales[length] = {}
        for name in names:
            judged = np.where(enough, comparable(name, found.values[name]), np.nan)
            ratios[name], scales[length][name] = cross_scaled(judged, blocks[run], floor_of(name, cells))
        best[length] = decisive(ratios, found.effect, effect_floor)
        leading[length] = ratios[names[0]]
        caps[length] = int(found.rows.max(initial=0))
    return Replayed(best, leading, scales, caps)


def comparable(name: str, values: Floats) -> Floats:
    """A statistic in the form in which it has a scale: squared where it is in standard deviations."""
    return values * values if name in QUADRATIC else values


def decisive(ratios: Mapping[str, Floats], effect: Floats, floor: float) -> Floats:
    """The largest statistic of each window, less its offset; -inf without one, or below the effect's floor."""
    table = np.stack([ratio - OFFSETS.get(name, 0.0) for name, ratio in ratios.items()])
    top = np.where(np.isnan(table), -np.inf, table).max(axis=0)
    return np.where(effect > floor, top, -np.inf) if floor else top


def floor_of(name: str, cells: Layout) -> float:
    """The finest scale of a statistic: that of independent rows."""
    return FLOORS.get(name, 0.8 * math.sqrt(2 * max(1, len(cells.starts) - 1)))


def _left_out(cells: Layout, ends: Ints, length: int, by_group: Ints, base: Baseline, runs: Runs) -> Scores:
    """Scores against the reference without the days around each window."""
    grid = runs.grid
    counts = window_sums(by_group, ends, length)
    block = block_days(grid) * max(1, DAY // grid.width)
    if len(base.counts) > 1:
        return scores(cells, counts, _other_weeks(ends, length, by_group, base, grid, block // 2))
    a_day = max(1, DAY // grid.width)
    width = max(block, length)
    centre = (ends - length // 2) // a_day * a_day + a_day // 2
    order = np.argsort(centre, kind="stable")
    cuts = np.flatnonzero(np.diff(centre[order], prepend=-1, append=grid.size + width))
    parts = []
    for first, last in itertools.pairwise(cuts):
        at = order[first:last]
        low, high = (int(np.clip(centre[at[0]] + d, 0, grid.size)) for d in (-(width // 2), (width + 1) // 2))
        near = by_group[low:high].sum(axis=0, dtype=np.int64)
        parts.append(scores(cells, counts[at], base.counts[0] - near))
    back = np.argsort(order, kind="stable")
    names = STATISTICS[cells.kind]
    if not parts:
        return scores(cells, counts, base.counts[0])
    return Scores(
        {name: np.concatenate([part.values[name] for part in parts])[back] for name in names},
        np.concatenate([part.effect for part in parts])[back],
        np.concatenate([part.rows for part in parts])[back],
    )


def _other_weeks(ends: Ints, length: int, by_group: Ints, base: Baseline, grid: Grid, reach: int) -> Ints:
    """The same time of the weeks that are further away than `reach` buckets; shape (windows, groups)."""
    at, width = base.span(ends, length)
    running = np.zeros((grid.size + 1, by_group.shape[1]), np.int64)
    np.cumsum(by_group, axis=0, out=running[1:])
    week = grid.phases("hour_of_week")
    counts = base.of(grid.start // grid.width + ends, length)
    for k in range(-(reach // week), reach // week + 1):
        last = np.clip(at + k * week, 0, grid.size)
        counts = counts - (running[last] - running[np.clip(at + k * week - width, 0, grid.size)])
    return np.maximum(counts, 0)


def cross_scaled(values: Floats, blocks: Ints, floor: float) -> tuple[Floats, Scale]:
    """Put each value on the scale of the other blocks' values.

    Args:
        values: shape (windows,); nan where there is none.
        blocks: of each, shape (windows,).
        floor: of the scale's excess.

    Returns:
        The values on the common scale, and the scale of all of them, for live ones.
    """
    scaled = np.full(len(values), np.nan)
    for block in np.unique(blocks):
        mine = blocks == block
        scaled[mine] = scale_of(values[~mine], floor).ratio(values[mine])
    return scaled, scale_of(values, floor)


def scale_of(values: Floats, floor: float) -> Scale:
    """The scale of some values, nan left out, with an excess of at least `floor`; of none (0, floor)."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Scale(0.0, floor)
    high = float(np.quantile(known, _QUANTILE))
    over = known[known > high]
    return Scale(high, max(float((over - high).mean()) if len(over) else 0.0, floor))
