"""What a retraining says: to the pipeline that is asked for it, and to the people who follow it. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import quote

from drift_monitor.config.models import Monitor
from drift_monitor.core.retraining import Attached, Retraining, State
from drift_monitor.core.types import Episode, Message, ReferenceId
from drift_monitor.service.messages import model_now

REQUESTED = "drift_monitor.retraining.requested"
_MOST = 20  # features that a message names
_NAMESPACE = uuid.UUID("d3f5a1c8-5f5e-53a0-9b53-0d6c0f3f7b21")
_SUMMARIES: dict[State, str] = {
    State.WITHHELD: "{monitor}: no retraining for now: {note}",
    State.PROPOSED: "{monitor} should be retrained; `drift-monitor approve {short}` or `reject {short}`: {reason}",
    State.REJECTED: "{monitor}: {decided_by} decided against the retraining{note_after}",
    State.TRAINED: "{monitor}: the pipeline trained version {model_version}, which is not live yet",
    State.LIVE: "{monitor}: version {model_version} is live; its training data becomes the reference",
    State.PROMOTED: "{monitor}: version {model_version} is watched against its own training data, {reference}",
    State.FAILED: "{monitor}: the retraining failed{note_after}",
    State.EXPIRED: "{monitor}: the retraining was given up{note_after}",
}


@dataclass(frozen=True)
class Sender:
    """Who speaks, and from where.

    Attributes:
        source: the CloudEvents source, without the monitor.
        base: URL at which people and pipelines reach the daemon.
    """

    source: str
    base: str

    def page(self, monitor: str) -> str:
        """Of a monitor."""
        return f"{self.base}/monitors/{quote(monitor)}"

    def attached(self, retraining: Retraining, name: str) -> str:
        """Where a file of a retraining can be fetched."""
        return f"{self.base}/retrainings/{retraining.id}/{name}.parquet"


def about(
    retraining: Retraining, monitor: Monitor, sender: Sender, *, reference: ReferenceId | None
) -> list[tuple[str, Message]]:
    """The messages about the state that a retraining has just come into, each with its receiver."""
    found: list[tuple[str, Message]] = []
    data = _data(retraining, monitor, sender, reference)
    if retraining.state is State.APPROVED:
        found.append((retraining.receiver, _message(retraining, REQUESTED, sender, data, once=True)))
    elif retraining.state is State.PROMOTED:
        found += _to_people(retraining, monitor, "drift_monitor.reference.promoted", sender, data)
    elif retraining.state in _SUMMARIES:
        kind = f"drift_monitor.retraining.{retraining.state.value}"
        found += _to_people(retraining, monitor, kind, sender, data)
    if retraining.state in {State.PROPOSED, State.APPROVED, State.WITHHELD} and retraining.weights is not None:
        said = {**data, "summary": _of_weights(retraining)}
        found += _to_people(retraining, monitor, "drift_monitor.weights.ready", sender, said, once=True)
    return found


def not_promoted(
    retraining: Retraining, monitor: Monitor, sender: Sender, *, reference: ReferenceId | None
) -> list[tuple[str, Message]]:
    """That a model is live and its training data could not become the reference."""
    data = _data(retraining, monitor, sender, reference)
    data["summary"] = (
        f"{retraining.monitor}: version {retraining.model_version} is live, but the reference stays the old one: "
        f"{retraining.note}"
    )
    return _to_people(retraining, monitor, "drift_monitor.reference.not_promoted", sender, data)


def given_up(episode: Episode, why: str, monitor: Monitor, sender: Sender) -> list[tuple[str, Message]]:
    """That the drift stays in spite of retrainings, so that a person has to act: once an episode."""
    kind = "drift_monitor.retraining.given_up"
    message = Message(
        id=str(uuid.uuid5(_NAMESPACE, f"{episode.id} {kind}")),
        type=kind,
        source=f"{quote(sender.source)}/monitors/{quote(episode.monitor)}",
        subject=episode.monitor,
        time=episode.updated,
        group=episode.id,
        data={
            "summary": f"{episode.monitor} needs a person: {why}",
            "monitor": episode.monitor,
            "model": monitor.model.model_dump(),
            "downstream": list(monitor.downstream),
            "severity": "critical",
            "episode": {"id": episode.id, "lane": episode.lane, "opened": episode.opened, "closed": None},
            "features": list(episode.features[:_MOST]),
            "links": {"page": sender.page(episode.monitor)},
        },
    )
    return [(receiver, message) for receiver in monitor.notify]


def retrained(
    episode: Episode, retraining: Retraining, monitor: Monitor, sender: Sender
) -> list[tuple[str, Message]]:
    """That a drift is over because the model was trained on newer data."""
    kind = "drift_monitor.drift.resolved"
    message = Message(
        id=str(uuid.uuid5(_NAMESPACE, f"{episode.id} {kind}")),
        type=kind,
        source=f"{quote(sender.source)}/monitors/{quote(episode.monitor)}",
        subject=episode.monitor,
        time=episode.closed or episode.updated,
        group=episode.id,
        data={
            "summary": f"{episode.monitor}: version {retraining.model_version} was trained on the data of now",
            "monitor": episode.monitor,
            "model": monitor.model.model_dump() | {"version": retraining.model_version},
            "downstream": list(monitor.downstream),
            "episode": {
                "id": episode.id,
                "lane": episode.lane,
                "opened": episode.opened,
                "closed": episode.closed,
                "retrained": True,
            },
            "retraining": {"id": retraining.id, "model_version": retraining.model_version},
            "features": [],
            "links": {"page": sender.page(episode.monitor)},
        },
    )
    return [(receiver, message) for receiver in monitor.notify]


def request_id(retraining: str) -> str:
    """The id of the one message that asks a pipeline for a retraining."""
    return str(uuid.uuid5(_NAMESPACE, f"{retraining} {REQUESTED}"))


def _to_people(
    retraining: Retraining,
    monitor: Monitor,
    kind: str,
    sender: Sender,
    data: dict[str, object],
    *,
    once: bool = False,
) -> list[tuple[str, Message]]:
    said = _message(retraining, kind, sender, data, once=once)
    return [(receiver, said) for receiver in monitor.notify]


def _message(
    retraining: Retraining, kind: str, sender: Sender, data: dict[str, object], *, once: bool = False
) -> Message:
    """A message; with `once` a retraining has one of its kind, else one each time it comes into the state."""
    name = f"{retraining.id} {kind}"
    if kind == REQUESTED:
        ident = request_id(retraining.id)
    else:
        ident = str(uuid.uuid5(_NAMESPACE, name if once else f"{name} {retraining.changed.isoformat()}"))
    return Message(
        id=ident,
        type=kind,
        source=f"{quote(sender.source)}/monitors/{quote(retraining.monitor)}",
        subject=retraining.monitor,
        time=retraining.changed,
        group=retraining.id,
        data=data,
    )


def _data(
    retraining: Retraining, monitor: Monitor, sender: Sender, reference: ReferenceId | None
) -> dict[str, object]:
    return {
        "summary": _summary(retraining),
        "monitor": retraining.monitor,
        "model": model_now(monitor, reference),
        "downstream": list(monitor.downstream),
        "retraining": {
            "id": retraining.id,
            "state": retraining.state.value,
            "mode": retraining.mode,
            "decided_by": retraining.decided_by,
            "receiver": retraining.receiver,
            "note": retraining.note,
            "model_version": retraining.model_version,
            "model_metrics": retraining.model_metrics,
            "labelled": retraining.labelled,
        },
        "episode": retraining.episode and {"id": retraining.episode, "opened": retraining.opened},
        "window": {"start": retraining.window.start, "end": retraining.window.end},
        "reason": retraining.reason,
        "features": list(retraining.features[:_MOST]),
        "reference": reference and reference.model_dump(include={"version", "sha256"}),
        "training": _attached(retraining.training, sender.attached(retraining, "training")),
        "weights": _attached(retraining.weights, sender.attached(retraining, "weights")),
        "report_back": {"url": f"{sender.base}/api/v1/retrainings/{retraining.id}"},
        "links": {"page": sender.page(retraining.monitor)},
    }


def _attached(attached: Attached | None, url: str) -> dict[str, object] | None:
    return None if attached is None else {"url": url, **attached.model_dump()}


def _summary(retraining: Retraining) -> str:
    sentence = _SUMMARIES.get(retraining.state, "retrain {monitor}: {reason}")
    return sentence.format(
        monitor=retraining.monitor,
        short=retraining.id[:8],
        reason=retraining.reason,
        note=retraining.note,
        note_after=f": {retraining.note}" if retraining.note else "",
        decided_by=retraining.decided_by or "somebody",
        model_version=retraining.model_version,
        reference=retraining.reference,
    )


def _of_weights(retraining: Retraining) -> str:
    weights = retraining.weights
    if weights is None:
        return ""
    verdict = "use them" if weights.adopt else "training with them would not help"
    return f"{retraining.monitor}: weights for {weights.rows:,} training rows are ready; {verdict}: {weights.why}"
