"""Whether a window begins a retraining, and what holds it back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from drift_monitor.config.loop import Retrain
from drift_monitor.core.episode import Reason, Transition
from drift_monitor.core.retraining import (
    LOOK_AGAIN,
    Event,
    Rails,
    Retraining,
    State,
    advance,
    held_back,
    propose,
    retraining_id,
)
from drift_monitor.core.types import CheckResult, Episode, Outcome

_MOVED = frozenset({Reason.OPENED, Reason.CONTINUES, Reason.ESCALATED, Reason.REMINDED})


@dataclass(frozen=True)
class Plan:
    """What a window means for retraining.

    Attributes:
        transition: of the drift lane; its episode knows what holds a retraining back.
        retraining: to enter in the ledger; None for none.
        given_up: why a person has to act, when that is new; empty otherwise.
    """

    transition: Transition
    retraining: Retraining | None = None
    given_up: str = ""


def plan(
    transition: Transition,
    quality: Episode | None,
    result: CheckResult,
    retrain: Retrain | None,
    ledger: Sequence[Retraining],
    now: datetime,
) -> Plan:
    """Look at the guard rails after a window that drifted and whose drift episode is open.

    Args:
        transition: what the window did to the drift lane.
        quality: the open episode of broken data, if any.
        result: the check.
        retrain: from the monitor's configuration; None when it asks for no retraining.
        ledger: all retrainings of the monitor, newest first.
        now: the daemon's clock.
    """
    episode = transition.episode
    drifted = transition.reason in _MOVED and result.verdict is Outcome.DRIFT
    if retrain is None or episode is None or not drifted:
        return Plan(transition)
    own = next((r for r in ledger if r.id == retraining_id(episode.id)), None)
    if own is not None and (own.state is not State.WITHHELD or now < own.changed + LOOK_AGAIN):
        return Plan(_with_held(transition, episode, {}))
    held: dict[str, str] = {}
    if retrain.mode == "notify":
        held["mode"] = "the mode is notify: nobody is asked to retrain"
    else:
        held = held_back(episode, result, ledger, rails(retrain), now, quality=quality)
    noted = _with_held(transition, episode, held)
    if held:
        news = held.get("breaker", "") if "breaker" not in episode.held else ""
        return Plan(noted, given_up=news)
    if own is not None:
        return Plan(noted, advance(own, Event.RESUME, now, window=result.window, reason=result.reason))
    begun = propose(
        episode,
        result,
        receiver=retrain.receiver,
        mode="auto" if retrain.mode == "auto" else "propose",
        now=now,
    )
    return Plan(noted, begun)


def rails(retrain: Retrain) -> Rails:
    """The guard rails that are decided without a look at the data."""
    return Rails(
        cooldown=retrain.cooldown,
        per_month=retrain.per_month,
        min_rows=retrain.min_rows,
        trial=retrain.trial,
        give_up=retrain.give_up,
    )


def _with_held(transition: Transition, episode: Episode, held: dict[str, str]) -> Transition:
    if episode.held == held:
        return transition
    noted = episode.model_copy(update={"held": held})
    return transition.model_copy(update={"episode": noted, "changed": True})
