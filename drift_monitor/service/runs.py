"""The life of a run: taken in turn, evaluated by a child, and committed with all that follows from it."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.episode import Reason, Transition, step
from drift_monitor.core.errors import StoreError
from drift_monitor.core.late_rows import Again, comparable, compared, revised
from drift_monitor.core.types import CheckResult, FailureReason, Lane
from drift_monitor.service.evaluate import CheckRequest, Earlier
from drift_monitor.service.logs import fields
from drift_monitor.service.messages import Links, message
from drift_monitor.service.retrain_plan import plan
from drift_monitor.service.retraining_messages import Sender, given_up
from drift_monitor.service.store import Run, Store
from drift_monitor.service.worker import cannot_judge

log = logging.getLogger(__name__)

LANES: tuple[Lane, ...] = ("drift", "quality")
LEDGER = 100  # retrainings of a monitor that the guard rails look at
MAX_ATTEMPTS = 3  # a window that was being evaluated each time the daemon died is not tried again
SEVERITIES: dict[Reason, Literal["warning", "critical"]] = {
    Reason.OPENED: "warning",
    Reason.ESCALATED: "critical",
}
STORE_PAUSE = 5.0  # seconds until a result that could not be stored is tried again


@dataclass(frozen=True)
class Hooks:
    """Whom to tell.

    Attributes:
        finished: a result was committed.
        report: (run, monitor, result) a report of it was promised.
        stored: a write succeeded.
        failed: a write failed; what was to be written is kept, or still due.
    """

    finished: Callable[[], None]
    report: Callable[[Run, Monitor, CheckResult], None]
    stored: Callable[[], None]
    failed: Callable[[StoreError], None]


class Runs:
    """Gives due runs to the workers, and commits what they found.

    Args:
        store: the record.
        config: what runs now.
        links: (monitor, run or None) -> where a message points.
        source: the CloudEvents source, without the monitor.
        hooks: whom to tell.
    """

    def __init__(
        self,
        store: Store,
        config: Callable[[], Config],
        links: Callable[[str, int | None], Links],
        source: str,
        hooks: Hooks,
    ) -> None:
        self._store, self._config, self._links, self._source, self._hooks = store, config, links, source, hooks
        self._lock = threading.Lock()
        self._busy: dict[str, Monitor] = {}
        self._turn = itertools.count()
        self._served: dict[str, int] = {}
        self._stopping = threading.Event()

    def take(self) -> tuple[Run, CheckRequest] | None:
        """The next run: the oldest of the monitor that has waited longest for its turn, marked as running."""
        with self._lock:
            config = self._config()  # once: a reload may take the monitor away at any moment
            try:
                run = self._next(config)
                if run is None:
                    return None
                earlier = self._earlier(run, config.monitors[run.monitor])
                self._store.start(run.id, datetime.now(UTC))
            except StoreError as error:
                log.error("no run can be started", extra=fields(error=error))  # noqa: TRY400
                self._hooks.failed(error)
                return None
            monitor = config.monitors[run.monitor]
            self._busy[run.monitor] = monitor
            self._served[run.monitor] = next(self._turn)
        self._hooks.stored()
        if run.again:  # labels say nothing new of a window that is judged again
            monitor = monitor.model_copy(update={"labels": None})
        window = None if monitor.source.timestamp is None else run.window
        request = CheckRequest(
            name=run.monitor, monitor=monitor, state=config.state, window=window, earlier=earlier
        )
        return run, request

    def _next(self, config: Config) -> Run | None:
        """New windows come before those that are judged again."""
        due = {name: run for name, (run, _) in self._store.waiting().items()}
        ready = [
            run
            for name, run in {**self._reopened(config), **due}.items()
            if name in config.monitors and config.monitors[name].enabled and name not in self._busy
        ]
        return min(ready, key=lambda run: self._served.get(run.monitor, -1), default=None)

    def _reopened(self, config: Config) -> dict[str, Run]:
        """Windows to be judged again; those that the configuration of now would not look at stay as they are."""
        found, again = self._store.reopened(), False
        for name, run in found.items():
            if (monitor := config.monitors.get(name)) is None:
                continue
            wanted = monitor.window.length if monitor.window.lateness else timedelta(0)
            if run.window.length != wanted:
                self._store.leave_others(name, wanted)
                again = True
        return self._store.reopened() if again else found

    def _earlier(self, run: Run, monitor: Monitor) -> tuple[Earlier, ...]:
        """The windows whose rows may have changed since the window before this one was judged."""
        window = monitor.window
        if not window.lateness or run.again:
            return ()
        found = self._store.earlier(run.monitor, run.window.end, window.length, window.lateness)
        return tuple(Earlier(window=at, read_from=made_of) for at, made_of in found)

    @property
    def idle(self) -> bool:
        """Whether nothing is being evaluated and nothing waits.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock:
            return not self._busy and self._next(self._config()) is None

    def finish_poisonous(self, runs: list[Run]) -> None:
        """Give up runs that were being evaluated each of several times that the daemon died.

        Call it before any run is taken, so that the windows of a monitor stay in order.

        Raises:
            StoreError: it cannot be recorded.
        """
        for run in runs:
            if (monitor := self._config().monitors.get(run.monitor)) is None:
                self._store.give_back(run.id)
                continue
            reason = f"the daemon died {run.attempts} times while it evaluated this window, so it was given up"
            self._finish(run, monitor, cannot_judge(run.monitor, run.window, FailureReason.INTERNAL, reason))

    def give_back(self, run: Run) -> None:
        """A run that was stopped with the daemon, through no fault of its own, is due again. Does not raise."""
        try:
            self._store.give_back(run.id)
        except StoreError as error:  # then the next start makes it due
            log.error("a run cannot be given back", extra=fields(monitor=run.monitor, error=error))  # noqa: TRY400
        finally:
            with self._lock:
                self._busy.pop(run.monitor, None)

    def done(self, run: Run, result: CheckResult) -> None:
        """Commit a result, however long the store takes to accept it. Does not raise."""
        monitor = self._busy[run.monitor]
        try:
            while True:
                try:
                    if run.again:
                        self._revise(run, result)
                    else:
                        self._finish(run, monitor, result)
                except StoreError as error:  # the disk is full, say: the result is kept until it is not
                    log.error("a result cannot be stored", extra=fields(monitor=run.monitor, error=error))  # noqa: TRY400
                    self._hooks.failed(error)
                    if self._stopping.wait(STORE_PAUSE):
                        return
                except Exception as error:
                    log.exception("a result cannot be applied", extra=fields(monitor=run.monitor, run=run.id))
                    if result.failure is FailureReason.INTERNAL:
                        return  # it stays running, and is taken up at the next start
                    reason = f"the result could not be applied: {error!a}"
                    result = cannot_judge(run.monitor, run.window, FailureReason.INTERNAL, reason)
                else:
                    self._hooks.stored()
                    return
        finally:
            with self._lock:
                self._busy.pop(run.monitor, None)

    def give_up_waiting(self) -> None:
        """Wait for the store no longer: the daemon stops."""
        self._stopping.set()

    def _finish(self, run: Run, monitor: Monitor, result: CheckResult) -> None:
        store, alarm, now = self._store, monitor.alarm, datetime.now(UTC)
        history = store.history(run.monitor, run.window.end, alarm.persistence.of)
        drift, quality = (
            step(lane, store.episode(run.monitor, lane), history, result, alarm, monitor.maintenance)
            for lane in LANES
        )
        ledger = store.retrainings.newest(run.monitor, LEDGER) if monitor.retrain is not None else []
        planned = plan(drift, quality.episode, result, monitor.retrain, ledger, now)
        transitions = [planned.transition, quality]
        report = drift.reason is Reason.OPENED and monitor.report.enabled
        links = self._links(run.monitor, run.id if report else None)
        messages = [
            (receiver, said)
            for t in transitions
            if (said := message(t, result, monitor, source=self._source, links=_for_lane(links, t)))
            for receiver in monitor.notify
        ]
        if planned.given_up and (episode := planned.transition.episode) is not None:
            messages += given_up(episode, planned.given_up, monitor, Sender(self._source, links.base))
        store.finish(
            run.id,
            result,
            now=now,
            episodes=[t.episode for t in transitions if t.changed and t.episode is not None],
            messages=messages,
            counts=[
                ("alerts_total", {"monitor": run.monitor, "severity": SEVERITIES[t.reason]}, 1)
                for t in transitions
                if t.reason in SEVERITIES
            ],
            observations=[
                ("run_duration_seconds", {"monitor": run.monitor, "phase": phase}, seconds)
                for phase, seconds in result.seconds.items()
            ],
            retraining=planned.retraining,
        )
        _log(run, result, transitions)
        self._hooks.finished()
        if report:
            self._hooks.report(run, monitor, result)

    def _revise(self, run: Run, result: CheckResult) -> None:
        """Keep what was found when a window was judged again; nobody is told, and no episode changes."""
        before = self._store.result(run.id)
        again = Again.FAILED if before is None else compared(before, result)
        if before is not None and again is Again.REVISED:
            self._store.revise(run.id, revised(before, result))
        else:
            failed = again is Again.FAILED
            # what failed for a reason that may pass is tried with the next window
            judged = not failed or result.failure is FailureReason.SCHEMA
            known = judged and before is not None and comparable(before, result)
            self._store.leave(run.id, result.read_from if known else None, failed=failed)
        log.log(
            logging.WARNING if again is Again.FAILED else logging.INFO,
            "window judged again",
            extra=fields(
                monitor=run.monitor,
                run=run.id,
                window=run.window,
                outcome=again.value,
                verdict=result.verdict.value,
                rows=result.rows,
                rows_before=None if before is None else before.rows,
                reason=result.reason[:500],
            ),
        )
        self._hooks.finished()


def _for_lane(links: Links, transition: Transition) -> Links:
    return links if transition.lane == "drift" else replace(links, report=None)


def _log(run: Run, result: CheckResult, transitions: list[Transition]) -> None:
    log.info(
        "window done",
        extra=fields(
            monitor=run.monitor,
            run=run.id,
            window=run.window,
            verdict=result.verdict.value,
            rows=result.rows,
            score=result.score,
            threshold=result.threshold,
            reason=result.reason[:500],
            **{t.lane: t.reason.value for t in transitions},
        ),
    )
