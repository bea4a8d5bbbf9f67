"""What of a retraining takes long: to count labels, to make weights and a training set, to build a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from drift_monitor.actions.promote import PromoteRequest, PromoteResult, run_promote
from drift_monitor.actions.refresh import (
    LabelsRequest,
    LabelsResult,
    RefreshRequest,
    RefreshResult,
    run_labels,
    run_refresh,
)
from drift_monitor.actions.reweight import ReweightRequest, ReweightResult, run_reweight
from drift_monitor.config.loop import Retrain
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.retraining import Attached, Retraining, RetrainingError, Weights


@dataclass(frozen=True)
class Work:
    """What is done in child processes, each with a deadline; all raise DriftMonitorError."""

    labels: Callable[[LabelsRequest, timedelta], LabelsResult] = run_labels
    refresh: Callable[[RefreshRequest, timedelta], RefreshResult] = run_refresh
    reweight: Callable[[ReweightRequest, timedelta], ReweightResult] = run_reweight
    promote: Callable[[PromoteRequest, timedelta], PromoteResult] = run_promote


@dataclass
class Made:
    """What was made for a retraining.

    Attributes:
        notes: what could not be made and why, in sentences.
    """

    notes: list[str] = field(default_factory=list)
    labelled: float | None = None
    training: Attached | None = None
    weights: Weights | None = None

    def news(self) -> dict[str, object]:
        """By attribute of a `Retraining`."""
        return {
            "labelled": self.labelled,
            "training": self.training,
            "weights": self.weights,
            "note": "; ".join(self.notes),
        }

    def unlabelled(self, needed: float) -> str:
        """Why there are too few labels to train with; empty when there are enough."""
        if not needed:
            return ""
        if self.labelled is None:
            return "it is not known how many rows have a label"
        if self.labelled >= needed:
            return ""
        return (
            f"{self.labelled:.0%} of the live rows have a label and a retraining needs {needed:.0%}: "
            "only weights can be offered"
        )


def prepare(
    retraining: Retraining, monitor: Monitor, retrain: Retrain, state: Path, folder: Path, work: Work
) -> Made:
    """Make what goes with a retraining. What fails is a note, not an error.

    Args:
        retraining: for which.
        monitor: its configuration.
        retrain: the section of it.
        state: the state folder.
        folder: where to write; what is there from an attempt before is replaced.
        work: how.
    """
    made = Made()
    name, deadline = retraining.monitor, retrain.deadline
    window = None if monitor.source.timestamp is None else retraining.window
    if monitor.refresh.enabled:
        refresh = RefreshRequest(
            name=name, monitor=monitor, state=state, window=window, output=folder / "training"
        )
        try:
            refreshed = work.refresh(refresh, deadline)
        except DriftMonitorError as error:
            made.notes.append(f"no refreshed training set: {error}")
        else:
            made.labelled = refreshed.labelled
            made.training = Attached(
                path=str(refreshed.train), rows=refreshed.train_rows, sha256=refreshed.train_sha256
            )
    if made.labelled is None and retrain.labels > 0:
        count = LabelsRequest(name=name, monitor=monitor, state=state, window=window)
        try:
            made.labelled = work.labels(count, deadline).share
        except DriftMonitorError as error:
            made.notes.append(f"the labels could not be counted: {error}")
    if monitor.reweight.enabled:
        reweight = ReweightRequest(
            name=name, monitor=monitor, state=state, window=window, output=folder / "weights"
        )
        try:
            weighted = work.reweight(reweight, deadline)
        except DriftMonitorError as error:
            made.notes.append(f"no weights: {error}")
        else:
            made.weights, note = _weights(weighted)
            made.notes += [note] if note else []
    return made


def _weights(made: ReweightResult) -> tuple[Weights | None, str]:
    if made.path is None:
        return None, f"no weights: {'; '.join(made.refused) or made.why}"
    return (
        Weights(
            path=str(made.path),
            rows=made.rows,
            sha256=made.sha256,
            effective_sample_size=made.effective_sample_size,
            adopt=made.adopt and not made.refused,
            why="; ".join(made.refused) or made.why,
        ),
        "",
    )


def promotion(
    retraining: Retraining, monitor: Monitor, retrain: Retrain, state: Path, at: datetime
) -> PromoteRequest:
    """What is to become the reference of a model that is live.

    Raises:
        RetrainingError: nothing is, and why.
    """
    training = retraining.trained_on or (retraining.training.path if retraining.training else "")
    if not retrain.promote:
        raise RetrainingError("retrain.promote is off")
    if not training:
        raise RetrainingError(
            "nobody told which file the model was trained on: report `live` again with `training`, or set "
            "refresh.enabled"
        )
    return PromoteRequest(
        name=retraining.monitor,
        monitor=monitor,
        state=state,
        training=Path(training),
        model_version=retraining.model_version,
        retraining=retraining.id,
        at=at,
        trial=retrain.trial,
    )
