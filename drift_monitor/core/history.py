"""A feature's counts over time, and what a window of it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from drift_monitor.core.profile import FeatureProfile, Ints, Spec, empty
from drift_monitor.core.scores import Layout, fine_counts

Context = Literal["none", "day_of_week", "hour_of_week"]

WEEK: Final = 7 * 86_400_000_000
"""In microseconds."""
DAY: Final = 86_400_000_000


@dataclass(frozen=True)
class Grid:
    """Buckets of event time.

    Attributes:
        start: of the first, in microseconds since 1970.
        width: of each, in microseconds.
        size: how many there are.
    """

    start: int
    width: int
    size: int

    @property
    def end(self) -> int:
        """Of the last bucket."""
        return self.start + self.width * self.size

    def phases(self, context: Context) -> int:
        """Buckets of a week, where windows are compared with the same time of other weeks; else 1."""
        return 1 if context == "none" or WEEK % self.width else WEEK // self.width

    def time(self, bucket: int) -> int:
        """Start of a bucket, in microseconds since 1970; of the last one plus one, the end of the grid."""
        return self.start + bucket * self.width


def grid_of(buckets: Sequence[int], width: int) -> Grid:
    """The grid from the first to the last of some buckets, given by their starts; width in microseconds."""
    return Grid(min(buckets), width, (max(buckets) - min(buckets)) // width + 1)


@dataclass(frozen=True, eq=False)
class History:
    """Counts of one feature by bucket.

    Attributes:
        fine: by fine cell of the profile, shape (buckets, cells).
        missing: rows without a usable value, shape (buckets,).
    """

    fine: Ints
    missing: Ints

    @property
    def rows(self) -> Ints:
        """All rows, shape (buckets,)."""
        return np.asarray(self.fine.sum(axis=1) + self.missing)


def history(spec: Spec, profiles: Mapping[int, FeatureProfile], grid: Grid) -> History:
    """Put the profiles of a feature on a grid; buckets without a profile have no rows.

    Args:
        spec: of the feature.
        profiles: by start of the bucket, in microseconds since 1970; those off the grid are left out.
        grid: of the buckets.
    """
    cells = len(fine_counts(empty(spec)))
    fine, missing = np.zeros((grid.size, cells), np.int64), np.zeros(grid.size, np.int64)
    for start, profile in profiles.items():
        at = (start - grid.start) // grid.width
        if 0 <= at < grid.size:
            fine[at] = fine_counts(profile)
            missing[at] = profile.missing
    return History(fine, missing)


def window_sums(by_bucket: Ints, ends: Ints, length: int) -> Ints:
    """Sums over windows.

    Args:
        by_bucket: shape (buckets, ...).
        ends: the bucket after each window's last, shape (windows,), each at least `length`.
        length: of the windows, in buckets.

    Returns:
        Shape (windows, ...).
    """
    running = np.zeros((len(by_bucket) + 1, *by_bucket.shape[1:]), np.int64)
    np.cumsum(by_bucket, axis=0, out=running[1:])
    return np.asarray(running[ends] - running[ends - length])


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a reference says of one feature's windows.

    Attributes:
        cells: that are compared.
        counts: of the reference by phase of the week and group, shape (phases, groups); one phase where windows
            are compared with the whole reference.
        around: buckets that a window is widened to at least, about its middle: a day, where windows are compared
            with the same day of other weeks.
    """

    cells: Layout
    counts: Ints
    around: int = 0

    def span(self, ends: Ints, length: int) -> tuple[Ints, int]:
        """Ends and length, in buckets, of what windows are compared with."""
        if self.around <= length:
            return ends, length
        return ends - length // 2 + self.around // 2, self.around

    def of(self, ends: Ints, length: int) -> Ints:
        """The reference's counts at the times of week of some windows.

        Args:
            ends: buckets since 1970 until the end of each window, shape (windows,).
            length: in buckets.

        Returns:
            Shape (windows, groups), or (groups,) where all are compared with the same.
        """
        phases = len(self.counts)
        if phases == 1:
            return np.asarray(self.counts[0])
        ends, length = self.span(ends, length)
        whole, rest = divmod(length, phases)
        twice = np.concatenate((np.zeros_like(self.counts[:1]), self.counts, self.counts))
        running = np.cumsum(twice, axis=0)
        last = (ends - 1) % phases + 1 + phases
        return np.asarray(running[last] - running[last - rest] + whole * self.counts.sum(axis=0))


def baseline(cells: Layout, by_group: Ints, grid: Grid, context: Context) -> Baseline:
    """Sum a reference by phase of the week.

    Args:
        cells: the groups.
        by_group: counts, shape (buckets, groups).
        grid: of the buckets.
        context: what windows are compared with.
    """
    phases = grid.phases(context)
    if phases == 1:
        return Baseline(cells, by_group.sum(axis=0, dtype=np.int64)[None])
    counts = np.zeros((phases, by_group.shape[1]), np.int64)
    np.add.at(counts, (grid.start // grid.width + np.arange(grid.size)) % phases, by_group)
    return Baseline(cells, counts, DAY // grid.width if context == "day_of_week" else 0)
