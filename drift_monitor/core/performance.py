"""How wrong predictions were, from predictions and labels in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from drift_monitor.core.arrow import as_arrow, as_numpy, has_value, numbers_by_row
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import Window

CLIP: Final = 1e-15
"""Predictions are moved so far from 0 and 1 for the log loss, which is infinite there."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Floats = npt.NDArray[np.float64]


def complete_stretch(end: datetime, length: timedelta, horizon: timedelta) -> Window:
    """The newest stretch of a length, counted from 1970, whose labels are complete at a time.

    Example:
        >>> complete_stretch(datetime(2024, 3, 9, 6, tzinfo=UTC), timedelta(days=1), timedelta(days=7)).start.day
        1
    """
    close = _EPOCH + (end - horizon - _EPOCH) // length * length
    return Window(start=close - length, end=close)


@dataclass(frozen=True)
class Decision:
    """How a prediction becomes a yes, and what wrong ones cost.

    Attributes:
        threshold: yes from here on.
        false_negative, false_positive: costs; None where nobody told them.
    """

    threshold: float = 0.5
    false_negative: float | None = None
    false_positive: float | None = None


class Mean:
    """A mean and its standard error, batch by batch (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self.count, self.value, self._squares = 0, 0.0, 0.0

    def add(self, values: _Floats) -> None:
        """Take in values, shape (n,), finite."""
        if not (n := len(values)):
            return
        mean = float(values.mean())
        moved, total = mean - self.value, self.count + n
        self._squares += float(((values - mean) ** 2).sum()) + moved**2 * self.count * n / total
        self.value += moved * n / total
        self.count = total

    @property
    def standard_error(self) -> float | None:
        """If the values were independent; None of fewer than two."""
        return math.sqrt(self._squares / (self.count - 1) / self.count) if self.count > 1 else None


Truth = Literal["yes or no", "numbers", "classes"]
"""What labels are: 0 and 1 with predictions between them, any other numbers, or texts."""


class Losses:
    """The losses of predictions whose truth is known.

    Args:
        decision: for those whose truth is yes or no.

    Attributes:
        rows, labelled: seen, and of these with a label.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.rows = self.labelled = 0
        self._binary = True
        self._classes = {"error_rate": Mean()}
        self._yes_or_no = {name: Mean() for name in ("log_loss", "error_rate")}
        if decision.false_negative is not None and decision.false_positive is not None:
            self._yes_or_no["cost"] = Mean()
        self._numeric = {"mean_absolute_error": Mean()}

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """Take in rows.

        Raises:
            SchemaError: the columns hold neither numbers or truth values, nor both texts.
        """
        there = has_value(labels)
        self.rows += len(labels)
        self.labelled += int(there.sum())
        if pa.types.is_null(labels.type) or pa.types.is_null(predictions.type):
            return
        if _is_text(labels) and _is_text(predictions):
            scored = there & has_value(predictions)
            differ = _texts(labels, scored) != _texts(predictions, scored)
            self._classes["error_rate"].add(differ.astype(np.float64))
            return
        truth, predicted = _numbers(labels, "labels"), _numbers(predictions, "predictions")
        scored = there & np.isfinite(truth) & np.isfinite(predicted)
        truth, predicted = truth[scored], predicted[scored]
        self._numeric["mean_absolute_error"].add(np.abs(truth - predicted))
        fits = ((truth == 0) | (truth == 1)) & (predicted >= 0) & (predicted <= 1)
        self._binary &= bool(fits.all())
        self._decide(truth[fits] == 1, predicted[fits])

    def _decide(self, truth: npt.NDArray[np.bool_], predicted: _Floats) -> None:
        likely = np.clip(np.where(truth, predicted, 1 - predicted), CLIP, 1)
        missed = truth & (predicted < self._decision.threshold)
        alarmed = ~truth & (predicted >= self._decision.threshold)
        self._yes_or_no["log_loss"].add(-np.log(likely))
        self._yes_or_no["error_rate"].add((missed | alarmed).astype(np.float64))
        if (cost := self._yes_or_no.get("cost")) is not None:
            negative, positive = self._decision.false_negative or 0.0, self._decision.false_positive or 0.0
            cost.add(negative * missed + positive * alarmed)

    @property
    def truth(self) -> Truth:
        """What the labels so far were; of texts and numbers that of which more rows could be scored."""
        if self._classes["error_rate"].count > self._numeric["mean_absolute_error"].count:
            return "classes"
        return "yes or no" if self._binary else "numbers"

    def means(self, truth: Truth) -> Mapping[str, Mean]:
        """Losses of one kind of truth, by name; empty when no row could be scored."""
        of = {"classes": self._classes, "yes or no": self._yes_or_no, "numbers": self._numeric}
        return {name: mean for name, mean in of[truth].items() if mean.count}


def _is_text(column: pa.Array) -> bool:
    dtype = column.type.value_type if isinstance(column.type, pa.DictionaryType) else column.type
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _texts(column: pa.Array, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Some of the texts, as bytes: broken UTF-8 is compared as it is."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    chosen = column.filter(as_arrow(where)).cast(pa.large_string()).cast(pa.large_binary())
    return np.array(chosen.to_pylist(), dtype=object)


def _numbers(column: pa.Array, what: str) -> _Floats:
    """A number a row, NaN where there is none."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    t, of = column.type, pa.types
    if of.is_null(t):
        return np.full(len(column), np.nan)
    if of.is_boolean(t):
        values: npt.NDArray[Any] = as_numpy(column).astype(np.float64)
    elif of.is_integer(t) or of.is_floating(t) or of.is_decimal(t):
        values = numbers_by_row(column)
    else:
        raise SchemaError(
            f"the {what} are {t}: losses are of numbers, of true and false, or of texts on both sides"
        )
    return np.where(has_value(column), values, np.nan)
