"""From drift to a new model: the states of a retraining, what moves it on, and what holds one back.

A retraining has one cause, an episode of drift, and its id derives from it: whoever asks twice asks for the same
one. What may follow what is a table, `NEXT`; `docs/retraining.md` shows it. Pure: the store keeps the ledger, and
`service/retrainer.py` does the work.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import CheckResult, Episode, Finite, UtcDatetime, Value, Window

MONTH: Final = timedelta(days=30)
LOOK_AGAIN: Final = timedelta(days=1)
"""After this long, one that was withheld may be prepared anew: labels come late, and broken data is mended."""

RAILS: Final = ("mode", "quality", "rows", "in_flight", "cooldown", "budget", "breaker")
"""The guard rails that are looked at when a window drifts; labels are counted later, while it is prepared."""

_NAMESPACE = uuid.UUID("b0a6d2b4-0a53-5d0e-8b1e-5c8f1f0c7d42")


class State(StrEnum):
    """Where a retraining stands."""

    PREPARING = "preparing"  # labels are counted, weights and training set are made
    WITHHELD = "withheld"  # a guard rail stopped it after that; nobody was asked
    PROPOSED = "proposed"  # a person is asked
    APPROVED = "approved"  # the request to the pipeline is in the outbox
    SENT = "sent"  # the pipeline took it
    RUNNING = "running"  # the pipeline said so
    TRAINED = "trained"  # there is a new model, and it is not live
    LIVE = "live"  # it is live
    PROMOTED = "promoted"  # and what it was trained on is the reference
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"  # nobody decided, or the pipeline fell silent


class Event(StrEnum):
    """What can happen to a retraining."""

    PREPARED = "prepared"
    WITHHOLD = "withhold"
    RESUME = "resume"
    APPROVE = "approve"
    REJECT = "reject"
    DELIVERED = "delivered"
    DEAD = "dead"
    STARTED = "started"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    LIVE = "live"
    PROMOTED = "promoted"
    LAPSE = "lapse"


# What a pipeline reports may overtake the receiver's answer, so an approved one may be running already.
_REPORTS = {
    Event.STARTED: State.RUNNING,
    Event.FAILED: State.FAILED,
    Event.SUCCEEDED: State.TRAINED,
    Event.LIVE: State.LIVE,
}
NEXT: Final[Mapping[State, Mapping[Event, State]]] = {
    State.PREPARING: {
        Event.PREPARED: State.PROPOSED,
        Event.APPROVE: State.APPROVED,
        Event.WITHHOLD: State.WITHHELD,
        Event.LAPSE: State.EXPIRED,
    },
    State.WITHHELD: {Event.RESUME: State.PREPARING},
    State.PROPOSED: {
        Event.APPROVE: State.APPROVED,
        Event.RESUME: State.PREPARING,  # approved, but there are newer rows than what was prepared has seen
        Event.REJECT: State.REJECTED,
        Event.LAPSE: State.EXPIRED,
    },
    State.APPROVED: {Event.DELIVERED: State.SENT, Event.DEAD: State.FAILED, **_REPORTS},
    State.SENT: {**_REPORTS, Event.LAPSE: State.EXPIRED},
    State.RUNNING: {**_REPORTS, Event.LAPSE: State.EXPIRED},
    State.TRAINED: {
        Event.SUCCEEDED: State.TRAINED,
        Event.FAILED: State.FAILED,
        Event.LIVE: State.LIVE,
        Event.LAPSE: State.EXPIRED,
    },
    State.LIVE: {Event.LIVE: State.LIVE, Event.PROMOTED: State.PROMOTED},
    State.PROMOTED: {},
    State.REJECTED: {},
    State.FAILED: _REPORTS,  # a pipeline may try again by itself, and be late
    State.EXPIRED: _REPORTS,
}
IN_FLIGHT: Final = frozenset(
    {State.PREPARING, State.PROPOSED, State.APPROVED, State.SENT, State.RUNNING, State.TRAINED}
)
"""Of these a monitor has one at most; the database holds it too."""
SENT_OUT: Final = frozenset({State.APPROVED, State.SENT, State.RUNNING, State.TRAINED, State.LIVE, State.PROMOTED})
"""In these a pipeline was, or is about to be, asked."""


class RetrainingError(DriftMonitorError):
    """Something asked of a retraining that its state does not allow."""


class Attached(Value):
    """A file that goes with a retraining.

    Attributes:
        path: on the daemon's machine.
        rows: in it.
        sha256: of its content.
    """

    path: str
    rows: int
    sha256: str


class Weights(Attached):
    """Weights for the training rows.

    Attributes:
        effective_sample_size: Kish's, in rows.
        adopt: whether the gate found that training with them helps.
        why: the gate's reason, a sentence.
    """

    effective_sample_size: Finite
    adopt: bool
    why: str


class Retraining(Value):
    """One row of the ledger of retrainings.

    Attributes:
        id: derives from the episode; 32 hex digits.
        episode: that caused it; None when a person asked for it.
        opened: of the episode (event time).
        window: the newest window when it was asked for.
        receiver: of the pipeline.
        mode: `propose`, `auto` or `by hand`.
        created, changed: the daemon's clock.
        requested: when the pipeline's message was put into the outbox; None when it never was.
        decided_by: who approved or rejected it; of one that is preparing, who has approved it already.
        labelled: share of the live rows that have a label; None when it was not counted.
        training: the refreshed training set.
        model_version: of the new model, as the pipeline or the registry told.
        model_metrics: of the new model, by name.
        trained_on: the file that the new model was trained on, where the pipeline told.
        promoted_at: end of the newest window when its training data became the reference (event time).
        reference: the version that was built.
        settled: of one that is live: nothing is left to do, for the reason in `note`.
        note: the last thing said about it, a sentence.
    """

    id: str
    monitor: str
    episode: str | None
    opened: UtcDatetime
    window: Window
    reason: str
    features: tuple[str, ...] = ()
    receiver: str
    mode: Literal["propose", "auto", "by hand"]
    state: State = State.PREPARING
    created: UtcDatetime
    changed: UtcDatetime
    requested: UtcDatetime | None = None
    decided_by: str = ""
    labelled: Finite | None = None
    weights: Weights | None = None
    training: Attached | None = None
    model_version: str = ""
    model_metrics: dict[str, Finite] = {}
    trained_on: str = ""
    promoted_at: UtcDatetime | None = None
    reference: str = ""
    settled: bool = False
    note: str = ""

    @property
    def in_flight(self) -> bool:
        """Whether another one has to wait for it."""
        return self.state in IN_FLIGHT or (self.state is State.LIVE and not self.settled)


def retraining_id(episode: str) -> str:
    """The id of the one retraining that an episode may cause.

    Example:
        >>> retraining_id("16a520555d77555eb2ae6e9f3bea22c1") == retraining_id("16a520555d77555eb2ae6e9f3bea22c1")
        True
    """
    return uuid.uuid5(_NAMESPACE, episode).hex


def hand_id(monitor: str, now: datetime) -> str:
    """The id of a retraining that a person asked for at a time."""
    return uuid.uuid5(_NAMESPACE, f"{monitor}\n{now.isoformat()}").hex


def propose(
    episode: Episode, result: CheckResult, *, receiver: str, mode: Literal["propose", "auto"], now: datetime
) -> Retraining:
    """The retraining that an episode causes at a window."""
    return Retraining(
        id=retraining_id(episode.id),
        monitor=episode.monitor,
        episode=episode.id,
        opened=episode.opened,
        window=result.window,
        reason=result.reason,
        features=episode.features,
        receiver=receiver,
        mode=mode,
        created=now,
        changed=now,
    )


def advance(retraining: Retraining, event: Event, now: datetime, **news: object) -> Retraining:
    """The retraining after an event.

    Args:
        retraining: as it is in the ledger.
        event: what happened.
        now: the daemon's clock.
        **news: what else changed, by attribute; None for what did not.

    Returns:
        The same object when the event was known already: what is reported twice changes nothing.

    Raises:
        RetrainingError: this cannot follow; the sentence says where it stands.
    """
    state = retraining.state
    target = NEXT[state].get(event)
    if target is None and _known_already(retraining, event):
        return retraining
    late = state in {State.FAILED, State.EXPIRED}
    if target is None or (late and retraining.requested is None):
        raise RetrainingError(f"retraining {retraining.id[:8]} is {state.value}: {event.value} cannot follow that")
    version = news.get("model_version") or retraining.model_version
    if event in {Event.SUCCEEDED, Event.LIVE} and not version:
        raise RetrainingError(f"retraining {retraining.id[:8]}: say which `version` of the model {_VERB[event]}")
    if event is Event.LIVE and retraining.model_version not in {"", version}:
        raise RetrainingError(
            f"retraining {retraining.id[:8]} trained version {retraining.model_version!r}, "
            f"so version {version!r}, which is live, is not of it"
        )
    told = {name: value for name, value in news.items() if value is not None}
    changes: dict[str, object] = {"state": target, "changed": now, **told}
    if target is State.APPROVED:
        changes["requested"] = now
    if target is State.LIVE:
        changes["settled"] = False
    after = Retraining.model_validate(retraining.model_dump() | changes)
    same = {"changed": retraining.changed, "settled": retraining.settled}
    if state is target is State.LIVE:  # a retry of the report would else ask for the same promotion again
        same["note"] = retraining.note
    unchanged = after.model_copy(update=same)
    return retraining if unchanged == retraining else after


_VERB: Final = {Event.SUCCEEDED: "it made", Event.LIVE: "is live"}
# Reports of the past, which a retry brings again: by state, those that led to it.
_PAST: Final[Mapping[State, frozenset[Event]]] = {
    State.SENT: frozenset({Event.DELIVERED}),
    State.RUNNING: frozenset({Event.DELIVERED}),
    State.TRAINED: frozenset({Event.DELIVERED, Event.STARTED}),
    State.LIVE: frozenset({Event.DELIVERED, Event.STARTED, Event.SUCCEEDED}),
    State.PROMOTED: frozenset({Event.DELIVERED, Event.STARTED, Event.SUCCEEDED, Event.LIVE, Event.PROMOTED}),
    State.APPROVED: frozenset({Event.APPROVE}),
    State.REJECTED: frozenset({Event.REJECT}),
    State.FAILED: frozenset({Event.DELIVERED, Event.DEAD}),
    State.EXPIRED: frozenset({Event.DELIVERED, Event.LAPSE}),
}


def _known_already(retraining: Retraining, event: Event) -> bool:
    return event in _PAST.get(retraining.state, frozenset())


class Rails(Value):
    """The guard rails of a monitor: `retrain` of its configuration, as far as they are decided here."""

    cooldown: timedelta
    per_month: int
    min_rows: int
    trial: timedelta
    give_up: int


def held_back(
    episode: Episode,
    result: CheckResult,
    ledger: Sequence[Retraining],
    rails: Rails,
    now: datetime,
    *,
    quality: Episode | None,
) -> dict[str, str]:
    """What holds a retraining for an open drift episode back at a window, in the order in which it counts.

    Args:
        episode: of drift, open.
        result: of the window, which drifted or continues an open episode.
        ledger: all retrainings of the monitor, newest first.
        rails: from the configuration.
        now: the daemon's clock.
        quality: the newest episode of broken data.

    Returns:
        Name of the guard rail -> a sentence; empty when a retraining may be prepared.
    """
    held: dict[str, str] = {}
    if broken := broken_data(quality, result):
        held["quality"] = broken
    if result.rows < rails.min_rows:
        held["rows"] = f"the window has {result.rows:,} rows, a retraining needs {rails.min_rows:,}"
    others = [r for r in ledger if r.episode != episode.id]
    if (busy := next((r for r in others if r.in_flight), None)) is not None:
        held["in_flight"] = f"retraining {busy.id[:8]} is {busy.state.value}: one at a time"
    asked = [r for r in others if r.requested is not None]
    if asked and not asked[0].in_flight and now < asked[0].changed + rails.cooldown:
        held["cooldown"] = f"the last retraining ended less than {_days(rails.cooldown)} ago"
    month = sum(r.requested is not None and r.requested > now - MONTH for r in asked)
    if month >= rails.per_month:
        held["budget"] = f"{month} retrainings in 30 days, which is the budget"
    if (vain := in_vain(episode.opened, asked, rails.trial)) >= rails.give_up:
        held["breaker"] = (
            f"the drift stayed after {vain} retrainings: a person has to look (`drift-monitor retrain` overrides)"
        )
    return held


def broken_data(quality: Episode | None, result: CheckResult | None) -> str:
    """Why the data is not fit to train on; empty when nothing speaks against it."""
    if quality is not None and quality.closed is None:
        return f"the data has been broken since {quality.opened:%Y-%m-%d %H:%MZ}: {', '.join(quality.features)}"
    if result is not None and result.failed_quality:
        return f"the window fails {len(result.failed_quality)} checks of its data"
    return ""


def in_vain(opened: datetime, asked: Iterable[Retraining], trial: timedelta) -> int:
    """How many retrainings in a row, up to the newest, did not end the drift.

    One that failed, or whose pipeline fell silent, did not. One whose model went live did not when the next drift
    opened within the trial. One that a person asked for is the last that counts: the person knew of the others.

    Args:
        opened: of the drift now (event time).
        asked: retrainings that a pipeline was asked for, newest first.
        trial: how long after a promotion a drift counts against it.
    """
    count = 0
    for retraining in asked:
        since = retraining.promoted_at or retraining.opened
        if retraining.in_flight or opened > since + trial:
            break
        count += 1
        if retraining.mode == "by hand":
            break
        opened = retraining.opened
    return count


def due_to_lapse(retraining: Retraining, now: datetime, *, expires: timedelta, timeout: timedelta) -> str:
    """Why a retraining has to be given up now; empty when it has not.

    Args:
        retraining: as it is in the ledger.
        now: the daemon's clock.
        expires: how long people may take, to decide or to bring a model live.
        timeout: how long a pipeline may be silent.
    """
    waits = {
        State.PROPOSED: (expires, "nobody decided within {}"),
        State.SENT: (timeout, "the pipeline took the request and has said nothing for {}"),
        State.RUNNING: (timeout, "the pipeline has said nothing for {}"),
        State.TRAINED: (expires, "the new model did not go live within {}"),
    }
    if retraining.state not in waits:
        return ""
    limit, sentence = waits[retraining.state]
    return sentence.format(_days(limit)) if now >= retraining.changed + limit else ""


def _days(length: timedelta) -> str:
    days = length / timedelta(days=1)
    return f"{days:g} days" if days >= 2 else f"{length / timedelta(hours=1):g} hours"
