"""What is promised about false alerts, in words."""

from __future__ import annotations

import math

from drift_monitor.core.policy import Alarm
from drift_monitor.core.threshold import DRIFT_SHARE, MONTH, Threshold


def promise(threshold: Threshold | None, alarm: Alarm, why_not: str = "thresholds are not calibrated") -> str:
    """One sentence about a threshold.

    Args:
        threshold: of the drift lane; None without a calibration.
        alarm: the policy.
        why_not: why there is no calibration.

    Example:
        >>> promise(Threshold(value=9.0, basis="calibrated", budget=1, days=56), Alarm())
        "at most 1 false alert a month on average, if live days are like the reference's 56"
        >>> few = Threshold(value=9.0, basis="extrapolated", budget=1, days=28, needed=14)
        >>> promise(few, Alarm()).partition(": ")[2]
        '28 days of reference can promise 1.5 at best, and 14 more are needed'
        >>> promise(None, Alarm(thresholds={"psi": 0.2}))
        'no promise: fixed thresholds are set'
    """
    if alarm.thresholds or any(alarm.features.values()):
        return "no promise: fixed thresholds are set"
    if threshold is None or threshold.basis == "none":
        more = threshold.needed if threshold is not None else 0
        short = (
            f"the reference has {threshold.days} days that can be replayed" if threshold is not None else why_not
        )
        return f"no promise: {short}" + (f", {more} more are needed" if more else "")
    alerts = f"{threshold.budget:g} false alert{'s' * (threshold.budget != 1)} a month"
    if threshold.basis == "calibrated":
        return f"at most {alerts} on average, if live days are like the reference's {threshold.days}"
    if threshold.basis == "independent_rows":
        return f"at most {alerts} on average; assumes independent rows, since the data have no usable times"
    best = _least(threshold.days)
    return (
        f"extrapolated to {alerts}: {threshold.days} days of reference can promise {best:g} at best, "
        f"and {threshold.needed} more are needed"
    )


def _least(days: int) -> float:
    """The smallest number of false alerts a month that so many days can promise, rounded up to a tenth."""
    return math.ceil(10 * MONTH / ((days + 1) * DRIFT_SHARE)) / 10
