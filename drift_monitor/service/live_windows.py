"""The windows of a live stretch, judged as the monitor judges them, so that nobody trains on broken data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from drift_monitor.core.types import Outcome, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.refresh_manifest import LiveWindow

_USABLE = frozenset({Outcome.OK, Outcome.DRIFT})


def windows_of(stretch: Window, length: timedelta) -> list[Window]:
    """The windows that fill a stretch from its end, oldest first; the oldest may begin before the stretch."""
    count = -(-stretch.length // length)
    return [
        Window(start=stretch.end - i * length, end=stretch.end - (i - 1) * length) for i in range(count, 0, -1)
    ]


def judge(
    request: CheckRequest, windows: Sequence[Window | None], judged: Callable[[], None] = lambda: None
) -> tuple[LiveWindow, ...]:
    """Check each window. Those that are broken, empty or cannot be judged are not to be taken.

    Args:
        request: with any window.
        windows: to check; None for the whole source.
        judged: called after each.
    """
    found = []
    monitor = request.monitor.model_copy(update={"labels": None})  # only the verdict is asked for
    for window in windows:
        result = evaluate(request.model_copy(update={"window": window, "monitor": monitor}))
        taken = result.verdict in _USABLE
        reason = "" if taken else result.reason
        found.append(
            LiveWindow(window=window, rows=result.rows, verdict=result.verdict, taken=taken, reason=reason)
        )
        judged()
    return tuple(found)


def stretches(windows: Sequence[LiveWindow], whole: Window | None) -> list[Window | None]:
    """What is to be read: windows that are taken and follow each other, put together, and cut to the stretch.

    Args:
        windows: that were judged, oldest first.
        whole: the stretch; None where windows are not of event time.
    """
    if whole is None:
        return [each.window for each in windows if each.taken]
    found: list[Window | None] = []
    last: Window | None = None
    for window in (each.window for each in windows if each.taken and each.window is not None):
        start = max(window.start, whole.start)
        if last is not None and last.end == window.start:
            found.pop()
            start = last.start
        last = Window(start=start, end=window.end)
        found.append(last)
    return found
