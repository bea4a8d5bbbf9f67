"""The daemon: puts the parts together, keeps them running, reloads them, and stops them in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drift_monitor import __version__
from drift_monitor.actions.report import run_report
from drift_monitor.config.file import load
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import ConfigError, DriftMonitorError, StoreError
from drift_monitor.core.retraining import Event, Retraining
from drift_monitor.core.types import CheckResult
from drift_monitor.receivers import is_repeatable, send
from drift_monitor.service import systemd
from drift_monitor.service.clock import Clock
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.feature_series import FeatureSeries
from drift_monitor.service.guard import TokenFile
from drift_monitor.service.intake import Intake
from drift_monitor.service.logs import fields
from drift_monitor.service.messages import Links
from drift_monitor.service.metrics import Exposition
from drift_monitor.service.outbox import Outbox, wall_clock
from drift_monitor.service.pool import COMMAND, WorkerPool
from drift_monitor.service.projection import exemplars, project
from drift_monitor.service.reporter import Make, Reporter
from drift_monitor.service.retrain_work import Work
from drift_monitor.service.retrainer import Retrainer
from drift_monitor.service.retraining_messages import Sender
from drift_monitor.service.runs import MAX_ATTEMPTS, Hooks, Runs
from drift_monitor.service.scheduler import Scheduler
from drift_monitor.service.server import Application, Server
from drift_monitor.service.signals import Signals
from drift_monitor.service.status import Health, Parts, status, view
from drift_monitor.service.store import Run, Store

log = logging.getLogger(__name__)

TICK = 1.0  # seconds between two looks at the clock and the store
LOOK = (
    60.0  # seconds between two looks for due windows besides the alarm clock's, which a suspended machine delays
)
RETRY = 5.0  # seconds until a store that failed is tried again
PURGE = 3600.0  # seconds between two purges
LAST_WORDS = timedelta(seconds=5)  # for deliveries under way, after the runs had their grace


class StartError(DriftMonitorError):
    """The daemon cannot start."""


class App:
    """One daemon.

    Args:
        config_path: the configuration file, read again at each reload.
        clock: logical time; the wall clock when None.
        worker: how to start a worker child.
        make_report: makes an Evidently report.
        work: what retrainings need done.
    """

    def __init__(
        self,
        config_path: Path,
        clock: Clock | None = None,
        *,
        worker: Sequence[str] = COMMAND,
        make_report: Make = run_report,
        work: Work | None = None,
    ) -> None:
        self._path, self._clock = config_path, clock or Clock()
        self._worker, self._make_report, self._work = worker, make_report, work
        self._signals = Signals()
        self._reloading = threading.Lock()
        self._health = Health()
        self._broken = False
        self._drawn: tuple[object, ...] = ()
        self._next: dict[str, float] = {}
        self.exposition = Exposition()
        self.config: Config
        self.store: Store

    # -- what the server asks ----------------------------------------------------------------------

    @property
    def reports(self) -> Path:
        """The folder of Evidently reports."""
        return self.config.state / "reports"

    @property
    def address(self) -> str:
        """Base URL at which this machine reaches the server."""
        host = self.config.server.address[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound to, replaced
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    def not_ready(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""
        return self._health.not_ready()

    def status(self) -> dict[str, object]:
        """The answer of /api/v1/status."""
        return status(self.config, self._health, self._parts)

    def retry(self, delivery: int) -> bool:
        """Send a message again now; False when there is none such."""
        found = self.store.outbox.replay(delivery, wall_clock())
        if found:
            self._outbox.kick()
        return found

    def drop(self, delivery: int) -> bool:
        """Delete a message; False when there is none such."""
        return self.store.outbox.drop(delivery)

    def move(self, name: str, event: Event, **news: object) -> Retraining:
        """Apply an event to a retraining."""
        return self._retrainer.move(name, event, **news)

    def begin(self, monitor: str, by: str) -> Retraining:
        """Ask for a retraining by hand."""
        begun = self._retrainer.begin(monitor, by)
        self._signals.wake()
        return begun

    def reload(self) -> list[str]:
        """Read the configuration again and run it, or keep the old one running.

        Returns:
            The problems found; empty when the new one runs.
        """
        with self._reloading:
            systemd.reloading()
            try:
                config = self._read(self.config)
            except ConfigError as error:
                self._health.problems = error.problems
                for problem in error.problems:
                    log.error("bad configuration; the old one keeps running", extra=fields(problem=problem))  # noqa: TRY400
            else:
                self.config = config
                self._outbox.reconfigure(config.receivers)
                self._pool.reconfigure(config.workers)
                self.intake.reconfigure(config)
                self._scheduler.replace(config.monitors)
                self._health.problems, self._health.reloaded = [], datetime.now(UTC)
                log.info("configuration loaded", extra=fields(path=self._path, monitors=len(config.monitors)))
            systemd.notify("READY=1")
            self._signals.wake()
            return self._health.problems

    def _read(self, running: Config | None) -> Config:
        """The configuration, with all checked that could keep it from running.

        Raises:
            ConfigError: it cannot be run.
        """
        config = load(self._path)
        problems = []
        if config.server.token_file is not None:
            try:
                TokenFile(config.server.token_file).read()
            except (OSError, ValueError) as error:
                problems.append(f"{self._path}: server.token_file: {config.server.token_file}: {error}")
        if running is not None:
            for what, was, now in (
                ("state", running.state, config.state),
                ("server.listen", running.server.listen, config.server.listen),
            ):
                if was != now:
                    problems.append(f"{self._path}: {what}: a change from {was} to {now} takes a restart")
        if problems:
            raise ConfigError(problems)
        return config

    # -- from start to stop ------------------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal or `stop` ends it; the exit code.

        Raises:
            ConfigError: the configuration cannot be used.
            DriftMonitorError: the state or the address cannot be had.
        """
        with self._signals, self._ended_by_a_thread():
            self._open()
            try:
                self._start()
                self._loop()
            finally:
                self._stop()
        return 1 if self._broken else 0

    def stop(self) -> None:
        """Ask for the end, from any thread; a second time, for an immediate one."""
        self._signals.stop()

    @contextmanager
    def _ended_by_a_thread(self) -> Iterator[None]:
        """Let a thread that ends by surprise end the daemon: half a daemon looks alive, and a new one works."""

        def end(thread: threading.ExceptHookArgs) -> None:
            log.critical(
                "a thread ended by surprise, and with it the daemon",
                extra=fields(thread=thread.thread and thread.thread.name),
                exc_info=thread.exc_value,
            )
            self._broken = True
            self._signals.stop()

        before, threading.excepthook = threading.excepthook, end
        try:
            yield
        finally:
            threading.excepthook = before

    def _open(self) -> None:
        config = self.config = self._read(None)
        self.store = Store.open(config.state)
        self._features = FeatureSeries(self.store.result)
        try:
            self._build(config)
        except BaseException:
            self.store.close()
            raise

    def _start(self) -> None:
        config = self.config
        self.store.announce(self.address)
        self._runs.finish_poisonous(self.store.recover(MAX_ATTEMPTS))
        self._draw()
        self.intake.start(config)
        self._server.start()
        self._outbox.start()
        self._parts.reporter.start()
        self._retrainer.start()
        self._pool.start()
        self._clock.begin()
        self._scheduler.start(config.monitors)
        self._parts.reporter.ask_missing(self.store, config)
        self._health.state = "running"
        about = fields(version=__version__, address=self.address, monitors=len(config.monitors))
        log.info("drift-monitor started", extra=about)
        systemd.notify("READY=1")

    def _build(self, config: Config) -> None:
        self._outbox = Outbox(self.store.outbox, config.receivers, wall_clock, send, is_repeatable=is_repeatable)
        self._runs = Runs(
            self.store,
            lambda: self.config,
            self._links,
            self._source,
            Hooks(self._finished, self._report, self._stored, self._failed),
        )
        runs = self._runs
        self.intake = Intake(self.store.count)
        self._pool = WorkerPool(config.workers, self._take, runs.done, runs.give_back, command=self._worker)
        self._scheduler = Scheduler(self.store, self._clock, entered=self._pool.kick, failed=self._failed)
        reporter = Reporter(self.reports, self._make_report)
        self._retrainer = Retrainer(
            self.store,
            lambda: self.config,
            lambda: Sender(self._source, self._base),
            self._outbox.kick,
            self._work,
        )
        self._parts = Parts(self.store, self._clock, self._scheduler, self._pool, reporter, self.intake)
        try:
            self._server = Server(*config.server.address, Application(self))
        except OSError as error:
            raise StartError(
                f"cannot listen on {config.server.listen}: {error.strerror}: set server.listen to another address"
            ) from error

    def _loop(self) -> None:
        beat = systemd.watchdog_seconds() or TICK
        while not self._signals.stops:
            if self._signals.take_reload():
                self.reload()
            self._scheduler.watch_clock()
            if self._health.store_error is not None:
                self._every(RETRY, self._probe)
            self._every(TICK / 2, self._draw)
            self._every(TICK / 2, self._look_after_retrainings)
            self._every(LOOK, self._scheduler.enter_all)
            self._every(PURGE, self._purge)
            self._watch_replay()
            systemd.notify("WATCHDOG=1")
            self._signals.wait(min(TICK, beat))

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something unless it was done just now; what takes long gets a fifth of the time at most."""
        began = time.monotonic()
        if began >= self._next.get(action.__name__, 0.0):
            action()
            took = time.monotonic() - began
            self._next[action.__name__] = began + max(seconds, 5 * took)

    def _stop(self) -> None:
        self._health.state = "stopping"
        grace = self.config.workers.grace
        systemd.stopping(grace + 3 * LAST_WORDS)
        log.info("stopping", extra=fields(running=len(self._pool.running), grace=grace))
        self._scheduler.stop()
        self.intake.refuse_more()
        self._runs.give_up_waiting()
        parts = ((self._pool.stop, grace), (self.intake.stop, LAST_WORDS), (self._outbox.stop, LAST_WORDS))
        for part, seconds in parts:
            thread = threading.Thread(target=part, args=(seconds,), daemon=True)
            thread.start()
            while thread.is_alive():
                if self._signals.hurried:
                    self._pool.kill()
                    if part == self._outbox.stop:
                        break  # what is on its way is sent again at the next start
                systemd.notify("WATCHDOG=1")
                self._signals.wait(0.1)
        self._server.stop()
        self.store.close()
        log.info("stopped")

    # -- in between --------------------------------------------------------------------------------

    def _take(self) -> tuple[Run, CheckRequest] | None:
        """The next run, whose rows are all where a check finds them."""
        found = self._runs.take()
        if found is not None:
            self.intake.flush(found[0].monitor, found[1].monitor)
        return found

    def _links(self, monitor: str, run: int | None) -> Links:
        base = self._base
        return Links(f"{base}/monitors/{monitor}", None if run is None else f"{base}/reports/{run}.html", base)

    @property
    def _base(self) -> str:
        public = self.config.server.public_url
        return str(public).rstrip("/") if public else self.address

    @property
    def _source(self) -> str:
        return f"/drift-monitor/{self._path.stem}"

    def _look_after_retrainings(self) -> None:
        try:
            self._retrainer.look()
        except StoreError as error:
            log.error("retrainings cannot be looked after", extra=fields(error=error))  # noqa: TRY400
            self._failed(error)

    def _finished(self) -> None:
        self._outbox.kick()
        self._signals.wake()

    def _report(self, run: Run, monitor: Monitor, result: CheckResult) -> None:
        self._parts.reporter.ask_for(run.id, monitor, result, self.config.state)

    def _stored(self) -> None:
        if self._health.store_error is not None:
            log.info("the state can be written again")
        self._health.store_error = None

    def _failed(self, error: StoreError) -> None:
        self._health.store_error = str(error)
        self._signals.wake()

    def _probe(self) -> None:
        """Whether the store can be written again; if so, take up what had to wait."""
        try:
            name = next(iter(self.config.monitors))
            self.store.count("runs_missed_total", {"monitor": name}, 0)  # a write that changes nothing
        except StoreError as error:
            self._failed(error)
            return
        self._stored()
        self._scheduler.enter_all()
        self._pool.kick()

    def _purge(self) -> None:
        retention = self.config.retention
        try:
            gone = self.store.purge(
                datetime.now(UTC),
                monitors=self.config.monitors,
                results=retention.results,
                runs=retention.runs,
                delivered=retention.delivered,
            )
            self._parts.reporter.purge(retention.reports)
            self._retrainer.purge(retention.reports)
        except (DriftMonitorError, OSError) as error:
            log.error("what is past its time cannot be deleted", extra=fields(error=error))  # noqa: TRY400
        else:
            if gone:
                log.info("deleted what is past its time", extra=fields(rows=gone))

    def _draw(self) -> None:
        """Render the metrics if anything changed."""
        health = self._health
        key = (
            self.store.changes,
            health.reloaded,
            tuple(health.problems),
            health.replay_finished,
            self._scheduler.running,
            tuple(run.id for run in self._pool.running),
            self.intake.waiting,
            self.intake.figures,
        )
        if key == self._drawn:
            return
        try:
            drawn = view(self.config, health, self._parts)
            self.exposition.update(project(drawn, self._features), exemplars(drawn))
        except StoreError as error:
            log.error("the state cannot be read", extra=fields(error=error))  # noqa: TRY400
            self._failed(error)
        else:
            self._drawn = key

    def _watch_replay(self) -> None:
        until = self._clock.replay_until
        if until is None or self._health.replay_finished or self._clock.now() < until:
            return
        self._scheduler.enter_all()
        try:
            finished = self._runs.idle
        except StoreError as error:
            self._failed(error)
            return
        if self._health.store_error is None and finished:
            self._health.replay_finished = True
            log.info("replay finished", extra=fields(until=until.isoformat()))
