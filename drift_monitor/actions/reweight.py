"""Weights that make the training rows look like the live ones: the request, its result, and the process for it.

The work needs scikit-learn and the training file, so whoever asks for weights sends a request to a child process
and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from drift_monitor.actions.process import run_process
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Finite, Value, Window

COMMAND: Final = (sys.executable, "-m", "drift_monitor.service.reweighting")
WEIGHTS, MANIFEST, PICTURE, USE = "weights.parquet", "manifest.json", "weights.svg", "USE.txt"


class ReweightError(DriftMonitorError):
    """The weights could not be made."""


class ReweightRequest(Value):
    """What weights need; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        monitor: its configuration; `monitor.reweight` says how.
        state: the state folder; a reference built from a training file is kept below it.
        window: the stretch of event time whose rows the training rows are to look like; None for the whole source.
        output: the folder to write to; made if need be, and what is in it is replaced.
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None
    output: Path


class ReweightResult(Value):
    """What was made, and whether to use it.

    Attributes:
        path: `weights.parquet`: `row_id` and `weight`, in the order of the training rows; None where none were
            made, because the window cannot be trusted.
        manifest: `manifest.json`: inputs, method, diagnostics, the gate's decision.
        rows: training rows with a weight.
        sha256: of `weights.parquet`; empty without one.
        effective_sample_size: Kish's; 0 without weights.
        method: the one that was used; none without weights.
        adopt: whether the weights should be used: nothing refuses them, and the gate found that they help.
        why: that decision in a sentence.
        refused: what speaks against any use of them, in sentences; empty when nothing does.
    """

    path: Path | None
    manifest: Path
    rows: int
    sha256: str
    effective_sample_size: Finite
    method: Literal["classifier", "raking", "none"]
    adopt: bool
    why: str
    refused: tuple[str, ...] = ()


def run_reweight(
    request: ReweightRequest, deadline: timedelta, *, command: Sequence[str] = COMMAND
) -> ReweightResult:
    """Make weights in a child process.

    Args:
        request: what to make and where to write it.
        deadline: after this the child and all it started are killed.
        command: how to start the child.

    Raises:
        ProcessError: the child failed or was too slow; the message has its last line.
    """
    output = run_process(
        command,
        request,
        deadline,
        doing=f"the weighting of {request.name}",
        advice=f"raise monitors.{request.name}.retrain.deadline or lower reweight.live_rows",
    )
    return ReweightResult.model_validate_json(output)
