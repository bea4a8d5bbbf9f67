"""The Evidently report of one window, made in a process of its own.

Evidently takes seconds and hundreds of megabytes to import, so the daemon only sends a request and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from drift_monitor.actions.process import run_process
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Value, Window

COMMAND = (sys.executable, "-m", "drift_monitor.service.report_worker")


class ReportRequest(Value):
    """What a report needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        state: the state folder; a reference built from a training file is kept below it.
        window: the stretch of event time; None for the whole source.
        output: the HTML file to write; replaced when there is one.
        run: the ledger row, shown on the page.
        first: features to show first, such as those to blame.
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None
    output: Path
    run: int | None = None
    first: tuple[str, ...] = ()


class ReportResult(Value):
    """What was made.

    Attributes:
        path: the HTML file.
        omitted: column -> why it is not in the report.
    """

    path: Path
    omitted: dict[str, str] = {}


def run_report(request: ReportRequest, deadline: timedelta, *, command: Sequence[str] = COMMAND) -> ReportResult:
    """Make a report in a child process.

    Args:
        request: what to show and where to write it.
        deadline: after this the child and all it started are killed.
        command: how to start the child.

    Raises:
        ProcessError: the child failed or was too slow; the message has its last line.
    """
    output = run_process(
        command,
        request,
        deadline,
        doing=f"the report of {request.name}",
        advice=f"raise monitors.{request.name}.report.deadline or lower report.rows",
    )
    return ReportResult.model_validate_json(output)
