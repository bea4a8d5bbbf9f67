"""Small mergeable summaries of rows, on cells that the reference fixed.

The cells of a numeric feature lie *at* and *between* the edges e_0 < ... < e_{k-1} taken from the reference:

    (-inf, e_0) {e_0} (e_0, e_1) {e_1} ... {e_{k-1}} (e_{k-1}, inf)        2k + 1 cells

so that a heavily repeated value keeps a cell of its own and both one-sided limits of the distribution
function are known at every edge. Counts are exact. Sums are kept as whole numbers of a unit that the reference
fixed, so that merging in any order, of any split of the rows, gives the same bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import EDGES, Role, Segment

if TYPE_CHECKING:
    from drift_monitor.core.products import Products

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_CATEGORIES = 10_000
"""Reference categories kept by name; the rarer ones are pooled."""
UNSEEN_KEPT = 1000
"""Names of unseen categories kept: those with the smallest hash, so that the choice is free of order."""
IDS_KEPT = 1 << 18
"""Row ids kept to count duplicates: all below this number, a hash-chosen share of them above it."""
_RANGE = 1 << 30  # the reference spans at most this many units on either side of its origin


@dataclass(frozen=True, eq=False)
class NumericSpec:
    """Cells of a numeric or datetime feature.

    Attributes:
        edges: shape (k,), k >= 1, finite, strictly increasing; the first is the reference's minimum, the last its
            maximum. Datetimes are seconds since 1970-01-01 UTC.
        origin, unit: sums count `(x - origin) / unit`, rounded; unit is a power of two.
        exact: whether the edges are all the distinct values of the reference.
        segment: the rows that are counted; None for all.
        column: that is read; the name itself unless there is a segment.
    """

    name: str
    edges: Floats
    origin: float
    unit: float
    exact: bool
    kind: Literal["numeric", "datetime"] = "numeric"
    role: Role = "feature"
    segment: Segment | None = None
    column: str = ""

    def __post_init__(self) -> None:
        if self.segment is None:
            object.__setattr__(self, "column", self.name)

    @classmethod
    def fit(
        cls,
        name: str,
        values: Floats,
        *,
        kind: Literal["numeric", "datetime"] = "numeric",
        role: Role = "feature",
        edges: int = EDGES,
    ) -> Self:
        """Choose cells from reference values.

        Args:
            name: of the feature.
            values: shape (n,); those that are not finite are left out.
            kind: how to show the values.
            role: feature or prediction.
            edges: how many quantile cells, unless there are fewer distinct values.

        Raises:
            SchemaError: no finite value.
        """
        a = np.sort(values[np.isfinite(values)])
        if not len(a):
            raise SchemaError(f"column {name!r} has no finite value among {len(values)} rows")
        distinct = a[np.concatenate(([True], a[1:] != a[:-1]))]
        exact = len(distinct) <= edges
        if not exact:
            rank = np.ceil(np.linspace(0, 1, edges + 1) * len(a)).astype(np.int64) - 1
            distinct = np.unique(a[np.maximum(rank, 0)])
        low, origin, high = float(a[0]), float(a[len(a) // 2]), float(a[-1])
        # halved before the subtraction, so that a range near the largest float does not overflow
        half = max(high / 2 - origin / 2, origin / 2 - low / 2)
        if low == high:
            # nothing to resolve in the reference: leave room for live values far away from it
            half = min(max(abs(origin), 1.0) * 2.0**12, 2.0**1023)
        half = max(half, abs(origin) * 2**-53, 2.0**-990)  # so that 1 / unit is finite
        unit = 2.0 ** min(math.ceil(math.log2(half / (_RANGE // 2))), 1000)
        return cls(name, distinct, origin, unit, exact, kind, role)

    def units(self, values: Floats) -> Floats:
        """Finite values as whole numbers of the unit, counted from the origin.

        A large unit divides before the subtraction, so that values near the largest float do not overflow there;
        a small unit may make infinities.
        """
        # the unit is a power of two, so multiplying by its inverse is as exact as dividing, and faster
        inverse = 1 / self.unit
        with np.errstate(over="ignore"):
            units = values * inverse - self.origin * inverse if self.unit > 1 else (values - self.origin) * inverse
            return np.asarray(np.rint(units, out=units))

    @cached_property
    def lower_units(self) -> Ints:
        """Units at the lower edge of each cell, shape (2k + 1,); the first has its upper edge's."""
        units = self.units(self.edges).astype(np.int64)
        return np.concatenate((units[:1], np.repeat(units, 2)))


