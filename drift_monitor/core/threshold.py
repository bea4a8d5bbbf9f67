"""From the scores of the replayed days to a threshold, and what can be promised with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from drift_monitor.core.episode import Reason, step
from drift_monitor.core.policy import Alarm
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.types import Basis, CheckResult, Episode, Finite, Lane, Outcome, Value, Window

MONTH: Final = 30.0
"""Days."""
DRIFT_SHARE: Final = 0.7
"""Of the budget that the drift lane spends: days that follow each other are alike."""
QUALITY_SHARE: Final = 0.8
LEAST: Final = 3.0
"""The lowest threshold: a reference without any wander must not make every trifle news."""
HEADROOM: Final = 1.2
"""A threshold is so many times the score that it follows from, since live days lie beyond the reference."""
LEAST_DAYS: Final = 14
"""Below so many days nothing can be learnt from a replay, not even by extrapolation."""
LOWEST: Final = -1e9
"""Stands for a score of minus infinity, which JSON has not."""


class Threshold(Value):
    """The threshold of a lane and what it promises.

    Attributes:
        value: `HEADROOM` times the score that it follows from; a score above it fails. None where nothing can be
            promised.
        basis: `calibrated` by rank among the replayed days; `extrapolated` by a Gumbel distribution fitted to
            them; `independent_rows` by resampling rows; or `none`.
        budget: false alerts a month that were asked for.
        days: judged in the replay.
        rank: of that score among the days', 1 for the largest; None unless calibrated.
        openings: episodes that opened in the replay at this value.
        needed: more days that a calibrated value would take; 0 when it is one.
        daily: the score of each day, in order.
    """

    value: Finite | None
    basis: Basis
    budget: Finite
    days: int
    rank: int | None = None
    openings: int = 0
    needed: int = 0
    daily: tuple[Finite, ...] = ()


def choose_threshold(daily: Floats, budget: float, openings: Callable[[float], int], *, share: float) -> Threshold:
    """The lowest threshold that keeps the promise on the replayed days.

    Of N + 1 days alike, the newest is among the k highest with probability k / (N + 1) [1], which is the budget
    for k = budget (N + 1) / 30. Days that follow each other are alike in more than that, so only a share is spent.

    Args:
        daily: the days' scores, each the threshold below which an alert could open on that day.
        budget: false alerts a month.
        openings: episodes that open in the replay at a threshold.
        share: of the budget that is spent.

    Returns:
        Where the days suffice: going down from the highest daily score, the last at which fewer than k episodes
        open. Else extrapolated, or none (`LEAST_DAYS`).

    References:
        [1] Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world, chapter 2.
    """
    days = len(daily)
    finite = np.maximum(daily, LOWEST)
    rank = math.floor(share * budget * (days + 1) / MONTH + 1e-9)
    needed = 0 if rank else math.ceil(MONTH / (share * budget) - 1 - days)
    scores = tuple(finite.tolist())
    if rank:
        value = float(finite.max())
        for candidate in np.unique(finite)[::-1].tolist():
            if openings(candidate) >= rank:
                break
            value = candidate
        rank = int((finite > value).sum()) + 1
        value = max(LEAST, HEADROOM * value)
        return Threshold(
            value=value,
            basis="calibrated",
            budget=budget,
            days=days,
            rank=rank,
            openings=openings(value),
            daily=scores,
        )
    known = finite[finite > LOWEST]  # on the first day no alert could open where two failed runs are asked for
    if days < LEAST_DAYS or len(known) < 2:
        return Threshold(value=None, basis="none", budget=budget, days=days, needed=needed, daily=scores)
    value = max(LEAST, HEADROOM * gumbel_quantile(known, share * budget / MONTH))
    return Threshold(
        value=value,
        basis="extrapolated",
        budget=budget,
        days=days,
        openings=openings(value),
        needed=needed,
        daily=scores,
    )


def gumbel_quantile(values: Floats, exceeded: float) -> float:
    """The value that a Gumbel distribution fitted to maxima exceeds with a probability.

    Fitted by probability-weighted moments [1].

    References:
        [1] Landwehr, Matalas & Wallis (1979), Probability weighted moments compared with some traditional
            techniques in estimating Gumbel parameters and quantiles.

    Example (the 99% quantile of a Gumbel(0, 1) is -ln(-ln 0.99)):
        >>> import numpy as np
        >>> u = (np.arange(1000) + 0.5) / 1000
        >>> round(gumbel_quantile(-np.log(-np.log(u)), 0.01), 1)
        4.6
    """
    ordered = np.sort(values)
    n = len(ordered)
    b0 = float(ordered.mean())
    b1 = float((np.arange(n) * ordered).sum() / (n * (n - 1)))
    spread = max((2 * b1 - b0) / math.log(2), 0.0)
    return b0 - np.euler_gamma * spread - spread * math.log(-math.log1p(-exceeded))


def persistent(scores: Floats, hits: int, of: int) -> Floats:
    """The threshold below which an alert could open at each run, shape (runs,).

    This run has to fail and `hits` of the newest `of`: the smaller of its score and the `hits`-th highest of them.

    Args:
        scores: shape (runs,); nan where a run was not judged, which does not count as failed.
        hits: failed runs that open an alert.
        of: newest runs that are looked at.
    """
    if not len(scores):  # the reference is shorter than a window
        return scores
    padded = np.concatenate((np.full(of - 1, -np.inf), np.where(np.isnan(scores), -np.inf, scores)))
    recent = np.sort(np.lib.stride_tricks.sliding_window_view(padded, of), axis=1)
    return np.where(np.isnan(scores), np.nan, np.minimum(scores, recent[:, of - hits]))


def daily_maxima(days: Ints, values: Floats) -> Floats:
    """The largest value of each day, in order of the days; days without a value (nan) are left out."""
    judged = ~np.isnan(values)
    found, index = np.unique(days[judged], return_inverse=True)
    top = np.full(len(found), -np.inf)
    np.maximum.at(top, index, values[judged])
    return top


def replay_episodes(
    lane: Lane, monitor: str, windows: Sequence[Window], outcomes: Sequence[Outcome], alarm: Alarm
) -> list[Episode]:
    """The episodes that a stretch of verdicts leads to, oldest first, by the rules that live windows follow.

    Args:
        lane: which of the two.
        monitor: its name.
        windows: of the runs, in order.
        outcomes: their verdicts.
        alarm: persistence and cooldown.
    """
    failing = Outcome.DRIFT if lane == "drift" else Outcome.BROKEN
    found: list[Episode] = []
    last: Episode | None = None
    newest = alarm.persistence.of - 1
    for i, outcome in enumerate(outcomes):
        if outcome is not failing and (last is None or last.closed is not None):
            continue  # quiet: nothing is open and nothing failed
        result = CheckResult.model_construct(
            monitor=monitor, window=windows[i], verdict=outcome, rows=0, reason="", promise=""
        )
        history = list(outcomes[max(0, i - newest) : i])[::-1]
        transition = step(lane, last, history, result, alarm)
        if not transition.changed or transition.episode is None:
            continue
        last = transition.episode
        if transition.reason is Reason.OPENED:
            found.append(last)
        else:
            found[-1] = last
    return found
