"""The features of a window beside those of the reference, many at a time: what the stattests compare.

A call of numpy takes microseconds however few numbers it is given, and a stattest takes dozens of calls. So the
cells of many features stand in one array, a run each (`Spans`), and each step is one call for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Floats,
    Ints,
    NumericProfile,
    NumericSpec,
    Spec,
)
from drift_monitor.core.types import StatResult

CELLS: Final = 1 << 16
"""Cells of a batch, so that its arrays stay in a processor's cache; a feature with more is a batch of its own."""

Bools = npt.NDArray[np.bool_]
Values = TypeVar("Values", bound=npt.NDArray[Any])
Made = TypeVar("Made")


class Spans:
    """Where each feature's numbers stand in an array of K numbers of F features: a run of one or more each.

    Args:
        lengths: of the runs, >= 1, shape (F,).
    """

    def __init__(self, lengths: Ints) -> None:
        self.lengths = lengths
        self.ends: Ints = np.cumsum(lengths)
        self.first: Ints = self.ends - lengths

    def each(self, values: Values) -> Values:
        """A number of each feature, shape (F,), at each place of its run, shape (K,)."""
        return cast("Values", np.repeat(values, self.lengths))

    def sums(self, values: Values) -> Values:
        """The sum of each run, shape (F,)."""
        return cast("Values", np.add.reduceat(values, self.first))

    def largest(self, values: Values) -> Values:
        """The largest number of each run, shape (F,)."""
        return cast("Values", np.maximum.reduceat(values, self.first))

    def place_of_largest(self, values: npt.NDArray[Any]) -> Ints:
        """Where the largest of each run stands, the first of them if several do, shape (F,)."""
        found = np.flatnonzero(values == self.each(self.largest(values)))
        return found[np.searchsorted(found, self.first)]

    def running(self, values: Ints) -> Ints:
        """Sums from the start of each run, shape (K,)."""
        total = np.cumsum(values)
        return total - self.each(total[self.first] - values[self.first])

    def reached(self, values: Ints, wanted: Ints) -> Ints:
        """Where `running` first is at least what is wanted of each run, both of shape (F,)."""
        total = np.cumsum(values)
        return np.searchsorted(total, wanted + total[self.first] - values[self.first])

    def previous(self, values: Values) -> Values:
        """The number before each in its run; 0 before the first."""
        moved = np.empty_like(values)
        moved[1:] = values[:-1]
        moved[self.first] = 0
        return cast("Values", moved)

    def where(self, kept: Bools) -> Spans:
        """Of the numbers that are kept; some of each run are."""
        return Spans(np.add.reduceat(kept, self.first, dtype=np.int64))


class Batch:
    """F features, all of them numeric (or datetimes) or all categorical (or boolean).

    Args:
        specs: of the features.
        reference: their profiles in the reference.
        current: those in the window.

    Raises:
        ValueError: a side of a feature has no row with a value.
    """

    def __init__(
        self, specs: Sequence[Spec], reference: Sequence[FeatureProfile], current: Sequence[FeatureProfile]
    ) -> None:
        self.specs, self.reference, self.current = specs, reference, current
        self._made: dict[Callable[[Batch], Any], Any] = {}
        for spec, before, now in zip(specs, reference, current, strict=True):
            if not before.n or not now.n:
                raise ValueError(
                    f"feature {spec.name!r}: both samples need rows with a value, but the reference has "
                    f"{before.n} and the current window has {now.n}"
                )

    def once(self, make: Callable[[Batch], Made]) -> Made:
        """What a function makes of this batch, which several methods need and one computes."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast("Made", self._made[make])

    @cached_property
    def m(self) -> Floats:
        """Reference rows with a value, shape (F,); whole numbers, as floats so that products do not overflow."""
        return np.array([profile.n for profile in self.reference], np.float64)

    @cached_property
    def n(self) -> Floats:
        """Current rows with a value, shape (F,)."""
        return np.array([profile.n for profile in self.current], np.float64)

    @property
    def numeric(self) -> Iterator[tuple[NumericSpec, NumericProfile, NumericProfile]]:
        """Spec and both profiles of each feature.

        Raises:
            TypeError: a feature is categorical.
        """
        for spec, before, now in zip(self.specs, self.reference, self.current, strict=True):
            if not isinstance(spec, NumericSpec):
                raise TypeError(
                    f"feature {spec.name!r} is {spec.kind}; this method is for numeric and datetime features"
                )
            yield spec, cast("NumericProfile", before), cast("NumericProfile", now)

    @property
    def categorical(self) -> Iterator[tuple[CategoricalSpec, CategoricalProfile, CategoricalProfile]]:
        """Spec and both profiles of each feature, which are categorical."""
        for spec, before, now in zip(self.specs, self.reference, self.current, strict=True):
            yield (
                cast("CategoricalSpec", spec),
                cast("CategoricalProfile", before),
                cast("CategoricalProfile", now),
            )


def parts(specs: Sequence[Spec]) -> Iterator[list[Spec]]:
    """Cut features into lots of at most `CELLS` cells, each of which makes a batch.

    Args:
        specs: of the features, all numeric or all categorical.
    """
    part: list[Spec] = []
    cells = 0
    for spec in specs:
        width = len(spec.categories) if isinstance(spec, CategoricalSpec) else 2 * len(spec.edges) + 1
        if part and cells + width > CELLS:
            yield part
            part, cells = [], 0
        part.append(spec)
        cells += width
    if part:
        yield part


class Fine:
    """The fine cells of the numeric features of a batch, K in all.

    Attributes:
        spans: the cells of each feature.
        a, b: reference and current rows, shape (K,).
        edge: whether a cell holds the value of an edge and no other, shape (K,).
    """

    def __init__(self, batch: Batch) -> None:
        sides = list(batch.numeric)
        self.spans = Spans(np.array([len(before.counts) for _, before, _ in sides], np.int64))
        self.a: Ints = np.concatenate([before.counts for _, before, _ in sides])
        self.b: Ints = np.concatenate([now.counts for _, _, now in sides])
        # every other cell; each feature has an odd number of them
        self.edge: Bools = self.spans.each(self.spans.first % 2 == 1)
        self.edge[1::2] ^= True

    @cached_property
    def below_a(self) -> Ints:
        """Reference rows up to each cell, shape (K,)."""
        return self.spans.running(self.a)

    @cached_property
    def below_b(self) -> Ints:
        """Current rows up to each cell, shape (K,)."""
        return self.spans.running(self.b)


def results(
    statistic: Floats,
    p_value: Floats | None = None,
    bracket: tuple[Floats, Floats] | None = None,
    *,
    exact: Bools | None = None,
) -> list[StatResult]:
    """One result a feature.

    Args:
        statistic: shape (F,).
        p_value: the same; NaN where there is none.
        bracket: low and high, the same.
        exact: those that need no bracket, the same.
    """
    columns: dict[str, list[float | None]] = {"statistic": statistic.tolist()}
    if p_value is not None:
        columns["p_value"] = _without(p_value, np.isnan(p_value))
    for side, values in zip(("low", "high"), bracket or (), strict=False):
        columns[side] = values.tolist() if exact is None else _without(values, exact)
    return _results.validate_python(
        [dict(zip(columns, x, strict=True)) for x in zip(*columns.values(), strict=True)]
    )


def _without(values: Floats, missing: Bools) -> list[float | None]:
    return [None if gone else x for x, gone in zip(values.tolist(), missing.tolist(), strict=True)]


_results: Final = TypeAdapter(list[StatResult])
