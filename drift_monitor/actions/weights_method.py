"""Which method makes the weights, and the method fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from drift_monitor.actions.reweight import ReweightError, ReweightRequest
from drift_monitor.core.classifier import Encoding
from drift_monitor.core.design import Design
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.raking import Margin, Raking, rake
from drift_monitor.core.types import CheckResult
from drift_monitor.core.weights import Difference, Sums, differences, relative
from drift_monitor.core.weights_model import WeightsModel, folds_of

BALANCED: Final = 0.1
"""Largest standardised mean difference that may be left (Austin 2009)."""
FEW: Final = 3
"""Columns up to which `auto` tries raking: the groups of more cannot be read."""
Method = Literal["classifier", "raking"]


@dataclass(frozen=True, eq=False)
class Sides:
    """Samples of both sides.

    Attributes:
        encoding: of the features that weights depend on.
        training, live: rows with all watched columns and the label.
        numbers: of the training rows in the file.
        known, now: the same by the encoding, shapes (n, d) and (m, d).
    """

    encoding: Encoding
    training: pa.Table
    live: pa.Table
    numbers: Ints
    known: Floats
    now: Floats


@dataclass(frozen=True, eq=False)
class Weigher:
    """The method that was chosen, fitted.

    Attributes:
        method: its name.
        why: that one.
        model: of both methods: raking is checked by it.
        raking: None for the classifier.
        mix: the bound is 1/mix.
        seed: of the folds.
    """

    method: Method
    why: str
    model: WeightsModel
    raking: Raking | None
    mix: float
    seed: int

    def weights(self, matrix: Floats, numbers: Ints) -> Floats:
        """Of training rows with these numbers, shape (n,), in [0, 1/mix]."""
        if self.raking is not None:
            return np.minimum(self.raking.weights(matrix), 1 / self.mix)
        return relative(self.model.ratios(matrix, folds_of(numbers, seed=self.seed)), self.mix)


def choose(request: ReweightRequest, sides: Sides, design: Design, live: Sums, result: CheckResult) -> Weigher:
    """Fit the method that was asked for, or of `auto` the one that suits the drift.

    Raking where few features drifted and raking these leaves all features balanced, since its weights can be read
    and argued with; else the classifier, which sees all features and how they go together.

    Args:
        request: its settings.
        sides: samples.
        design: of the features.
        live: sums over the live rows.
        result: of the check that found the drift.

    Raises:
        ConfigError: a setting names no feature, or there is nothing to rake.
        ReweightError: raking was asked for and cannot be done.
    """
    how = request.monitor.reweight
    folds = folds_of(sides.numbers, seed=how.seed)
    model = WeightsModel.fit(design, sides.known, sides.now, folds, seed=how.seed)
    columns = _columns(request, sides.encoding.names, result)
    if how.method == "raking":
        try:
            raking, why = _raking(sides, columns), "it was asked for"
        except ValueError as error:
            raise ReweightError(f"{error}: rake other columns, or use the classifier") from error
        return Weigher("raking", why, model, raking, how.mix, how.seed)
    found: Raking | None = None
    why = "it was asked for"
    if how.method == "auto":
        found, why = _suits(sides, design, live, columns, how.mix)
    return Weigher("classifier" if found is None else "raking", why, model, found, how.mix, how.seed)


def worst_after(found: tuple[Difference, ...]) -> Difference | None:
    """The column that is farthest off with weights."""
    return max(found, key=lambda each: abs(each.after), default=None)


def _columns(request: ReweightRequest, names: tuple[str, ...], result: CheckResult) -> list[str]:
    """The columns to rake: those that the settings name, or those that drifted."""
    how, setting = request.monitor.reweight, f"monitors.{request.name}.reweight.columns"
    for name in how.columns:
        if name not in names:
            listed = ", ".join(names[:20])
            raise ConfigError(
                [f"{setting}: {name!r} is no feature that weights can depend on (these are {listed})"]
            )
    drifted = dict.fromkeys(f.column or f.name for f in result.drifted)  # in a segment, its column
    columns = list(dict.fromkeys(how.columns)) or [column for column in drifted if column in names]
    if how.method == "raking" and not columns:
        raise ConfigError(
            [f"{setting}: name the columns to rake, since no feature of the window drifted by itself"]
        )
    return columns


def _raking(sides: Sides, columns: Sequence[str]) -> Raking:
    encoding = sides.encoding
    places = [encoding.names.index(name) for name in columns]
    margins = [Margin.fit(j, encoding.specs[j], sides.known[:, j], sides.now[:, j]) for j in places]
    return rake(margins, sides.known)


def _suits(
    sides: Sides, design: Design, live: Sums, columns: Sequence[str], mix: float
) -> tuple[Raking | None, str]:
    """The raking where that is enough, and why it is or is not."""
    if not columns:
        return None, "no single feature drifted, so there is nothing to rake"
    if len(columns) > FEW:
        return None, f"{len(columns)} features drifted, and raking is for {FEW} at most"
    by = ", ".join(columns)
    try:
        raking = _raking(sides, columns)
    except ValueError as error:
        return None, f"{by} cannot be raked: {error}"
    if not raking.converged:
        return None, f"raking {by} did not converge"
    after = Sums.of(design, sides.known, np.minimum(raking.weights(sides.known), 1 / mix))
    worst = worst_after(differences(design, after, live))
    if worst is not None and abs(worst.after) > BALANCED:
        return None, f"raking {by} leaves {worst.column!r} {abs(worst.after):.2f} standard deviations off"
    return raking, f"only {by} drifted, and raking balances all {len(sides.encoding.names)} features"
