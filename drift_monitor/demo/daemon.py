"""The real daemon as a child of the demo, followed through its own log."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from drift_monitor.core.episode import Reason
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Lane, Outcome

_SILENCE: Final = 120.0  # seconds without a log line after which something is wrong
_GRACE: Final = 25.0  # seconds for a clean stop


class DaemonError(DriftMonitorError):
    """The daemon ended, or stopped working."""


@dataclass(frozen=True)
class WindowDone:
    """What the daemon logged about one window.

    Attributes:
        drift, quality: what it did to the monitor's episode of that lane, such as `opened`.
    """

    monitor: str
    start: datetime
    end: datetime
    verdict: Outcome
    reason: str
    drift: str
    quality: str

    @property
    def opened(self) -> tuple[Lane, ...]:
        """The lanes in which it opened an alarm."""
        lanes: tuple[tuple[Lane, str], ...] = (("drift", self.drift), ("quality", self.quality))
        return tuple(lane for lane, did in lanes if did == Reason.OPENED)


class Daemon:
    """`drift-monitor run` over a stretch of the past, while the `with` block lasts.

    Args:
        config: the configuration file.
        log: where its log goes.
        start: logical time at which it begins.
        until: logical time at which its clock stops; it goes on serving.
        speed: logical seconds a real second.
    """

    def __init__(self, config: Path, log: Path, *, start: datetime, until: datetime, speed: float) -> None:
        self._config, self._log = config, log
        self._replay = [
            *("--replay-from", start.isoformat()),
            *("--replay-until", until.isoformat()),
            *("--replay-speed", str(speed)),
        ]
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._kept: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        run = ["run", "--config", str(self._config), "--log-format", "json", *self._replay]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "drift_monitor", *run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, name="daemon log", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)
        self._reader.join()

    def windows(self, count: int) -> Iterator[WindowDone]:
        """Windows as they are finished, until there were `count`.

        Raises:
            DaemonError: the daemon ended or fell silent.
        """
        for event in self._until_silent():
            if event["event"] == "window done":
                start, _, end = str(event["window"]).partition(" .. ")
                yield WindowDone(
                    monitor=str(event["monitor"]),
                    start=datetime.fromisoformat(start),
                    end=datetime.fromisoformat(end),
                    verdict=Outcome(event["verdict"]),
                    reason=str(event["reason"]),
                    drift=str(event["drift"]),
                    quality=str(event["quality"]),
                )
                count -= 1
                if not count:
                    return
            else:
                self._kept.append(event)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Until it ends."""
        self._process.wait()

    def report(self, monitor: str, end: datetime, deadline: timedelta) -> Path | str:
        """The Evidently report of the window with this end, waiting for it; or why there is none."""
        give_up = time.monotonic() + deadline.total_seconds()
        seen = 0
        while time.monotonic() < give_up:
            for event in self._kept[seen:]:
                about = event.get("monitor") == monitor and str(event.get("window")).endswith(
                    f"{end:%Y-%m-%dT%H:%M}Z"
                )
                if about and event["event"] == "report made":
                    return Path(event["path"])
                if about and event["event"] == "report failed":
                    return str(event["error"])
            seen = len(self._kept)
            with contextlib.suppress(queue.Empty):
                said = self._events.get(timeout=1)
                if said is None:
                    return "the daemon has ended"
                self._kept.append(said)
        return f"it was not made within {deadline.total_seconds():g} s"

    def _until_silent(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                event = self._events.get(timeout=_SILENCE)
            except queue.Empty:
                raise DaemonError(
                    f"the daemon has said nothing for {_SILENCE:g} s; its log is {self._log}"
                ) from None
            if event is None:
                self._process.wait()
                lines = self._log.read_text(errors="replace").strip().splitlines()[-3:]
                raise DaemonError(
                    f"the daemon ended with code {self._process.returncode}; its log {self._log} ends with\n"
                    + "\n".join(lines)
                )
            yield event

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        with self._process.stderr as lines, self._log.open("wb") as log:
            for line in lines:
                log.write(line)
                log.flush()
                try:
                    event = json.loads(line)
                except ValueError:  # a line that is not the daemon's own, such as a warning of a library
                    continue
                if isinstance(event, dict) and "event" in event:
                    self._events.put(event)
        self._events.put(None)


def end(process: subprocess.Popen[Any], grace: float = _GRACE) -> None:
    """Ask a process to end and wait; one that does not is killed."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
