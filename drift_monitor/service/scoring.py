"""One window on the scales of its monitor's calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from drift_monitor.core.alarm import Live, RunScore, score_runs, with_channels
from drift_monitor.core.profile import Profile, Spec
from drift_monitor.core.scores import fine_counts
from drift_monitor.core.types import Window
from drift_monitor.service.calibrations import Known

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def cuts(window: Window | None, alarms: Known) -> list[int]:
    """Starts of the stretches whose profiles are kept apart: shorter windows at the end, and what is before."""
    if window is None:
        return [0]
    start, end = ((t - _EPOCH) // _MICROSECOND for t in (window.start, window.end))
    watch, calibration = alarms.watch, alarms.calibration
    if calibration is None or window.length != watch.lengths[-1]:
        return [start]
    backs = {end - (k + 1) * n // _MICROSECOND for n in watch.lengths[:-1] for k in range(watch.tiles(n))}
    tails = {end - k * n // _MICROSECOND for n in watch.lengths[:-1] for k in range(watch.tiles(n))}
    return sorted({start} | {t for t in backs | tails if start < t < end})


def score(
    alarms: Known,
    specs: Sequence[Spec],
    window: Window,
    profiles: Mapping[int, Profile],
    values: Mapping[str, float],
) -> RunScore | None:
    """The run on the scales of its calibration."""
    watch, calibration = alarms.watch, alarms.calibration
    if calibration is None:
        return None
    if calibration.drift.basis != "independent_rows" and window.length != watch.lengths[-1]:
        return None
    end, width = (window.end - _EPOCH) // _MICROSECOND, round(calibration.bucket * 1e6)
    present = [s.name for s in specs if all(s.name in p.features for p in profiles.values())]
    counts: dict[str, dict[int, Any]] = {name: {} for name in present}
    since, run = {}, {}
    for length in watch.lengths:
        seconds, micros = int(length.total_seconds()), length // _MICROSECOND
        ends = [end - k * micros for k in range(watch.tiles(length))]
        since[seconds] = np.array(ends) // width
        run[seconds] = np.zeros(len(ends), np.int64)
        for name in present:
            if calibration.drift.basis == "independent_rows":  # the whole, whatever its times are
                ends = [max(profiles) + 1]
                micros = ends[0] - min(profiles)
            rows = [
                sum(
                    (fine_counts(p.features[name]) for start, p in profiles.items() if e - micros <= start < e),
                    start=0 * fine_counts(next(iter(profiles.values())).features[name]),
                )
                for e in ends
            ]
            counts[name][seconds] = np.stack(rows)
    scored = score_runs(calibration, watch, specs, alarms.yardsticks, Live(1, since, run, counts))[0]
    return with_channels(scored, calibration, values)
