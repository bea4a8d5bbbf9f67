"""What is told of weights: `manifest.json` beside them. Nothing in it depends on the clock or on folders."""

from __future__ import annotations

from typing import Final, Literal

from drift_monitor.core.types import Finite, Outcome, Value, Window

FORMAT: Final = 1


class File(Value):
    """A file and what is in it.

    Attributes:
        name: without its folder.
        bytes: its length.
        sha256: of its content.
    """

    name: str
    bytes: int
    sha256: str


class Inputs(Value):
    """What the weights were made of.

    Attributes:
        reference: version of the reference.
        reference_sha256: of it.
        training: the files of the training rows, in the order of their rows.
        row_id: what `row_id` is: the name of the id column; empty for the number of the row, from 0.
        training_sample: training rows that the method and the gate were fitted on.
        window: whose rows the training rows are to look like; null for the whole source.
        live_rows: in the window.
        live_sample: of these looked at.
        live_sha256: of the sample: the same rows in any order and any files give the same.
        labelled: live rows of the sample that have a label; null without a label column.
    """

    reference: str
    reference_sha256: str
    training: tuple[File, ...]
    row_id: str
    training_sample: int
    window: Window | None
    live_rows: int
    live_sample: int
    live_sha256: str
    labelled: int | None


class Diagnostics(Value):
    """What the weights do, over all training rows.

    Attributes:
        rows: training rows.
        mean, largest: weight.
        skew: the largest weight over the mean.
        effective_sample_size: Kish's.
        design_effect: rows over effective rows.
        at_cap: share of the rows whose weight is above 90% of the bound 1/mix.
        auc: of the classifier, out of fold: 0.5 where live and training rows cannot be told apart.
        auc_after: the same with the training rows weighted.
        difference_before, difference_after: largest standardised mean difference of any column.
        outside: share of the live rows outside what the reference has: beyond its range, of a new category, or
            missing where nothing was.
        outside_by_chance: the share that is beyond the range of some number by chance, since a range is that of as
            many rows as the reference has.
        outside_by: feature -> that share, those that have any.
    """

    rows: int
    mean: Finite
    largest: Finite
    skew: Finite
    effective_sample_size: Finite
    design_effect: Finite
    at_cap: Finite
    auc: Finite
    auc_after: Finite
    difference_before: Finite
    difference_after: Finite
    outside: Finite
    outside_by_chance: Finite
    outside_by: dict[str, Finite] = {}


class Balance(Value):
    """A feature's standardised mean difference from the live rows.

    Attributes:
        feature: name.
        column: of its columns the one that is farthest off: itself, or one of its categories.
        before: without weights.
        column_after, after: the same with weights.
    """

    feature: str
    column: str
    before: Finite
    column_after: str
    after: Finite


class CellFactor(Value):
    """What raking multiplies the rows of a cell by.

    Attributes:
        column: that was raked.
        cell: in words.
        factor: 1 on average over the training rows.
        training, live: share of the rows.
    """

    column: str
    cell: str
    factor: Finite
    training: Finite
    live: Finite


class GroupWeight(Value):
    """The weight of the rows that are in all of these cells.

    Attributes:
        cells: in words, one a column.
        weight: of each row.
        share: of the training rows.
    """

    cells: tuple[str, ...]
    weight: Finite
    share: Finite


class Raked(Value):
    """How raking went.

    Attributes:
        columns: that were raked.
        rounds: of proportional fitting.
        error: largest difference of a share that was left.
        unreachable: share of live rows in cells that no training row is in.
        factors: of every cell.
        groups: those whose share of the rows changed most.
    """

    columns: tuple[str, ...]
    rounds: int
    error: Finite
    unreachable: Finite
    factors: tuple[CellFactor, ...]
    groups: tuple[GroupWeight, ...]


class Trial(Value):
    """The learner with and without weights.

    Attributes:
        basis: `cross-validation`: held-out training rows that count with their weights; or `live labels`.
        rows: that were predicted.
        unweighted, weighted: mean loss: squared error, or Brier's score of a classification.
        gain, error: the difference and its standard error.
        helps: whether the gain exceeds two standard errors.
    """

    basis: Literal["cross-validation", "live labels"]
    rows: int
    unweighted: Finite
    weighted: Finite
    gain: Finite
    error: Finite
    helps: bool


class Gate(Value):
    """Whether the weights help, and how that was found.

    Attributes:
        learner: import path of the estimator.
        task: what it does; empty where nothing was tried.
        trials: the last one decides.
        adopt: whether the weights help.
        why: in a sentence.
        relation: how much the relation of label and features changed on live labels, in standard deviations of
            the residuals; null without live labels.
        relation_where: along which column.
    """

    learner: str
    task: Literal["regression", "classification", ""]
    trials: tuple[Trial, ...]
    adopt: bool
    why: str
    relation: Finite | None = None
    relation_where: str = ""


class FeatureAgain(Value):
    """A feature in the verdict that was drawn again.

    Attributes:
        feature: name.
        effect: largest difference of the distribution functions, or of one category's share, without weights.
        effect_after: with them.
        drifted, drifted_after: by thresholds for independent rows.
        moved_after: what still differs, in words.
    """

    feature: str
    effect: Finite
    effect_after: Finite
    drifted: bool
    drifted_after: bool
    moved_after: str


class Again(Value):
    """The window against the training rows, without and with weights, on the same samples.

    Attributes:
        before, after: verdict in words.
        drift_before, drift_after: the same as true or false.
        features: most drifted first.
    """

    before: str
    after: str
    drift_before: bool
    drift_after: bool
    features: tuple[FeatureAgain, ...]


class WeightsManifest(Value):
    """All that is told of weights.

    Attributes:
        format: of this file.
        monitor: name.
        model: name and version of the model that is watched.
        verdict: on the window, by the monitor as it is configured.
        verdict_reason: in a sentence.
        method: that was used; `none` where the window cannot be trusted.
        method_why: why that one.
        mix: the bound of the weights is 1/mix.
        seed: of samples, folds and models.
        inputs, diagnostics, raked, gate, again: null where nothing was computed.
        features: that the weights depend on.
        left_out: watched columns that they do not depend on, and why.
        balance: most shifted first.
        refused: what speaks against any use of the weights, in sentences.
        adopt: whether to use them: nothing speaks against it, and the gate found that they help.
        why: in a sentence.
        files: written beside this one.
        packages: versions.
    """

    format: Literal[1] = FORMAT
    monitor: str
    model: str
    verdict: Outcome
    verdict_reason: str
    method: Literal["classifier", "raking", "none"]
    method_why: str
    mix: Finite
    seed: int
    inputs: Inputs | None = None
    features: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    diagnostics: Diagnostics | None = None
    balance: tuple[Balance, ...] = ()
    raked: Raked | None = None
    gate: Gate | None = None
    again: Again | None = None
    refused: tuple[str, ...] = ()
    adopt: bool
    why: str
    files: tuple[File, ...] = ()
    packages: dict[str, str] = {}
