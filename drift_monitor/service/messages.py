"""What an episode says to its receivers. Pure: the same transition gives the same message, byte for byte."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import quote

from drift_monitor.config.models import Monitor
from drift_monitor.core.episode import Reason, Transition
from drift_monitor.core.types import CheckResult, Histogram, Lane, Message, ReferenceId

MOST = 20  # features and failed expectations that a message names; the page has them all
HISTOGRAMS = 3  # features whose bins it carries: twenty would take half of the 20 kB that a message may have
_NAMESPACE = uuid.UUID("5e4d6f62-9d0c-5f0a-8f0e-1d2b7a1c9e11")

_SUMMARIES: dict[tuple[Lane, Reason], str] = {
    ("drift", Reason.OPENED): "{monitor} has drifted: {reason}",
    ("drift", Reason.ESCALATED): "{monitor} drifts further: {reason}",
    ("drift", Reason.REMINDED): "{monitor} still drifts: {reason}",
    ("drift", Reason.RESOLVED): "{monitor} has stopped drifting: {reason}",
    ("quality", Reason.OPENED): "the data of {monitor} is broken: {reason}",
    ("quality", Reason.ESCALATED): "the data of {monitor} is more broken: {reason}",
    ("quality", Reason.REMINDED): "the data of {monitor} is still broken: {reason}",
    ("quality", Reason.RESOLVED): "the data of {monitor} is whole again: {reason}",
}


@dataclass(frozen=True)
class Links:
    """Where a reader finds more.

    Attributes:
        page: of the monitor.
        report: of this run; None when none is made.
        base: URL of the daemon.
    """

    page: str
    report: str | None
    base: str = ""


def message(
    transition: Transition, result: CheckResult, monitor: Monitor, *, source: str, links: Links
) -> Message | None:
    """The message about what a window did to a lane; None when there is nothing to say.

    Args:
        transition: of the lane.
        result: the check behind it.
        monitor: its configuration.
        source: the CloudEvents source, without the monitor: a path such as `/drift-monitor/prod`.
        links: for people.
    """
    episode = transition.episode
    if transition.message is None or episode is None:
        return None
    end, since, drift = result.window.end, episode.since, episode.lane == "drift"
    data: dict[str, object] = {
        "summary": _SUMMARIES[episode.lane, transition.reason].format(
            monitor=result.monitor, reason=result.reason
        ),
        "monitor": result.monitor,
        "model": model_now(monitor, result.reference),
        "downstream": list(monitor.downstream),
        "episode": {"id": episode.id, "lane": episode.lane, "opened": episode.opened, "closed": episode.closed},
        "reason": result.reason,
        "verdict": result.verdict,
        "window": {"start": result.window.start, "end": end},
        "rows": result.rows,
        "score": result.score,
        "threshold": result.threshold,
        "promise": result.promise,
        "promise_basis": result.promise_basis,
        "false_alerts_per_month": result.false_alerts_per_month,
        "signals": [s.model_dump(exclude={"over"}) for s in result.signals if s.over],
        "reference": result.reference and result.reference.model_dump(include={"version", "sha256"}),
        "features": [
            f.model_dump(include={"name", "method", "score", "threshold", "window", "effect"})
            | (f.model_dump(include={"column", "segment"}) if f.segment is not None else {})
            | ({"since": since[f.name]} if f.name in since and drift else {})
            | ({"histogram": _rounded(f.histogram)} if f.histogram is not None and i < HISTOGRAMS else {})
            for i, f in enumerate(result.drifted[:MOST])
        ],
        "quality": [
            q.model_dump(include={"check", "feature", "value", "threshold", "message"})
            | ({"since": since[at]} if (at := q.feature or q.check) in since and not drift else {})
            for q in result.failed_quality[:MOST]
        ],
        **({"retraining_held": episode.held} if episode.held and drift else {}),
        "links": {"page": links.page} | ({"report": links.report} if links.report else {}),
    }
    return Message(
        id=str(uuid.uuid5(_NAMESPACE, f"{episode.id} {transition.message} {end.isoformat()}")),
        type=transition.message,
        source=f"{quote(source)}/monitors/{quote(result.monitor)}",
        subject=result.monitor,
        time=end,
        group=episode.id,
        data=data,
    )


def model_now(monitor: Monitor, reference: ReferenceId | None) -> dict[str, str]:
    """The model that is live: the configured one, or the version that a retraining made since."""
    told: dict[str, str] = monitor.model.model_dump()
    return told | ({"version": reference.model_version} if reference and reference.model_version else {})


def _rounded(histogram: Histogram) -> dict[str, object]:
    """Shares to a hundredth of a percent, which is more than anybody sees."""
    return {
        "labels": list(histogram.labels),
        "reference": [round(share, 4) for share in histogram.reference],
        "current": [round(share, 4) for share in histogram.current],
    }
