"""Signals and wake-ups for a loop in the main thread. A handler only counts; the loop acts."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType
from typing import Any

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """SIGTERM and SIGINT ask for the end, SIGHUP for a reload; any thread may wake the loop.

    Handlers are only set when it is entered in the main thread.

    Attributes:
        stops: how often the end was asked for; more than once means at once.
    """

    def __init__(self) -> None:
        self.stops = 0
        self._reload = False
        self._ears, self._mouth = os.pipe()
        os.set_blocking(self._ears, False)
        os.set_blocking(self._mouth, False)
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._count) for number in _HANDLED}
            self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._ears)
        os.close(self._mouth)

    @property
    def hurried(self) -> bool:
        """Whether the end was asked for more than once."""
        return self.stops > 1

    def stop(self) -> None:
        """Ask for the end, from any thread."""
        self.stops += 1
        self.wake()

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def wake(self) -> None:
        """End the wait, from any thread."""
        with contextlib.suppress(OSError):  # full, and will wake it anyway; or closed, and nobody waits
            os.write(self._mouth, b"!")

    def wait(self, seconds: float) -> None:
        """Sleep until somebody wakes us, at most this long."""
        if select.select([self._ears], [], [], seconds)[0]:
            os.read(self._ears, 1 << 16)

    def _count(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.stops += 1
