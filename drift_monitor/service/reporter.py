"""Makes Evidently reports one after another, beside the runs and never in their way."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from drift_monitor.actions.report import ReportRequest, run_report
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import CheckResult
from drift_monitor.service.logs import fields
from drift_monitor.service.store import Store

log = logging.getLogger(__name__)

MOST_FAILED = 100  # reports of which it is remembered why they failed; the log has all
Make = Callable[[ReportRequest, timedelta], object]


class Reporter:
    """One thread and, while a report is being made, one child.

    Args:
        folder: where the pages go, named by run.
        make: makes one, or raises DriftMonitorError.
    """

    def __init__(self, folder: Path, make: Make = run_report) -> None:
        self.folder, self._make = folder, make
        self.failed: dict[int, str] = {}
        self._queue: queue.SimpleQueue[tuple[ReportRequest, timedelta]] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="reports", daemon=True)

    @property
    def waiting(self) -> int:
        """Reports asked for and not made yet."""
        return self._waiting

    def start(self) -> None:
        """Begin to make what is asked for. It ends, as its child does, with the process."""
        self._thread.start()

    def ask(self, request: ReportRequest, deadline: timedelta) -> None:
        """Have a report made when those before it are."""
        with self._lock:
            self._waiting += 1
        self._queue.put((request, deadline))

    def ask_for(self, run: int, monitor: Monitor, result: CheckResult, state: Path) -> None:
        """Have a report of a run made."""
        request = ReportRequest(
            name=result.monitor,
            monitor=monitor,
            state=state,
            window=None if monitor.source.timestamp is None else result.window,
            output=self.path(run),
            run=run,
            first=tuple(dict.fromkeys(f.column or f.name for f in result.drifted)),
        )
        self.ask(request, monitor.report.deadline)

    def ask_missing(self, store: Store, config: Config) -> None:
        """Have reports made that a message promised when the last process ended."""
        for episode in store.snapshot().open_episodes:
            monitor = config.monitors.get(episode.monitor)
            if episode.lane != "drift" or monitor is None or not monitor.report.enabled:
                continue
            run = store.run_of(episode.monitor, episode.opened)
            if run is None or self.path(run).exists() or (result := store.result(run)) is None:
                continue
            self.ask_for(run, monitor, result, config.state)

    def path(self, run: int) -> Path:
        """Where the report of a run is, or will be."""
        return self.folder / f"{run}.html"

    def purge(self, age: timedelta) -> None:
        """Delete reports past their time, and what was half written when a child was killed."""
        for page in (*self.folder.glob("*.html"), *self.folder.glob(".*.html.*")):
            with suppress(FileNotFoundError):  # it got its name meanwhile
                if page.stat().st_mtime < time.time() - age.total_seconds():
                    page.unlink()

    def _work(self) -> None:
        while True:
            request, deadline = self._queue.get()
            began = time.monotonic()
            about = fields(monitor=request.name, run=request.run, window=request.window)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make(request, deadline)
            except (DriftMonitorError, OSError) as error:
                self._fail(request, str(error))
                log.error("report failed", extra=fields(**about["fields"], error=error))  # noqa: TRY400
            except Exception as error:
                self._fail(request, repr(error))
                log.exception("report failed", extra=about)
            else:
                seconds = round(time.monotonic() - began, 1)
                log.info("report made", extra=fields(**about["fields"], path=request.output, seconds=seconds))
            with self._lock:
                self._waiting -= 1

    def _fail(self, request: ReportRequest, why: str) -> None:
        if request.run is not None:
            self.failed[request.run] = why
            while len(self.failed) > MOST_FAILED:
                del self.failed[next(iter(self.failed))]