@dataclass(frozen=True, eq=False)
class CategoricalSpec:
    """Cells of a categorical or boolean feature.

    Attributes:
        categories: by falling count in the reference, then by name.
        complete: whether all the reference's categories are listed; if not, the rarer ones share the cell of
            the unseen ones, and what is unseen cannot be told.
        segment, column: as those of a numeric feature.
    """

    name: str
    categories: tuple[str, ...]
    complete: bool = True
    kind: Literal["categorical", "boolean"] = "categorical"
    role: Role = "feature"
    segment: Segment | None = None
    column: str = ""
    index: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.segment is None:
            object.__setattr__(self, "column", self.name)
        object.__setattr__(self, "index", {c: i for i, c in enumerate(self.categories)})

    @classmethod
    def fit(
        cls,
        name: str,
        counts: Mapping[str, int],
        *,
        kind: Literal["categorical", "boolean"] = "categorical",
        role: Role = "feature",
        limit: int = MAX_CATEGORIES,
    ) -> Self:
        """Choose cells from the reference's counts by category.

        Raises:
            SchemaError: there is no category.
        """
        if not counts:
            raise SchemaError(f"column {name!r} has no value")
        ordered = sorted(counts, key=lambda c: (-counts[c], c))
        return cls(name, tuple(ordered[:limit]), len(ordered) <= limit, kind, role)


Spec = NumericSpec | CategoricalSpec


def whole_columns(specs: Iterable[Spec]) -> list[Spec]:
    """The features that count all rows: one a column."""
    return [spec for spec in specs if spec.segment is None]


def columns_read(specs: Iterable[Spec]) -> list[str]:
    """The columns that features are folded from: their own, and those that their segments are values of."""
    names: dict[str, None] = {}
    for spec in specs:
        names[spec.column] = None
        if spec.segment is not None:
            names[spec.segment.column] = None
    return list(names)


