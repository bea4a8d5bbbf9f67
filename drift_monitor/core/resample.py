"""Calibration of data without event times: windows drawn from the reference, as if rows were independent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from drift_monitor.core.calibration import Calibration, FeatureCalibration, Watch, channel
from drift_monitor.core.profile import Profile, Spec
from drift_monitor.core.replay import comparable, decisive, floor_of, scale_of
from drift_monitor.core.scores import fine_counts, layout, scores
from drift_monitor.core.threshold import DRIFT_SHARE, MONTH, Threshold

_LEAST, _MOST = 2000, 20_000  # windows drawn
_TIMES = 10  # as many windows as one of which may alarm


def resample(
    watch: Watch, specs: Sequence[Spec], reference: Profile, sha256: str, *, rows: int, seed: int
) -> Calibration:
    """Score windows drawn from the reference, each against a reference drawn anew.

    Features are drawn one by one, so they are independent; where they are not, the largest score is smaller than
    here, and there are fewer false alerts.

    Args:
        watch: the monitor; its budget must be set.
        specs: the features that are watched.
        reference: the whole of it.
        sha256: of the reference.
        rows: of a window.
        seed: of the draws.
    """
    budget = watch.alarm.false_alerts_per_month or 1.0
    runs = MONTH * 86_400 / watch.step.total_seconds()
    chance = min(0.5, DRIFT_SHARE * budget / runs)
    draws = int(min(_MOST, max(_LEAST, math.ceil(_TIMES / chance))))
    seconds = int(watch.lengths[-1].total_seconds())
    rng = np.random.default_rng(seed)
    features: dict[str, FeatureCalibration] = {}
    best, total, count = np.full(draws, -np.inf), np.zeros(draws), 0
    for spec in specs:
        profile = reference.features[spec.name]
        fine = fine_counts(profile)
        cells = layout(spec, fine)
        counts = cells.group(fine)
        n = round(rows * profile.n / max(reference.rows, 1))
        if n < watch.alarm.min_rows:
            continue
        p = counts / counts.sum()
        found = scores(cells, rng.multinomial(n, p, draws), rng.multinomial(profile.n, p, draws))
        ratios, scales = {}, {}
        for name in watch.methods(spec):
            values = comparable(name, found.values[name])
            scales[name] = scale_of(values, floor_of(name, cells))
            ratios[name] = scales[name].ratio(values)
        best = np.maximum(best, decisive(ratios, found.effect, watch.floor(spec)))
        total += next(iter(ratios.values()))
        count += 1
        features[spec.name] = FeatureCalibration(scales={seconds: dict(scales)}, caps={seconds: 2**53})
    channels = {"features": best}
    together = {}
    if count > 1 and watch.alarm.drifted_features == 1:
        scale = scale_of(total / count, 0.0 + 1e-9)
        together[seconds] = scale
        channels["together"] = scale.ratio(total / count)
    # an effect below its floor leaves no score, which then is below what is typical of any
    typical = {
        channel(name, seconds): float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        for name, values in channels.items()
    }
    largest = np.maximum.reduce([values - typical[channel(name, seconds)] for name, values in channels.items()])
    value = max(0.0, float(np.quantile(np.maximum(largest, -1e9), 1 - chance)))
    none = Threshold(value=None, basis="none", budget=0.0, days=0)
    return Calibration(
        reference=sha256,
        context="none",
        bucket=watch.step.total_seconds(),
        step=watch.step.total_seconds(),
        offset=0.0,
        lengths=(seconds,),
        block=0,
        runs=draws,
        features=features,
        together=together,
        typical=typical,
        drift=Threshold(value=value, basis="independent_rows", budget=budget, days=0),
        quality=none,
        seed=seed,
    )
