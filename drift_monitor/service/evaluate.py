"""One check of one window, from files to verdict: what a worker child and `drift-monitor check` both run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from drift_monitor.config.models import Monitor
from drift_monitor.core.types import CheckResult, Value, Window


class CheckRequest(Value):
    """What a check needs; travels to the child as JSON.

    Attributes:
        name: of the monitor.
        state: the state folder; a reference built from a training file is kept below it.
        window: the stretch of event time; None for the whole source (no timestamp column).
    """

    name: str
    monitor: Monitor
    state: Path
    window: Window | None


def evaluate(request: CheckRequest, *, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Read, profile and judge one window.

    Never raises for what can go wrong with data, files or the reference: those end as verdict
    `cannot_judge` with a reason that names what and where.

    Args:
        request: monitor and window.
        progress: called with (splits done, splits in all).
    """
    raise NotImplementedError
