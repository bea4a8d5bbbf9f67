"""What weights do, and what speaks against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift_monitor.actions.reweight import ReweightError
from drift_monitor.actions.weights_manifest import (
    Again,
    Balance,
    CellFactor,
    Diagnostics,
    FeatureAgain,
    GroupWeight,
    Raked,
)
from drift_monitor.actions.weights_method import BALANCED, Sides, Weigher, worst_after
from drift_monitor.core.classifier import UNSEEN
from drift_monitor.core.fold import accepts, profile_buckets
from drift_monitor.core.policy import Alarm
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec, Profile, Spec
from drift_monitor.core.raking import Raking
from drift_monitor.core.verdict import EFFECT, judge
from drift_monitor.core.weights import Difference, Sums, weighted_auc, worst_by_feature
from drift_monitor.core.weights_profile import weighted_profile

LEAST: Final = 200.0
"""Effective rows that must be left."""
OUTSIDE: Final = 0.01
"""Share of live rows that may lie outside what the reference has, beside those that do by chance."""
_FLOAT32: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Outside:
    """Live rows that are unlike anything in the reference.

    Attributes:
        share: of the live rows: beyond the reference's range, of a new category, or missing where nothing was.
        chance: the share that is beyond the range of some number by chance: the next row of n + 1 is the smallest
            or the largest of all with probability 2 / (n + 1).
        by: feature -> share, the largest first; those that have any.
    """

    share: float
    chance: float
    by: dict[str, float]


def outside_of(sides: Sides, reference: Profile) -> Outside:
    """The live rows outside what the reference has.

    Args:
        sides: samples.
        reference: the whole of it on its own cells.
    """
    anywhere = np.zeros(len(sides.now), np.bool_)
    by: dict[str, float] = {}
    chance = 0.0
    for j, spec in enumerate(sides.encoding.specs):
        column = sides.now[:, j]
        missing = np.isnan(column)
        beyond = missing & (reference.features[spec.name].missing == 0)
        if isinstance(spec, CategoricalSpec):
            beyond |= column == UNSEEN
        elif isinstance(spec, NumericSpec):
            # the encoding rounds to 24 bits, so the ends of the range are rounded too
            low, high = np.clip(spec.edges[[0, -1]], -_FLOAT32, _FLOAT32).astype(np.float32).astype(np.float64)
            beyond |= ~missing & ((column < low) | (column > high))
            chance += 2 / (reference.features[spec.name].n + 1)
        if beyond.any():
            by[spec.name] = float(beyond.mean())
        anywhere |= beyond
    return Outside(float(anywhere.mean()), min(chance, 1.0), dict(sorted(by.items(), key=lambda item: -item[1])))


def diagnose(
    weigher: Weigher,
    sums: Sums,
    found: tuple[Difference, ...],
    outside: Outside,
    weights: Floats,
) -> Diagnostics:
    """What the weights do.

    Args:
        weigher: the method.
        sums: over all training rows.
        found: standardised mean differences.
        outside: live rows outside what the reference has.
        weights: of the sampled training rows, shape (n,).

    Raises:
        ReweightError: all weights are 0.
    """
    if not sums.squares:
        raise ReweightError("all weights are 0: no training row is like the live rows")
    model = weigher.model
    is_live = np.arange(len(model.scores)) >= model.training
    return Diagnostics(
        rows=sums.rows,
        mean=sums.weight / sums.rows,
        largest=sums.largest,
        skew=sums.skew,
        effective_sample_size=sums.effective,
        design_effect=sums.design_effect,
        at_cap=sums.capped,
        auc=model.auc,
        auc_after=weighted_auc(model.scores, is_live, weights),
        difference_before=max((abs(each.before) for each in found), default=0.0),
        difference_after=max((abs(each.after) for each in found), default=0.0),
        outside=outside.share,
        outside_by_chance=outside.chance,
        outside_by=outside.by,
    )


def refusals(
    diagnostics: Diagnostics, found: tuple[Difference, ...], weigher: Weigher, changed: str
) -> tuple[str, ...]:
    """What speaks against any use of the weights, whatever the gate says, in sentences.

    Args:
        diagnostics: of all training rows.
        found: standardised mean differences.
        weigher: the method.
        changed: that the relation of label and features changed; empty when it did not. It is only said of weights
            that nothing else speaks against, since it is found with them.
    """
    refused = []
    worst = worst_after(found)
    if worst is not None and abs(worst.after) > BALANCED:
        refused.append(
            f"the weighted training rows are still unlike the live ones: {worst.column!r} is "
            f"{abs(worst.after):.2f} standard deviations off, {BALANCED:g} may be left"
        )
    if diagnostics.effective_sample_size < LEAST:
        refused.append(
            f"the weights leave {diagnostics.effective_sample_size:,.0f} effective rows of "
            f"{diagnostics.rows:,}, {LEAST:,.0f} are needed: too few training rows are like the live ones"
        )
    if diagnostics.outside > OUTSIDE + diagnostics.outside_by_chance:
        first = next(iter(diagnostics.outside_by), "")
        refused.append(
            f"{diagnostics.outside:.1%} of the live rows lie outside what the training data has (most by "
            f"{first}), {OUTSIDE + diagnostics.outside_by_chance:.1%} may: no weight of old rows stands for them"
        )
    raking = weigher.raking
    if raking is not None and not raking.converged:
        refused.append(
            f"raking did not converge: shares are off by up to {raking.error:.2%} after {raking.rounds} rounds, "
            "because the columns contradict each other"
        )
    if changed and not refused:  # where the weights do not reach the live rows, residuals differ for that
        refused.append(changed)
    return tuple(refused)


def balance_of(found: tuple[Difference, ...]) -> tuple[Balance, ...]:
    """The worst column of each feature, most shifted first."""
    before, after = (worst_by_feature(found, after=side) for side in (False, True))
    return tuple(
        Balance(
            feature=name,
            column=first.column,
            before=first.before,
            column_after=after[name].column,
            after=after[name].after,
        )
        for name, first in before.items()
    )


def told_raking(raking: Raking) -> Raked:
    """How raking went, for the manifest."""
    return Raked(
        columns=tuple(margin.name for margin in raking.margins),
        rounds=raking.rounds,
        error=raking.error,
        unreachable=raking.unreachable,
        factors=tuple(
            CellFactor(column=f.column, cell=f.cell, factor=f.factor, training=f.training, live=f.live)
            for f in raking.table()
        ),
        groups=tuple(GroupWeight(cells=g.cells, weight=g.weight, share=g.share) for g in raking.groups),
    )


def judge_again(alarm: Alarm, watched: Sequence[Spec], sides: Sides, weights: Floats) -> Again | None:
    """The verdict on the live rows, with the training rows as the reference, without and with weights.

    Thresholds are those for independent rows: calibrated ones are about days of the reference, not about weights.

    Args:
        alarm: the policy.
        watched: features and prediction that both sides have.
        sides: samples.
        weights: of the sampled training rows, shape (n,).

    Returns:
        Both; None where no weighted training row has a value.
    """
    specs = [
        spec
        for spec in watched
        if all(accepts(spec.kind, side.schema.field(spec.name).type) for side in (sides.training, sides.live))
    ]
    batch = sides.live.select([spec.name for spec in specs]).combine_chunks().to_batches()
    live = profile_buckets(specs, batch)[0]
    equal = np.ones(sides.training.num_rows)
    found = []
    for side in (equal, weights):
        base = weighted_profile(specs, sides.training, side)
        kept = [spec for spec in specs if base.features[spec.name].n]
        if not kept:
            return None
        found.append(judge(kept, base, live, (), alarm))
    before, after = found
    later = {feature.name: feature for feature in after.features}
    features = tuple(
        FeatureAgain(
            feature=feature.name,
            effect=feature.statistics[EFFECT].statistic,
            effect_after=later[feature.name].statistics[EFFECT].statistic,
            drifted=feature.drifted,
            drifted_after=later[feature.name].drifted,
            moved_after=later[feature.name].effect or "",
        )
        for feature in before.features
        if EFFECT in feature.statistics and EFFECT in getattr(later.get(feature.name), "statistics", {})
    )
    return Again(
        before=f"{before.outcome}: {before.reason}",
        after=f"{after.outcome}: {after.reason}",
        drift_before=before.outcome == "drift",
        drift_after=after.outcome == "drift",
        features=features,
    )
