"""Threads that feed worker children one run at a time, and replace those that had to be killed."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from drift_monitor.config.daemon import Workers
from drift_monitor.core.types import CheckResult, FailureReason
from drift_monitor.service.child import Child, RunFailedError, StoppedError
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.logs import fields
from drift_monitor.service.store import Run
from drift_monitor.service.worker import cannot_judge

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "drift_monitor.service.worker")


class WorkerPool:
    """Threads that each hold a child and feed it one run after another.

    Args:
        workers: how many, deadline, memory, idle time.
        take: gives the next run and its request, marked as running; None when there is none now.
        done: gets each result.
        give_back: gets a run that was stopped without one. None of the three may raise.
        command: how to start a child.
    """

    def __init__(
        self,
        workers: Workers,
        take: Callable[[], tuple[Run, CheckRequest] | None],
        done: Callable[[Run, CheckResult], None],
        give_back: Callable[[Run], None],
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._workers, self._command = workers, command
        self._take, self._done, self._give_back = take, done, give_back
        self._changed = threading.Condition()
        self._kicks = 0
        self._stopping = False
        self._stopped = threading.Event()
        self._threads: dict[int, threading.Thread] = {}
        self._children: dict[int, Child] = {}
        self._running: dict[int, Run] = {}

    @property
    def running(self) -> list[Run]:
        """The runs that are being evaluated now."""
        with self._changed:
            return list(self._running.values())

    @property
    def children(self) -> list[int]:
        """Process ids of the children, busy or warm."""
        with self._changed:
            return [child.pid for child in self._children.values()]

    def start(self) -> None:
        """Begin to take runs."""
        with self._changed:
            for index in range(self._workers.count):
                if index not in self._threads:
                    thread = threading.Thread(
                        target=self._slot, args=(index,), name=f"worker-{index}", daemon=True
                    )
                    self._threads[index] = thread
                    thread.start()

    def kick(self) -> None:
        """Look for runs again: something may have become due."""
        with self._changed:
            self._kicks += 1
            self._changed.notify_all()

    def reconfigure(self, workers: Workers) -> None:
        """Change count and limits; runs in progress end under the old ones."""
        with self._changed:
            self._workers = workers
        self.start()
        self.kick()

    def stop(self, grace: timedelta) -> bool:
        """Take no more runs, wait for those in progress, then kill what is left.

        Returns:
            Whether all runs ended by themselves.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            clean = self._changed.wait_for(
                lambda: not self._running or self._stopped.is_set(), grace.total_seconds()
            )
            clean = clean and not self._running
            threads = list(self._threads.values())
        self._stopped.set()
        for thread in threads:
            thread.join()
        return clean

    def kill(self) -> None:
        """Cut the grace of `stop` short."""
        self._stopped.set()
        self.kick()

    def _slot(self, index: int) -> None:
        while True:
            with self._changed:
                seen, workers = self._kicks, self._workers
                if self._stopping or index >= workers.count:
                    self._end_child(index)  # before another thread can take the place, and make its own
                    del self._threads[index]
                    return
            work = self._take()
            if work is not None:
                self._run(index, *work)
                continue
            idle = workers.idle.total_seconds() if index in self._children else None
            with self._changed:
                woken = self._wait_for_kick(seen, idle)
            if not woken:
                self._end_child(index)

    def _wait_for_kick(self, seen: int, idle: float | None) -> bool:
        return self._changed.wait_for(lambda: self._kicks != seen or self._stopping, idle)

    def _run(self, index: int, run: Run, request: CheckRequest) -> None:
        with self._changed:
            self._running[index] = run
            workers = self._workers
        try:
            result = self._outcome(index, run, request, workers)
        except StoppedError:
            log.warning("run stopped; it is due again at the next start", extra=_named(run))
            self._give_back(run)
        else:
            self._done(run, result.model_copy(update={"monitor": run.monitor, "window": run.window}))
        finally:
            with self._changed:
                del self._running[index]
                self._kicks += 1  # another window of the same monitor may be taken now
                self._changed.notify_all()

    def _outcome(self, index: int, run: Run, request: CheckRequest, workers: Workers) -> CheckResult:
        try:
            return self._evaluate(index, request, workers)
        except StoppedError:
            raise
        except RunFailedError as error:
            log.error("run failed", extra=_named(run, failure=error.failure.value, reason=str(error)))  # noqa: TRY400
            return cannot_judge(run.monitor, run.window, error.failure, str(error))
        except Exception as error:  # a mistake of ours costs this run, not the thread and all runs to come
            log.exception("run failed", extra=_named(run))
            reason = f"the check could not be carried out: {error!a}"
            return cannot_judge(run.monitor, run.window, FailureReason.INTERNAL, reason)

    def _evaluate(self, index: int, request: CheckRequest, workers: Workers) -> CheckResult:
        child = self._children.get(index)
        if child is None or not child.usable or child.memory != workers.memory:
            self._end_child(index)
            try:
                child = Child(self._command, workers.memory, self._stopped)
            except OSError as error:
                raise RunFailedError(FailureReason.INTERNAL, f"a worker cannot be started: {error}") from error
            with self._changed:
                self._children[index] = child
        return child.evaluate(request, workers)

    def _end_child(self, index: int) -> None:
        with self._changed:
            child = self._children.pop(index, None)
        if child is not None:
            child.kill()


def _named(run: Run, **values: object) -> dict[str, dict[str, object]]:
    return fields(monitor=run.monitor, window=str(run.window), run=run.id, **values)
