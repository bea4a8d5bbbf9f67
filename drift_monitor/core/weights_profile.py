"""Weighted rows as a profile, so that the verdict on a window can be drawn again with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from drift_monitor.core.arrow import as_arrow
from drift_monitor.core.classifier import Encoding
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import FeatureProfile, Floats, Profile, Spec


def weighted_profile(specs: Sequence[Spec], rows: pa.Table, weights: Floats) -> Profile:
    """The profile of as many rows as the weights are worth, by Kish's effective sample size.

    Statistics and their critical values then allow for what weighting costs. For each feature the rows are sorted
    by it and drawn at even steps of the summed weights (systematic sampling), so that the distribution function of
    what is drawn is nowhere further from the weighted one than one row.

    Args:
        specs: of the features; each has a column.
        rows: n of them, n > 0.
        weights: >= 0, shape (n,), not all 0.
    """
    size = max(1, round(float(weights.sum() ** 2 / (weights**2).sum())))
    features: dict[str, FeatureProfile] = {}
    for spec in specs:
        order = np.argsort(Encoding((spec,)).matrix(rows)[:, 0], kind="stable")
        summed = np.cumsum(weights[order])
        steps = (np.arange(size) + 0.5) / size * summed[-1]
        picked = order[np.minimum(np.searchsorted(summed, steps), len(order) - 1)]
        column = rows.column(spec.name).combine_chunks().take(as_arrow(picked))
        batch = pa.RecordBatch.from_arrays([column], names=[spec.name])
        features |= profile_buckets((spec,), [batch])[0].features
    return Profile(size, features)
