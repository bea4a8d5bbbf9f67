"""How the daemon stands: for /api/v1/status, and as the view that metrics are drawn from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from drift_monitor import __version__
from drift_monitor.config.models import Config
from drift_monitor.service.clock import Clock
from drift_monitor.service.intake import Intake
from drift_monitor.service.pool import WorkerPool
from drift_monitor.service.projection import View
from drift_monitor.service.reporter import Reporter
from drift_monitor.service.scheduler import Scheduler
from drift_monitor.service.store import Store


@dataclass
class Health:
    """What is not in the store.

    Attributes:
        state: starting, running or stopping.
        problems: with the configuration at the last reload; empty when it runs.
        reloaded: when a configuration was last taken on.
        store_error: why the state cannot be written; None when it can.
        loaded: (monitor, sha256 of a reference) -> when this process first used it.
    """

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    reloaded: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: str = "starting"
    problems: list[str] = field(default_factory=list)
    store_error: str | None = None
    replay_finished: bool = False
    loaded: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def not_ready(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""
        reasons = [] if self.state == "running" else [f"the daemon is {self.state}"]
        if self.store_error is not None:
            reasons.append(f"the state cannot be written: {self.store_error}")
        return reasons


@dataclass(frozen=True)
class Parts:
    """The running parts that have something to tell."""

    store: Store
    clock: Clock
    scheduler: Scheduler
    pool: WorkerPool
    reporter: Reporter
    intake: Intake


def status(config: Config, health: Health, parts: Parts) -> dict[str, object]:
    """The answer of /api/v1/status."""
    snapshot = parts.store.snapshot()
    outbox: dict[str, dict[str, int]] = {
        name: {"pending": 0, "delivered": 0, "dead": 0} for name in config.receivers
    }
    for (receiver, state), (count, _) in snapshot.outbox.items():
        outbox.setdefault(receiver, {})[state] = count
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started": health.started.isoformat(),
        "not_ready": health.not_ready(),
        "reload": {
            "successful": not health.problems,
            "problems": health.problems,
            "last_success": health.reloaded.isoformat(),
        },
        "replay": _replay(health, parts.clock),
        "monitors": _monitors(config, parts, {name: r.verdict.value for name, r in snapshot.latest.items()}),
        "outbox": outbox,
        "workers": parts.pool.children,
        "intake": {
            "children": parts.intake.children,
            "waiting": parts.intake.waiting,
            "problems": dict(parts.intake.problems),
            "monitors": {name: asdict(figures) for name, figures in parts.intake.figures.items()},
        },
        "reports": {"waiting": parts.reporter.waiting, "failed": parts.reporter.failed},
    }


def _replay(health: Health, clock: Clock) -> dict[str, object] | None:
    if clock.replay_until is None:
        return None
    return {
        "finished": health.replay_finished,
        "now": clock.now().isoformat(),
        "until": clock.replay_until.isoformat(),
    }


def _monitors(config: Config, parts: Parts, verdicts: Mapping[str, str]) -> dict[str, object]:
    waiting, fires = parts.store.waiting(), parts.scheduler.next_fires()
    running = {run.monitor: str(run.window) for run in parts.pool.running}
    return {
        name: {
            "enabled": monitor.enabled,
            "next_run": fires[name].isoformat() if name in fires else None,
            "due": waiting[name][1] if name in waiting else 0,
            "running": running.get(name),
            "verdict": verdicts.get(name),
        }
        for name, monitor in config.monitors.items()
    }


def view(config: Config, health: Health, parts: Parts) -> View:
    """What metrics are drawn from.

    Raises:
        StoreError: the store cannot be read.
    """
    snapshot, waiting = parts.store.snapshot(), parts.store.waiting()
    for name, result in snapshot.latest_judged.items():
        if result.reference is not None:
            health.loaded.setdefault((name, result.reference.sha256), datetime.now(UTC))
    return View(
        config=config,
        snapshot=snapshot,
        reload_ok=not health.problems,
        reloaded=health.reloaded,
        scheduler_running=parts.scheduler.running,
        next_runs=parts.scheduler.next_fires(),
        due={name: count for name, (_, count) in waiting.items()},
        running={run.monitor: 1 for run in parts.pool.running},
        loaded=health.loaded,
        intake=parts.intake.figures,
        intake_waiting=parts.intake.waiting,
    )
