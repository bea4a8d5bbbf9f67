"""Evidently's own tests by name (`evidently:<name>`), on two row samples.

Importing Evidently takes seconds and hundreds of megabytes, so this runs in a child process or a command, never
in the daemon. `EVIDENTLY_TESTS` says what each test is without that import.

Two oddities are Evidently's and are kept, because a user who asks for a test by its name wants that test: `mannw`
is one-sided (small when live values tend to be larger), and `z` compares the share of the alphabetically first
category only.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.types import Kind, StatResult

if TYPE_CHECKING:
    from evidently.legacy.calculations.stattests.registry import StatTest

PREFIX: Final = "evidently:"


@dataclass(frozen=True)
class EvidentlyTest:
    """What is known of a test without importing Evidently.

    Attributes:
        numeric, categorical: what it takes. Datetimes count as numeric (seconds), booleans as categorical.
        is_p_value: Evidently's number is a p-value; then our statistic is `1 - p`, so that larger is worse.
        threshold: Evidently's default, on the scale of our statistic.
        max_rows: rows of each side that are used; None for all. Two tests permute, at a cost of rows squared
            (`empirical_mmd`, which holds that matrix) or 1000 passes (`TVD`).
        equal_sizes: the test refuses sides of different length; both are thinned to the shorter one.
    """

    numeric: bool
    categorical: bool
    is_p_value: bool
    threshold: float
    max_rows: int | None = None
    equal_sizes: bool = False

    def takes(self, kind: Kind) -> bool:
        """Whether a feature of this kind can be tested."""
        return self.categorical if kind in {"categorical", "boolean"} else self.numeric


def _numeric(threshold: float, *, is_p_value: bool = True, max_rows: int | None = None) -> EvidentlyTest:
    return EvidentlyTest(
        numeric=True, categorical=False, is_p_value=is_p_value, threshold=threshold, max_rows=max_rows
    )


def _categorical(threshold: float, *, max_rows: int | None = None, equal_sizes: bool = False) -> EvidentlyTest:
    return EvidentlyTest(
        numeric=False,
        categorical=True,
        is_p_value=True,
        threshold=threshold,
        max_rows=max_rows,
        equal_sizes=equal_sizes,
    )


_DISTANCE: Final = EvidentlyTest(numeric=True, categorical=True, is_p_value=False, threshold=0.1)

EVIDENTLY_TESTS: Final[Mapping[str, EvidentlyTest]] = {
    "anderson": _numeric(0.9),
    "chisquare": _categorical(0.95),
    "cramer_von_mises": _numeric(0.9),
    "ed": _numeric(0.1, is_p_value=False),
    "empirical_mmd": _numeric(0.9, max_rows=500),
    "es": _numeric(0.95),
    "fisher_exact": _categorical(0.9, equal_sizes=True),
    "g_test": _categorical(0.9, equal_sizes=True),
    "hellinger": _DISTANCE,
    "jensenshannon": _DISTANCE,
    "kl_div": _DISTANCE,
    "ks": _numeric(0.95),
    "mannw": _numeric(0.95),
    "psi": _DISTANCE,
    "t_test": _numeric(0.95),
    "TVD": _categorical(0.9, max_rows=2000),
    "wasserstein": _numeric(0.1, is_p_value=False),
    "z": _categorical(0.95),
}

Failed = Callable[[str, str, str], None]


def evidently_statistics(
    requested: Mapping[str, Sequence[str]],
    reference_sample: pa.Table,
    current_sample: pa.Table,
    kinds: Mapping[str, Kind],
    *,
    on_failure: Failed | None = None,
) -> dict[str, dict[str, StatResult]]:
    """Run Evidently's tests on some features.

    Args:
        requested: feature -> names of tests, with or without the `evidently:` prefix. A test that is not for the
            feature's kind is passed over, since a policy names tests for all features at once.
        reference_sample: rows the model was trained on.
        current_sample: live rows. Their order is of no weight, except that thinning (see `EvidentlyTest`)
            takes evenly spaced ones.
        kinds: feature -> kind.
        on_failure: called with (feature, name, reason) for each test that has no answer on this data (too few
            values, a constant, a third category where two are meant); its place in the result stays empty.

    Returns:
        feature -> name as it was requested -> result.

    Raises:
        ValueError: there is no such test, or one has no answer and there is no `on_failure`; the message names
            feature and test.
    """
    results: dict[str, dict[str, StatResult]] = {}
    for feature, names in requested.items():
        results[feature] = {}
        for name in names:
            if not find_test(name).takes(kinds[feature]):
                continue
            try:
                results[feature][name] = evidently_statistic(
                    name, kinds[feature], _column(reference_sample, feature), _column(current_sample, feature)
                )
            except ValueError as error:
                if on_failure is None:
                    raise ValueError(f"{name} on {feature!r}: {error}") from error
                on_failure(feature, name, str(error))
    return results


def evidently_statistic(name: str, kind: Kind, reference: pa.ChunkedArray, current: pa.ChunkedArray) -> StatResult:
    """One of Evidently's tests on one feature.

    Nulls, NaN and infinities are left out of both sides first. Numpy's global random state, which some of the
    tests use, is fixed for the test and restored after it: the same samples give the same number.

    Args:
        name: with or without the `evidently:` prefix.
        kind: of the feature.
        reference: its values in training.
        current: its live values.

    Returns:
        For a distance: the distance. For a p-value p: statistic `1 - p` and p_value `p`.

    Raises:
        ValueError: no such test, not for this kind, or the test has no answer on these values.
    """
    test = find_test(name)
    if not test.takes(kind):
        usable = ", ".join(known for known, candidate in EVIDENTLY_TESTS.items() if candidate.takes(kind))
        raise ValueError(f"Evidently's test {name!r} is not for {kind} features; those are {usable}")
    sides = [_values(side, kind) for side in (reference, current)]
    for which, values in zip(("reference", "current"), sides, strict=True):
        if len(values) < 2:
            raise ValueError(f"the {which} sample has {len(values)} usable values; at least 2 are needed")
    size = min(len(values) for values in sides)
    limit = size if test.equal_sizes else (test.max_rows or max(len(values) for values in sides))
    thinned = [_thin(values, limit) for values in sides]
    with _quiet_and_seeded():
        stattest = _stattest(name.removeprefix(PREFIX), numeric=_is_number(kind))
        try:
            answer = stattest(thinned[0], thinned[1], _feature_type(numeric=_is_number(kind)), None)
        except (ValueError, TypeError, ZeroDivisionError, IndexError, FloatingPointError) as error:
            raise ValueError(f"no answer ({error})") from error
    value = float(answer.drift_score)
    if not np.isfinite(value):
        raise ValueError(f"no answer (the test gave {value})")
    if not test.is_p_value:
        return StatResult(statistic=value)
    p = min(max(value, 0.0), 1.0)
    return StatResult(statistic=1 - p, p_value=p)


def find_test(name: str) -> EvidentlyTest:
    """What is known of a test, by its name with or without the `evidently:` prefix.

    Raises:
        ValueError: there is no such test; the message lists those that there are.
    """
    test = EVIDENTLY_TESTS.get(name.removeprefix(PREFIX))
    if test is None:
        raise ValueError(f"Evidently has no test {name!r}; it has {', '.join(EVIDENTLY_TESTS)}")
    return test


def _is_number(kind: Kind) -> bool:
    return kind in {"numeric", "datetime"}


def _column(sample: pa.Table, feature: str) -> pa.ChunkedArray:
    if feature not in sample.column_names:
        raise ValueError(f"the row sample has no column {feature!r}")
    return sample.column(feature)


def _values(column: pa.ChunkedArray, kind: Kind) -> pd.Series[Any]:
    """Finite numbers, or text, without nulls."""
    try:
        if not _is_number(kind):
            return pd.Series(column.cast(pa.string()).drop_null().to_pylist(), dtype=object)
        if kind == "datetime":
            column = pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
        numbers = column.cast(pa.float64(), safe=False).drop_null().to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"a column of {column.type} cannot be read as {kind} ({error})") from error
    return pd.Series(numbers[np.isfinite(numbers)])


def _thin(values: pd.Series[Any], limit: int) -> pd.Series[Any]:
    """At most `limit` evenly spaced values; always a copy, since some of the tests change their input."""
    if len(values) <= limit:
        return values.copy()
    return values.iloc[np.linspace(0, len(values) - 1, limit).astype(int)].reset_index(drop=True)


def _stattest(name: str, *, numeric: bool) -> StatTest:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest  # noqa: PLC0415 - heavy

    return get_registered_stattest(name, _feature_type(numeric=numeric))


def _feature_type(*, numeric: bool) -> Any:
    from evidently.legacy.core import ColumnType  # noqa: PLC0415 - heavy

    return ColumnType.Numerical if numeric else ColumnType.Categorical


@contextmanager
def _quiet_and_seeded() -> Iterator[None]:
    """Warnings off (the tests divide by zero on unseen categories, by design), numpy's global state lent."""
    state = np.random.get_state()  # noqa: NPY002 - the tests use the global state, so it is what must be kept
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
