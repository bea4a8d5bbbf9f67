"""A new version of the training set, with labelled live rows in it: the request, its result, and the process for it.

The work reads the training file and weeks of live rows, so the daemon sends a request to a child process and waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

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


def run_refresh(
    request: RefreshRequest, deadline: timedelta, *, command: Sequence[str] = COMMAND
) -> RefreshResult:
    """Make a training set in a child process.

    Args:
        request: what to make and where to write it.
        deadline: after this the child and all it started are killed; no part of a version is left to be seen.
        command: how to start the child.

    Raises:
        RefreshError: the child failed or was too slow; the message has its last line.
    """
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        output, errors = child.communicate(request.model_dump_json().encode(), timeout=deadline.total_seconds())
    except subprocess.TimeoutExpired:
        raise RefreshError(
            f"the training set of {request.name} was not done after {deadline.total_seconds():g} s and was given "
            f"up: raise monitors.{request.name}.retrain.deadline or shorten refresh.live"
        ) from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or [f"it ended with code {child.returncode}"]
        raise RefreshError(f"the training set of {request.name} failed: {lines[-1]}")
    return RefreshResult.model_validate_json(output)
