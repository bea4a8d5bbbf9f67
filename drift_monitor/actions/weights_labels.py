"""Labels as a target, and the estimator that the gate tries: by import path, or gradient boosting."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_numpy, is_missing, numbers_by_row
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.gate import Learner, Target

FEW: Final = 10
"""Distinct whole numbers up to which a label is a class and not a quantity."""
MOST_CLASSES: Final = 50


@dataclass(frozen=True, eq=False)
class Estimator:
    """What the user trains, as far as the gate can know it.

    Attributes:
        path: import path.
        make: makes an unfitted one.
        classifier: whether it predicts classes.
    """

    path: str
    make: Learner
    classifier: bool


def load_estimator(path: str, setting: str, seed: int) -> Estimator:
    """The estimator of an import path: a class, or a function without arguments that makes one.

    Args:
        path: such as `sklearn.linear_model.Ridge`.
        setting: where it stands, for messages.
        seed: for estimators that take a `random_state`.

    Raises:
        ConfigError: there is none, it cannot be made without arguments, or it takes no `sample_weight`.
    """
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - heavy
    from sklearn.utils.validation import has_fit_parameter  # noqa: PLC0415

    module, _, name = path.rpartition(".")
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module), name)
        first = factory()
    except Exception as error:
        problem = (
            f"{setting}: {path!r} cannot be imported and called without arguments ({type(error).__name__}: "
            f"{error}): name a scikit-learn estimator, or a function that makes one"
        )
        raise ConfigError([problem]) from error
    if not (is_classifier(first) or is_regressor(first)):
        raise ConfigError([f"{setting}: {path!r} makes {type(first).__name__}, no classifier and no regressor"])
    if not has_fit_parameter(first, "sample_weight"):
        raise ConfigError([f"{setting}: {path!r} takes no sample_weight, so weights can do nothing for it"])
    seeded = "random_state" in first.get_params(deep=False)

    def make() -> Any:
        made = factory()
        return made.set_params(random_state=seed) if seeded else made

    return Estimator(path, make, bool(is_classifier(first)))


def is_class(column: pa.Array) -> bool:
    """Whether a label is a class by its looks: a text, true or false, or one of few whole numbers."""
    t = column.type
    if pa.types.is_integer(t):
        return len(pc.unique(column.drop_null())) <= FEW
    return not (pa.types.is_floating(t) or pa.types.is_decimal(t))


def classes_of(column: pa.Array) -> pa.Array:
    """The distinct labels, in order."""
    found = pc.unique(column.drop_null())
    return found.take(pc.sort_indices(found.cast(pa.string()) if pa.types.is_boolean(found.type) else found))


def target_of(column: pa.Array, classes: pa.Array | None) -> tuple[Target, np.ndarray[Any, np.dtype[np.int64]]]:
    """The labels of the rows that have one.

    Args:
        column: no dictionary; of n rows.
        classes: in order; None for a regression.

    Returns:
        The target, and the rows, rising. A class that is not listed, and a number that is not finite, is no label.
    """
    if classes is not None:
        at = pc.index_in(column, classes)
        rows = np.flatnonzero(~is_missing(at))
        return Target(as_numpy(at)[rows].astype(np.int64), len(classes)), rows
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    missing = is_missing(column)
    values = np.where(missing, np.nan, numbers_by_row(column.fill_null(0)))
    rows = np.flatnonzero(np.isfinite(values))
    return Target(values[rows], 0), rows
