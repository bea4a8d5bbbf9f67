"""A new training set with labelled live rows in it, and the count of those: requests, results, and the process.

The work reads the training file and weeks of live rows, so the daemon sends a request to a child and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from drift_monitor.actions.process import run_process
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Finite, Value, Window

COMMAND: Final = (sys.executable, "-m", "drift_monitor.service.refreshing")
MANIFEST: Final = "manifest.json"
TRAIN: Final = "train"
"""The part that a model is trained on, and the next reference is built from."""


class RefreshError(DriftMonitorError):
    """The training set could not be made."""


class RefreshRequest(Value):
    """What a refreshed training set needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        monitor: its configuration; `monitor.refresh` says how.
        state: the state folder; a reference built from a training file is kept below it.
        window: its end is the end of the live stretch that is taken in; None for the whole source.
        output: the folder of versions; made if need be. The new one is a folder in it, named by day and content.
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None
    output: Path


class RefreshResult(Value):
    """What was made.

    Attributes:
        path: the folder of the version.
        train: its `train.parquet`, with the columns of the training file.
        train_sha256: of that file's bytes.
        rows: by part.
        sha256: of the content: the `sha256` that `manifest.json` holds.
        labelled: share of the live rows that have a label.
        left_out: live windows that were not taken in, each with the reason, in sentences.
    """

    path: Path
    train: Path
    train_sha256: str
    rows: dict[str, int]
    sha256: str
    labelled: Finite
    left_out: tuple[str, ...] = ()

    @property
    def train_rows(self) -> int:
        """Rows of the part that a model is trained on."""
        return self.rows[TRAIN]


class LabelsRequest(Value):
    """What a count of labels needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        monitor: its configuration; `columns.label` is counted.
        state: the state folder.
        window: the stretch of event time; None for the whole source.
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None


class LabelsResult(Value):
    """How many rows of a window have a label.

    Attributes:
        rows: of the window.
        labelled: rows whose label is neither null nor NaN.
    """

    rows: int
    labelled: int

    @property
    def share(self) -> float:
        """Of the rows with a label; 0 where there are no rows."""
        return self.labelled / self.rows if self.rows else 0.0


def run_refresh(
    request: RefreshRequest, deadline: timedelta, *, command: Sequence[str] = COMMAND
) -> RefreshResult:
    """Make a training set in a child process.

    Args:
        request: what to make and where to write it.
        deadline: after this the child and all it started are killed; no part of a version is left to be seen.
        command: how to start the child.

    Raises:
        ProcessError: the child failed or was too slow; the message has its last line.
    """
    output = run_process(
        command,
        request,
        deadline,
        doing=f"the training set of {request.name}",
        advice=f"raise monitors.{request.name}.retrain.deadline or shorten refresh.live",
    )
    return RefreshResult.model_validate_json(output)


def run_labels(
    request: LabelsRequest, deadline: timedelta, *, command: Sequence[str] = (*COMMAND, "labels")
) -> LabelsResult:
    """Count the labels of a window in a child process.

    Args:
        request: what to count.
        deadline: after this the child is killed.
        command: how to start the child.

    Raises:
        ProcessError: the child failed or was too slow; the message has its last line.
    """
    output = run_process(
        command,
        request,
        deadline,
        doing=f"the count of labels of {request.name}",
        advice=f"raise monitors.{request.name}.retrain.deadline",
    )
    return LabelsResult.model_validate_json(output)
