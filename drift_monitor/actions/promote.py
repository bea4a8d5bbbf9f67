"""The training data of a model that went live becomes the reference: the request, its result, and the process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from drift_monitor.actions.process import run_process
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import UtcDatetime, Value

COMMAND: Final = (sys.executable, "-m", "drift_monitor.service.promoting")


class PromoteRequest(Value):
    """What a promotion needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder.
        training: the file that the live model was trained on.
        model_version: of the live model.
        retraining: that made it.
        at: end of the newest window (event time).
        trial: for how long after that the reference before is compared too.
    """

    name: str
    monitor: Monitor
    state: Path
    training: Path
    model_version: str
    retraining: str
    at: UtcDatetime
    trial: timedelta


class PromoteResult(Value):
    """What was made.

    Attributes:
        version: of the reference.
    """

    version: str


def run_promote(
    request: PromoteRequest, deadline: timedelta, *, command: Sequence[str] = COMMAND
) -> PromoteResult:
    """Build and calibrate the new reference in a child process, and make it the monitor's.

    A second run with the same data ends as the first did.

    Args:
        request: what to build from.
        deadline: after this the child is killed; the old reference stays.
        command: how to start the child.

    Raises:
        ProcessError: the child failed or was too slow; the message has its last line.
    """
    output = run_process(
        command,
        request,
        deadline,
        doing=f"the new reference of {request.name}",
        advice=f"raise monitors.{request.name}.retrain.deadline",
    )
    return PromoteResult.model_validate_json(output)
