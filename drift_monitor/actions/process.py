"""Work that is done in a process of its own: it may take long and much memory, and can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from datetime import timedelta

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Value

PARENT = "DRIFT_MONITOR_PARENT"
"""In a child's environment: the process id of who started it, which it must not outlive."""


class ProcessError(DriftMonitorError):
    """The process failed, or was too slow."""


def run_process(command: Sequence[str], request: Value, deadline: timedelta, *, doing: str, advice: str) -> bytes:
    """Give a request to a child process as JSON and wait for its answer.

    Args:
        command: how to start it.
        request: written to its standard input.
        deadline: after this the child and all it started are killed.
        doing: what it does, to begin a sentence with.
        advice: what to do when it is too slow.

    Returns:
        What it wrote to its standard output.

    Raises:
        ProcessError: it failed or was too slow; the message has its last line.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"DO_NOT_TRACK": "1", PARENT: str(os.getpid())},
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(request.model_dump_json().encode(), timeout=deadline.total_seconds())
    except subprocess.TimeoutExpired:
        seconds = deadline.total_seconds()
        raise ProcessError(f"{doing} was not done after {seconds:g} s and was stopped: {advice}") from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or [f"it ended with code {child.returncode}"]
        raise ProcessError(f"{doing} failed: {lines[-1]}")
    return output
