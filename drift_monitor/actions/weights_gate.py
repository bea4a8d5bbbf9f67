"""The gate with the user's learner and labels: does weighting help, and is the relation still the same?"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import pyarrow as pa

from drift_monitor.actions.weights_labels import (
    MOST_CLASSES,
    Estimator,
    classes_of,
    is_class,
    load_estimator,
    target_of,
)
from drift_monitor.actions.weights_manifest import Gate, Trial
from drift_monitor.actions.weights_method import Sides
from drift_monitor.core.design import Design
from drift_monitor.core.gate import ERRORS, FEWEST, FOLDS, Evidence, Target, compared, held_out, on_live
from drift_monitor.core.learner import Cells
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.relation import Changed, relation

ROWS: Final = 20_000
"""Training rows that are tried on at most: any estimator may be slow."""
_DEFAULT: Final = "gradient boosting of scikit-learn"
_LOSSES: Final = {"regression": "squared error", "classification": "Brier score"}
_Task = Literal["regression", "classification"]


def judge_gate(
    sides: Sides, design: Design, weights: Floats, label: str | None, learner: str | None, monitor: str, seed: int
) -> tuple[Gate, str]:
    """Try the learner with and without weights.

    Args:
        sides: samples of both sides.
        design: of the features.
        weights: of the sampled training rows, shape (n,).
        label: name of its column.
        learner: import path; None for gradient boosting.
        monitor: name, for messages.
        seed: of folds and models.

    Returns:
        The gate, and a sentence when the relation of label and features changed; empty when it did not, or when
        there are too few live labels to tell.

    Raises:
        ConfigError: the learner cannot be used.
    """
    known = None if learner is None else load_estimator(learner, f"monitors.{monitor}.reweight.learner", seed)
    name = _DEFAULT if known is None else known.path
    if label is None or label not in sides.training.column_names:
        what = "columns.label is not set" if label is None else f"the training file has no column {label!r}"
        return _untried(name, f"whether the weights help cannot be tried, because {what}"), ""
    column = sides.training.column(label).combine_chunks()
    classifier = is_class(column) if known is None else known.classifier
    classes = classes_of(column) if classifier else None
    if classes is not None and len(classes) > MOST_CLASSES:
        return _untried(name, f"label {label!r} has {len(classes):,} classes: {MOST_CLASSES} can be tried"), ""
    try:
        target, rows = target_of(column, classes)
    except pa.ArrowException:
        return _untried(name, f"label {label!r} is {column.type}, which {name} cannot predict"), ""
    rng = np.random.default_rng([seed, 5])
    chosen = np.sort(rng.permutation(len(rows))[:ROWS])
    target, rows = target.take(chosen), rows[chosen]
    w = weights[rows]
    if len(rows) < FEWEST or not w.any():
        return _untried(name, f"{len(rows)} sampled training rows have a label, {FEWEST} are needed to try"), ""
    trial = _Try(sides, design, rows, target, w, rng.permutation(len(rows)) % FOLDS, classes, label)
    return trial.gate(name, known, seed)


class _Try:
    """Labelled rows of both sides."""

    def __init__(
        self,
        sides: Sides,
        design: Design,
        rows: Ints,
        target: Target,
        weights: Floats,
        folds: Ints,
        classes: pa.Array | None,
        label: str,
    ) -> None:
        self._sides, self._design, self._rows = sides, design, rows
        self._target, self._weights, self._folds = target, weights, folds
        self._labels: Target | None = None
        self._live_rows = np.empty(0, np.int64)
        if label in sides.live.column_names:
            labels, self._live_rows = target_of(sides.live.column(label).combine_chunks(), classes)
            self._labels = labels if len(self._live_rows) >= FEWEST else None

    def gate(self, name: str, known: Estimator | None, seed: int) -> tuple[Gate, str]:
        """Both trials, and the relation."""
        sides, rows = self._sides, self._rows
        cells = Cells.fit(sides.encoding, sides.known[rows])
        boosting = cells.learner(classifier=bool(self._target.classes), seed=seed)
        binned = cells.values(sides.known[rows])
        make = boosting if known is None else known.make
        columns = binned if known is None else self._design.values(sides.known[rows])
        weights, folds, target = self._weights, self._folds, self._target
        live = sides.now[self._live_rows if self._labels is not None else []]
        seen = cells.values(live)
        there = seen if known is None else self._design.values(live)
        plain, plain_live = held_out(make, columns, target, None, folds, there)
        weighed, _ = held_out(make, columns, target, weights, folds, there[:0])
        trials = [compared("cross-validation", target.wanted, plain, weighed, weights)]
        changed: Changed | None = None
        if self._labels is not None:
            trials.append(on_live(make, columns, target, weights, there, self._labels))
            if known is not None:  # a rigid learner's residuals say more of the learner than of the relation
                plain, plain_live = held_out(boosting, binned, target, None, folds, seen)
            changed = relation(
                target.wanted - plain,
                weights,
                self._design.values(sides.known[rows]),
                self._labels.wanted - plain_live,
                self._design.values(live),
                self._design.labels,
            )
        task: _Task = "classification" if self._target.classes else "regression"
        adopt, why = _decided(name, task, trials)
        found = Gate(
            learner=name,
            task=task,
            trials=tuple(_told(each) for each in trials),
            adopt=adopt,
            why=why,
            relation=None if changed is None else changed.change,
            relation_where="" if changed is None else changed.where,
        )
        return found, "" if changed is None or not changed.matters else self._sentence(changed)

    def _sentence(self, changed: Changed) -> str:
        where = "" if changed.where == "everywhere" else f" along {changed.where}"
        return (
            f"what the label does at equal features has changed: on {len(self._live_rows):,} labelled live rows "
            f"the residuals moved by {abs(changed.change):.2f} standard deviations{where} "
            f"({abs(changed.score):.1f} standard errors), and no weights of old rows can teach that: retrain on "
            "labelled live rows"
        )


def _untried(learner: str, why: str) -> Gate:
    return Gate(learner=learner, task="", trials=(), adopt=False, why=f"{why}; so they are not adopted")


def _told(each: Evidence) -> Trial:
    return Trial(
        basis=each.basis,
        rows=each.rows,
        unweighted=each.unweighted,
        weighted=each.weighted,
        gain=each.gain,
        error=each.error,
        helps=each.helps,
    )


def _decided(learner: str, task: _Task, trials: list[Evidence]) -> tuple[bool, str]:
    """The last trial decides; the sentence says what it found."""
    last = trials[-1]
    loss = _LOSSES[task]
    where = (
        f"on {last.rows:,} labelled live rows"
        if last.basis == "live labels"
        else f"in importance-weighted cross-validation on {last.rows:,} training rows"
    )
    if not last.error and not last.gain:
        return False, f"weighting would not help: it changes nothing that {learner} predicts"
    errors = last.gain / last.error if last.error else float("inf")
    if last.helps:
        return True, (
            f"the weights lower the {loss} of {learner} by {last.relative:.1%} {where} "
            f"({errors:.1f} standard errors)"
        )
    if last.gain > 0:
        return False, (
            f"it is not sure that weighting would help: the {loss} of {learner} falls by {last.relative:.1%} "
            f"{where}, which is {errors:.1f} standard errors; {ERRORS:g} are needed"
        )
    return False, (
        f"weighting would not help: the {loss} of {learner} rises by {-last.relative:.1%} {where}; it is right "
        "where the live rows are without weights, which only cost it rows"
    )