@dataclass(frozen=True, eq=False)
class NumericProfile:
    """Counts and sums of a numeric feature.

    Attributes:
        counts: rows a cell, shape (2k + 1,).
        sums: whole units a cell, shape (2k + 1,).
        squares: sum of squared units, exact.
        saturated: finite values too far out for the unit; their sums are cut, so there is no mean then.
        nulls, nans, pos_inf, neg_inf: rows without a finite value.
        minimum, maximum: of the finite values; nan when there are none.
    """

    counts: Ints
    sums: Ints
    squares: int = 0
    saturated: int = 0
    nulls: int = 0
    nans: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    minimum: float = math.nan
    maximum: float = math.nan

    @cached_property
    def n(self) -> int:
        """Rows with a finite value."""
        return int(self.counts.sum())

    @property
    def rows(self) -> int:
        """All rows."""
        return self.n + self.missing

    @property
    def missing(self) -> int:
        """Rows without a usable value: null, NaN or infinite."""
        return self.nulls + self.nans + self.pos_inf + self.neg_inf

    @property
    def out_of_range(self) -> int:
        """Finite values below the reference's minimum or above its maximum."""
        return int(self.counts[0] + self.counts[-1])

    def moments(self, spec: NumericSpec) -> tuple[float, float] | None:
        """Mean and unbiased variance in the feature's units; None below 2 rows or with saturated values."""
        n = self.n
        if n < 2 or self.saturated:
            return None
        total = int(self.sums.sum(dtype=object))
        variance = (n * self.squares - total * total) / (n * (n - 1))
        return spec.origin + spec.unit * (total / n), variance * spec.unit * spec.unit

    def quantile(self, spec: NumericSpec, q: float) -> float:
        """The q-quantile, to within a cell; nan without rows."""
        n = self.n
        if not n:
            return math.nan
        return self.value(spec, int(np.searchsorted(np.cumsum(self.counts), max(1, math.ceil(q * n)))))

    def value(self, spec: NumericSpec, cell: int) -> float:
        """What stands for the rows of a cell that has some: its edge, or their mean between two edges."""
        if cell % 2:
            return float(spec.edges[cell // 2])
        low = self.minimum if cell == 0 else float(spec.edges[cell // 2 - 1])
        high = self.maximum if cell == len(self.counts) - 1 else float(spec.edges[cell // 2])
        mean = spec.origin + spec.unit * (int(self.sums[cell]) / int(self.counts[cell]))
        return min(max(mean, low), high)

    def merge(self, other: Self) -> Self:
        """Both, in any order."""
        return type(self)(
            self.counts + other.counts,
            self.sums + other.sums,
            self.squares + other.squares,
            self.saturated + other.saturated,
            self.nulls + other.nulls,
            self.nans + other.nans,
            self.pos_inf + other.pos_inf,
            self.neg_inf + other.neg_inf,
            float(np.fmin(self.minimum, other.minimum)),
            float(np.fmax(self.maximum, other.maximum)),
        )


@dataclass(frozen=True, eq=False)
class CategoricalProfile:
    """Counts of a categorical feature.

    Attributes:
        counts: rows a reference category, in the spec's order.
        other: rows whose category the spec does not list.
        unseen: counts of some of those categories by name (`UNSEEN_KEPT` at most, chosen by hash).
        nulls: rows without a value.
    """

    counts: Ints
    other: int = 0
    unseen: Mapping[str, int] = field(default_factory=dict)
    nulls: int = 0

    @cached_property
    def n(self) -> int:
        """Rows with a value."""
        return int(self.counts.sum()) + self.other

    @property
    def rows(self) -> int:
        """All rows."""
        return self.n + self.nulls

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return self.nulls

    def merge(self, other: Self) -> Self:
        """Both, in any order."""
        unseen = dict(self.unseen)
        for name, count in other.unseen.items():
            unseen[name] = unseen.get(name, 0) + count
        return type(self)(
            self.counts + other.counts, self.other + other.other, bounded(unseen), self.nulls + other.nulls
        )


FeatureProfile = NumericProfile | CategoricalProfile


@dataclass(frozen=True, eq=False)
class Ids:
    """Hashes of row ids: all of them, or the share whose highest `level` bits are zero.

    The level is the lowest at which no more than `IDS_KEPT` remain: it depends on the rows, not on their order.

    Attributes:
        hashes: distinct, rising, shape (d,).
        counts: rows a hash, shape (d,).
        level: how many leading bits are zero in every hash kept.
        rows: all rows with an id, kept or not.
    """

    hashes: npt.NDArray[np.uint64]
    counts: Ints
    level: int = 0
    rows: int = 0

    @classmethod
    def of(cls, hashes: npt.NDArray[np.uint64]) -> Self:
        """Keep what fits of one hash a row."""
        distinct, counts = np.unique(hashes, return_counts=True)
        return cls.fitting(distinct, counts.astype(np.int64), 0, len(hashes))

    @classmethod
    def fitting(cls, hashes: npt.NDArray[np.uint64], counts: Ints, level: int, rows: int) -> Self:
        """Raise the level until what remains fits."""
        while True:
            kept = int(np.searchsorted(hashes, np.uint64(1 << (64 - level)))) if level else len(hashes)
            hashes, counts = hashes[:kept], counts[:kept]
            if kept <= IDS_KEPT or level == 63:
                return cls(hashes, counts, level, rows)
            level += 1

    def merge(self, other: Self) -> Self:
        """Both, in any order."""
        both = np.concatenate((self.hashes, other.hashes))
        order = np.argsort(both, kind="stable")  # two sorted runs: linear time
        both = both[order]
        first = np.flatnonzero(np.concatenate(([True], both[1:] != both[:-1]))[: len(both)])
        counts = np.concatenate((self.counts, other.counts))[order]
        counts = np.add.reduceat(counts, first) if len(first) else counts
        return self.fitting(both[first], counts, max(self.level, other.level), self.rows + other.rows)

    @property
    def duplicate_share(self) -> float:
        """Share of rows whose id stands on another row before: exact at level 0, an estimate above.

        Above level 0 the rows kept tell the share unless a few ids fill many rows, since those ids are most
        likely not among the kept; then the estimated number of distinct ids tells it, less 4 standard errors.
        """
        distinct, kept = len(self.hashes), int(self.counts.sum())
        share = 1 - distinct / kept if kept else 0.0
        if not self.level:
            return share
        estimate = distinct * 2.0**self.level
        error = math.sqrt(max(distinct, 1)) * 2.0**self.level
        return max(share, 1 - (estimate + 4 * error) / self.rows)


@dataclass(frozen=True, eq=False)
class Profile:
    """The summary of some rows.

    Attributes:
        rows: how many.
        features: by name; a feature whose column was missing is missing here. One of a segment counts the rows of
            that segment only, of which there may be none.
        oldest, newest: event times in microseconds since 1970; None without a timestamp column.
        ids: for counting duplicates; None without an id column.
        products: of the numeric features, two at a time; None when they were not counted on all rows.
    """

    rows: int
    features: Mapping[str, FeatureProfile]
    oldest: int | None = None
    newest: int | None = None
    ids: Ids | None = None
    products: Products | None = None

    def merge(self, other: Self) -> Self:
        """Both, in any order. Features that only one side has are dropped: they were not counted on all rows."""
        features: dict[str, FeatureProfile] = {}
        for name in sorted(self.features.keys() & other.features.keys()):
            features[name] = merge_features(self.features[name], other.features[name])
        oldest = [t for t in (self.oldest, other.oldest) if t is not None]
        newest = [t for t in (self.newest, other.newest) if t is not None]
        ids = self.ids.merge(other.ids) if self.ids and other.ids else None
        products = _merge_products(self, other)
        return type(self)(
            self.rows + other.rows, features, min(oldest, default=None), max(newest, default=None), ids, products
        )


def _merge_products(a: Profile, b: Profile) -> Products | None:
    if a.products is not None and b.products is not None:
        return a.products.merge(b.products)
    having, lacking = (b, a) if a.products is None else (a, b)
    return None if lacking.rows else having.products


def merge_features(a: FeatureProfile, b: FeatureProfile) -> FeatureProfile:
    """Both, in any order; they were counted on the same cells."""
    match a, b:
        case NumericProfile(), NumericProfile():
            return a.merge(b)
        case CategoricalProfile(), CategoricalProfile():
            return a.merge(b)
    raise TypeError(f"a {type(a).__name__} and a {type(b).__name__} are not of the same feature")


def empty(spec: Spec) -> FeatureProfile:
    """The profile of no rows: the neutral element of merge."""
    if isinstance(spec, NumericSpec):
        cells = 2 * len(spec.edges) + 1
        return NumericProfile(np.zeros(cells, np.int64), np.zeros(cells, np.int64))
    return CategoricalProfile(np.zeros(len(spec.categories), np.int64))


def merge(profiles: Iterable[Profile]) -> Profile | None:
    """All of them; None when there are none."""
    whole = list(profiles)
    return reduce(Profile.merge, whole) if whole else None


def bounded(unseen: dict[str, int]) -> dict[str, int]:
    """The counts of at most `UNSEEN_KEPT` names: those with the smallest hash."""
    if len(unseen) <= UNSEEN_KEPT:
        return unseen
    keep = sorted(
        unseen, key=lambda n: hashlib.blake2b(n.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )
    return {name: unseen[name] for name in keep[:UNSEEN_KEPT]}
