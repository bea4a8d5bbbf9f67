"""The domain classifier: how well a model tells live rows from reference rows, out of fold.

A model that sees all features at once finds what no single feature shows: a correlation that is gone, a group of
rows that is new. Its AUC on rows that it was not fitted on is the statistic (Lopez-Paz & Oquab 2017, Revisiting
classifier two-sample tests; Friedman 2003, On multivariate goodness-of-fit and two-sample testing). There is no
p-value here: what an AUC is worth is told by `replay`, which gives the AUC of every day of the reference.

The model gets few cells of each feature instead of its values. Trees need no more, a fit takes a tenth of the
time, and a value that is far away counts as any other in the last cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_numpy, is_missing, numbers
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.fold import accepts, category_name
from drift_monitor.core.profile import CategoricalSpec, Floats, Ints, NumericSpec, Spec

CATEGORIES: Final = 30
"""Categories of a feature with a code of their own: the reference's most frequent ones."""
RARE: Final = float(CATEGORIES)
"""The code of the reference's other categories."""
UNSEEN: Final = float(CATEGORIES + 1)
"""The code of a category that the reference never had."""
FEWEST: Final = 40
"""Rows that each side needs. With fewer, its half in a fold is smaller than a leaf, and the AUC is 0.5."""
MIN_ROWS: Final = 100
"""Rows that a day of a replay needs: the AUC of a smaller one has a standard error of 0.03 and more."""
MOST_REFERENCE: Final = 4000
"""Reference rows in one AUC. The live rows bound the power: with 357 of them, 2000 saw as much in simulations."""

_CELLS: Final = CATEGORIES + 2  # so that every code of a category has one
_MODEL: Final = {"max_iter": 40, "max_leaf_nodes": 8, "learning_rate": 0.1, "min_samples_leaf": 20}
_FLOAT32: Final = float(np.finfo(np.float32).max)

_Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Encoding:
    """Rows as numbers, in the way that the reference's cells lay down; nothing is learnt from the rows.

    Attributes:
        specs: of the watched features, one a column of the matrix. Only these columns are read, so that ids and
            event times, which tell any two days apart, stay out.
    """

    specs: tuple[Spec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of the columns."""
        return tuple(spec.name for spec in self.specs)

    def matrix(self, rows: pa.Table) -> Floats:
        """The rows as a matrix; NaN stands for null, NaN and the infinities.

        A number is rounded to 24 significant bits, since 0.1 as a float32 is not 0.1 as a float64, and a feature
        whose storage changed has not drifted. A datetime is seconds since 1970, a category its rank in the
        reference: below `CATEGORIES`, or `RARE`, or `UNSEEN`. Where the spec does not list all of the
        reference's categories, what it does not list is `RARE`.

        Args:
            rows: with a column for every spec; others are not read.

        Returns:
            Shape (rows, features).

        Raises:
            SchemaError: a column is not there, or is of a type that cannot be read as the feature's kind.
        """
        found = np.empty((rows.num_rows, len(self.specs)), np.float64, order="F")
        for j, spec in enumerate(self.specs):
            if spec.name not in rows.column_names:
                raise SchemaError(
                    f"the rows have no column {spec.name!r}; they have {', '.join(rows.column_names)}"
                )
            column = rows.column(spec.name)
            if not accepts(spec.kind, column.type):
                raise SchemaError(f"column {spec.name!r} of {column.type} cannot be read as {spec.kind}")
            start = 0
            for chunk in column.chunks:
                codes = _numbers(spec, chunk) if isinstance(spec, NumericSpec) else _categories(spec, chunk)
                found[start : start + len(chunk), j] = codes
                start += len(chunk)
        return found


def domain_auc(reference: Floats, current: Floats, *, seed: int) -> float:
    """The out-of-fold AUC of a model that tells current rows from reference rows.

    The rows of each side are dealt into two folds; each fold is scored by gradient-boosted trees that were fitted
    on the other one, with both sides of equal weight in the fit. One AUC is taken of all scores together.

    Args:
        reference: rows by `Encoding.matrix`, shape (n, d); NaN is a value of its own.
        current: the same, shape (m, d).
        seed: of the folds, >= 0.

    Returns:
        0.5 where the sides cannot be told apart, 1 where they have nothing in common. Without drift it lies on
        either side of 0.5. Exactly 0.5 where a side has fewer than `FEWEST` rows or no feature varies.
        The same input gives the same bits, on any number of threads: it runs on one.

    Raises:
        ValueError: the shapes do not fit; the message has both.

    References:
        Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests, with the AUC for the accuracy.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> reference, current = rng.normal(size=(400, 2)), rng.normal(size=(200, 2))
        >>> current[:, 1] += 10
        >>> domain_auc(reference, current, seed=0) > 0.99
        True
    """
    with one_thread():
        fitted = _fit(reference, current, seed)
        return 0.5 if fitted is None else fitted.auc()


def importances(
    reference: Floats, current: Floats, names: Sequence[str], *, seed: int, repeats: int = 3
) -> dict[str, float]:
    """What each feature adds to the AUC: by how much it falls when the feature is shuffled.

    The models stay as they are; a feature's values are shuffled among the rows of the fold that is scored, both
    sides together. Of two features that say the same, neither may look important.

    Args:
        reference: as for `domain_auc`.
        current: as for `domain_auc`.
        names: of the d columns.
        seed: of the folds, as for `domain_auc`, and of the shuffling.
        repeats: shuffles to average over, >= 1.

    Returns:
        Mean fall of the AUC by feature, >= 0 (a rise is chance and counts as 0), largest first; equal ones in the
        order of the names. All 0 where `domain_auc` is 0.5 for want of rows.

    Raises:
        ValueError: the shapes, or the names and the columns, do not fit.

    References:
        Breiman (2001), Random forests, section 10: permutation importance, here on out-of-fold scores.
    """
    if len(names) != reference.shape[1]:
        raise ValueError(
            f"names and columns should be as many, but there are {len(names)} and {reference.shape[1]}"
        )
    falls = dict.fromkeys(names, 0.0)
    with one_thread():
        fitted = _fit(reference, current, seed)
        if fitted is None:
            return falls
        whole = fitted.auc()
        rng = np.random.default_rng([seed, 1])
        for at, column in enumerate(fitted.columns.tolist()):
            kept = fitted.cells[:, at].copy()
            left = []
            for _ in range(repeats):
                for held, _model in fitted.folds:
                    fitted.cells[held, at] = rng.permutation(kept[held])
                left.append(fitted.auc())
            fitted.cells[:, at] = kept
            falls[names[column]] = max(whole - float(np.mean(left)), 0.0)
    return dict(sorted(falls.items(), key=lambda item: -item[1]))


def live_sides(
    sample: pa.Table,
    live: pa.Table,
    encoding: Encoding,
    *,
    rows: int,
    most_reference: int = MOST_REFERENCE,
    seed: int,
) -> tuple[Floats, Floats]:
    """The two matrices that a live day is judged on, for `domain_auc` and `importances`.

    Args:
        sample: of the reference.
        live: rows of the day.
        encoding: of the features.
        rows: live rows at most; those of the replay that the AUC is compared with.
        most_reference: rows of the sample at most.
        seed: of the choice, >= 0.

    Returns:
        Reference, shape (n, d), and current, shape (m, d): n <= most_reference, m <= rows.

    Raises:
        SchemaError: a column is missing, or cannot be read as the feature's kind.
    """
    return _thinned(encoding.matrix(sample), encoding.matrix(live), rows, most_reference, seed)


def live_auc(
    sample: pa.Table,
    live: pa.Table,
    encoding: Encoding,
    *,
    rows: int,
    most_reference: int = MOST_REFERENCE,
    seed: int,
) -> float:
    """The AUC of a live day: what `replay` does for a day of the reference, with nothing left out.

    Arguments and errors are those of `live_sides`; the value is that of `domain_auc`. To compare it with a
    replay, give the same rows, most_reference and seed to both. A day with fewer than `rows` rows has a noisier
    AUC than the replay allows for.
    """
    sides = live_sides(sample, live, encoding, rows=rows, most_reference=most_reference, seed=seed)
    return domain_auc(*sides, seed=seed)


def replay(
    table: pa.Table,
    days: Ints,
    encoding: Encoding,
    *,
    rows: int,
    most_reference: int = MOST_REFERENCE,
    gap_days: int = 7,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, float]:
    """The AUC of every day of the reference against the days that are not near it.

    A day is much like its neighbours, and more so than a live day is like the reference. So the block of
    `gap_days` around it is left out of what it is compared with.

    Args:
        table: sampled rows of the reference, n of them.
        days: the day of each row, as a number, shape (n,).
        encoding: of the features.
        rows: of a day at most, > 0; the seed chooses them.
        most_reference: rows of the other days at most.
        gap_days: length of the block, centred on the day: 7 leaves out the day and three days on either side.
        seed: of the choice and the folds, >= 0.
        progress: called with (days done, days in all).

    Returns:
        AUC by day, rising. Days with fewer than `MIN_ROWS` rows, or with fewer than that outside their block,
        are not in it.

    Raises:
        ValueError: days and rows are not as many.
        SchemaError: a column is missing, or cannot be read as the feature's kind.
    """
    if days.shape != (table.num_rows,):
        raise ValueError(
            f"days should have shape ({table.num_rows},) as the table has rows, but it has {days.shape}"
        )
    matrix = encoding.matrix(table)
    distinct, counts = np.unique(days, return_counts=True)
    large = distinct[counts >= MIN_ROWS].tolist()
    found: dict[int, float] = {}
    for done, day in enumerate(large, 1):
        far = 2 * np.abs(days - day) > gap_days
        if np.count_nonzero(far) >= MIN_ROWS:
            sides = _thinned(matrix[far], matrix[days == day], rows, most_reference, seed)
            found[day] = domain_auc(*sides, seed=seed)
        if progress is not None:
            progress(done, len(large))
    return found


def auc(scores: Floats, positive: _Marks) -> float:
    """The share of pairs of a positive and a negative row in which the positive one scores higher; ties are half.

    Args:
        scores: shape (n,), no NaN.
        positive: shape (n,), at least one of each.

    Returns:
        In [0, 1]; 0.5 for scores that say nothing.

    References:
        Hanley & McNeil (1982), The meaning and use of the area under a ROC curve: Mann and Whitney's U over the
        number of pairs, from midranks.

    Example (of the four pairs three are in order):
        >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        0.75
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    n = int(np.count_nonzero(positive))
    total = float(midranks[place][positive].sum())
    return (total - n * (n + 1) / 2) / (n * (len(scores) - n))


# -- from columns to numbers -----------------------------------------------------------------------------


def _numbers(spec: NumericSpec, column: pa.Array) -> Floats:
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    found = np.full(len(column), np.nan)
    found[~is_missing(column)] = numbers(column)
    found[~np.isfinite(found)] = np.nan
    if spec.kind == "datetime":
        return found
    return np.asarray(np.clip(found, -_FLOAT32, _FLOAT32).astype(np.float32), np.float64)


def _categories(spec: CategoricalSpec, column: pa.Array) -> Floats:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if not isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_encode()
    values = column.dictionary
    if not pa.types.is_large_string(values.type):  # integers and booleans as text
        values = pc.cast(values, pa.string())
    codes = [_code(spec, raw) for raw in values.cast(pa.large_binary()).to_pylist()]
    indices = column.indices
    where = np.where(is_missing(indices), len(codes), as_numpy(indices).astype(np.int64))
    return np.asarray(np.array([*codes, np.nan])[where], np.float64)


def _code(spec: CategoricalSpec, raw: bytes | None) -> float:
    if raw is None:
        return np.nan
    rank = spec.index.get(category_name(raw))
    if rank is None:
        return UNSEEN if spec.complete else RARE
    return min(float(rank), RARE)


def _cells(values: Floats) -> Floats:
    """The cell of each value in its column: 0 for NaN, then one a distinct value, or one a quantile of all rows.

    All rows have a say in where the cells begin, but which side they are of has none: nothing is given away.
    """
    found = np.zeros(values.shape, np.float64, order="F")
    for j, column in enumerate(values.T):
        there = ~np.isnan(column)
        rising = np.sort(column[there])
        starts = np.unique(rising)
        if len(starts) > _CELLS:
            starts = np.unique(rising[np.arange(_CELLS) * len(rising) // _CELLS])
        found[there, j] = np.searchsorted(starts, column[there], "right")
    return found


# -- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Two models and the rows that each has not seen.

    Attributes:
        cells: of the features that vary, shape (n + m, v).
        columns: which of the features these are, shape (v,).
        live: which rows are current, shape (n + m,).
        folds: rows, and the model that was fitted on the others.
    """

    cells: Floats
    columns: Ints
    live: _Marks
    folds: tuple[tuple[Ints, Any], ...]

    def auc(self) -> float:
        """Of the log-odds of being current, each by the model that has not seen the row."""
        scores = np.empty(len(self.live))
        for held, model in self.folds:
            scores[held] = model.decision_function(self.cells[held])
        return auc(scores, self.live)


def _fit(reference: Floats, current: Floats, seed: int) -> _Fitted | None:
    """None where a side has too few rows, or where no feature varies."""
    if reference.ndim != 2 or reference.shape[1:] != current.shape[1:]:
        raise ValueError(
            "reference and current should have shapes (n, d) and (m, d), "
            f"but they have {reference.shape} and {current.shape}"
        )
    if min(len(reference), len(current)) < FEWEST:
        return None
    cells = _cells(np.concatenate((reference, current)))
    columns = np.flatnonzero((cells != cells[:1]).any(axis=0))
    if not len(columns):
        return None
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - heavy

    cells = np.asfortranarray(cells[:, columns])
    live = np.arange(len(cells)) >= len(reference)
    weights = np.where(live, len(reference) / len(current), 1.0)
    rng = np.random.default_rng(seed)
    dealt = np.empty(len(cells), np.int64)
    for side in (~live, live):
        dealt[rng.permutation(np.flatnonzero(side))] = np.arange(np.count_nonzero(side)) % 2
    folds = []
    for k in (0, 1):
        seen, held = np.flatnonzero(dealt != k), np.flatnonzero(dealt == k)
        # no more cells than bins, so that the cells are the bins: scikit-learn's own, with weights, take seconds
        model = HistGradientBoostingClassifier(**_MODEL, max_bins=_CELLS + 1, early_stopping=False, random_state=0)
        folds.append((held, model.fit(cells[seen], live[seen], sample_weight=weights[seen])))
    return _Fitted(cells, columns, live, tuple(folds))


def _thinned(
    reference: Floats, current: Floats, rows: int, most_reference: int, seed: int
) -> tuple[Floats, Floats]:
    """At most so many rows of either side, chosen by the seed, in their order."""
    rng = np.random.default_rng([seed, 2])
    far = np.sort(rng.permutation(len(reference))[:most_reference])
    near = np.sort(rng.permutation(len(current))[:rows])
    return reference[far], current[near]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of OpenMP: the fits are small, and several checks that run side by side would spin."""
    import sklearn.ensemble  # noqa: F401, PLC0415 - loads the library whose threads are limited
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # noqa: PLC0415 - with sklearn

    with threadpool_limits(limits=1, user_api="openmp"):
        yield
