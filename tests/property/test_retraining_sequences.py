"""Any order of events, a kill between any two transactions: the promises of the loop hold all the same.

Never two retrainings for one cause, never one on broken data, never a promotion of a model that is not live.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drift_monitor.actions.promote import PromoteRequest, PromoteResult
from drift_monitor.actions.refresh import LabelsRequest, LabelsResult, RefreshRequest, RefreshResult
from drift_monitor.actions.reweight import ReweightRequest, ReweightResult
from drift_monitor.config.models import Config
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.retraining import Event, Retraining, RetrainingError, State
from drift_monitor.core.types import CheckResult, Outcome, QualityResult, Window
from drift_monitor.service.messages import Links
from drift_monitor.service.retrain_work import Work
from drift_monitor.service.retrainer import Retrainer
from drift_monitor.service.retraining_messages import REQUESTED, Sender
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import Store

HOUR = timedelta(hours=1)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = st.sampled_from(["", "1", "2"])
REPORTS = st.sampled_from([Event.STARTED, Event.FAILED, Event.SUCCEEDED, Event.LIVE])


class Killed(BaseException):
    """The process is gone."""


def config(mode: str) -> Config:
    monitor = {
        "reference": "r",
        "source": {"path": "p", "timestamp": "t"},
        "schedule": {"every": "1h"},
        "window": {"length": "1h"},
        "columns": {"label": "y", "id": "i"},
        "notify": ["people"],
        "refresh": {"enabled": True},
        "reweight": {"enabled": True},
        "retrain": {
            "receiver": "pipeline",
            "mode": mode,
            "cooldown": "0s",
            "per_month": 1000,
            "give_up": 1000,
            "min_rows": 10,
        },
    }
    hook = {"type": "webhook", "url": "http://127.0.0.1:1/", "secret_file": "s"}
    return Config.model_validate(
        {"monitors": {"m": monitor}, "receivers": {"people": hook, "pipeline": hook}}, strict=False
    )


class Loop(RuleBasedStateMachine):
    """One monitor, its store, and a world outside that remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.hours = 0
        self.labelled = 1.0
        self.fails = False
        self.fuse: tuple[int, bool] | None = None
        self.dead = False
        self.live: set[tuple[str, str]] = set()  # (retraining, version) reported as live, whether or not taken
        self.promoted: list[tuple[str, str]] = []  # (retraining, version) that a reference was built for
        self.requested_on_broken: list[str] = []
        self.asked: set[str] = set()
        self.seen: set[str] = set()
        self.was_broken = False

    @initialize(mode=st.sampled_from(["propose", "auto"]))
    def begin(self, mode: str) -> None:
        self.config = config(mode)
        self.open()

    def open(self) -> None:
        self.store = Store.open(Path(self.folder.name))
        self.dead = False
        database: Any = self.store._database
        database.transaction = self.guarded(database.transaction)
        hooks = Hooks(lambda: None, lambda *_: None, lambda: None, lambda _: None)
        self.runs = Runs(
            self.store, lambda: self.config, lambda *_: Links("http://d/monitors/m", None, "http://d"), "/d", hooks
        )
        work = Work(self.count, self.refresh, self.reweight, self.promote)
        self.retrainer = Retrainer(
            self.store, lambda: self.config, lambda: Sender("/d", "http://d"), lambda: None, work
        )

    def guarded(self, transaction: Callable[..., Any]) -> Callable[..., Any]:
        """Transactions of a process that a kill may end before or after one of them is committed."""

        @contextmanager
        def guarded(kind: str = "IMMEDIATE") -> Iterator[Any]:
            if self.dead:
                raise Killed
            hit = before = False
            if self.fuse is not None and kind == "IMMEDIATE":
                left, before = self.fuse
                hit = left == 0
                self.fuse = None if hit else (left - 1, before)
            with transaction(kind) as db:
                yield db
                if hit and before:
                    self.dead = True
                    raise Killed
            if hit:
                self.dead = True
                raise Killed

        return guarded

    def teardown(self) -> None:
        self.fuse, self.dead = None, False
        self.store.close()
        self.folder.cleanup()

    # -- the world outside ---------------------------------------------------------------------

    def count(self, request: LabelsRequest, deadline: timedelta) -> LabelsResult:
        return LabelsResult(rows=100, labelled=round(100 * self.labelled))

    def refresh(self, request: RefreshRequest, deadline: timedelta) -> RefreshResult:
        if self.fails:
            raise DriftMonitorError("the disk is full")
        return RefreshResult(
            path=request.output,
            train=request.output / "train.parquet",
            train_sha256="ab",
            rows={"train": 80, "test": 20},
            sha256="cd",
            labelled=self.labelled,
        )

    def reweight(self, request: ReweightRequest, deadline: timedelta) -> ReweightResult:
        if self.fails:
            raise DriftMonitorError("no rows")
        return ReweightResult(
            path=request.output / "weights.parquet",
            manifest=request.output / "manifest.json",
            rows=80,
            sha256="ef",
            effective_sample_size=40.0,
            method="classifier",
            adopt=True,
            why="it gains",
        )

    def promote(self, request: PromoteRequest, deadline: timedelta) -> PromoteResult:
        if self.fails:
            raise DriftMonitorError("the training file is gone")
        self.promoted.append((request.retraining, request.model_version))
        return PromoteResult(version=f"2026-01-01-{request.retraining[:12]}")

    # -- what happens --------------------------------------------------------------------------

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """A kill in here is followed by a restart."""
        try:
            yield
        except Killed:
            note("killed")
            self.fuse, self.dead = None, False
            self.store.close()
            self.open()
            self.store.recover(1000)
        self.watch()

    @rule(fuse=st.tuples(st.integers(0, 8), st.booleans()))
    def arm(self, fuse: tuple[int, bool]) -> None:
        """The process will be killed in one of its next transactions, before or after the commit."""
        self.fuse = fuse

    @rule(
        verdict=st.sampled_from([Outcome.OK, Outcome.DRIFT, Outcome.DRIFT, Outcome.DRIFT, Outcome.BROKEN]),
        rows=st.sampled_from([5, 100]),
    )
    def window(self, verdict: Outcome, rows: int) -> None:
        self.hours += 1
        window = Window(start=T0 + (self.hours - 1) * HOUR, end=T0 + self.hours * HOUR)
        quality = ()
        if verdict is Outcome.BROKEN:
            quality = (QualityResult(check="null_rate", feature="x", failed=True, message="nulls"),)
        with self.mortal():
            self.store.enqueue("m", [window])
            while (taken := self.runs.take()) is not None:
                run, _ = taken
                result = CheckResult(
                    monitor="m",
                    window=run.window,
                    rows=rows,
                    verdict=verdict,
                    reason="because",
                    score=2.0,
                    threshold=1.0,
                    promise="p",
                    quality=quality,
                )
                self.runs.done(run, result)

    @rule()
    def look(self) -> None:
        with self.mortal():
            self.retrainer.look()

    @rule(labelled=st.sampled_from([0.0, 1.0]), fails=st.booleans())
    def work(self, labelled: float, fails: bool) -> None:
        self.labelled, self.fails = labelled, fails
        for retraining in self.store.retrainings.active():
            with self.mortal(), suppress(RetrainingError):
                self.retrainer.work_on(retraining.id)

    @rule(taken=st.booleans())
    def deliver(self, taken: bool) -> None:
        with self.mortal():
            found = self.store.outbox.next_delivery(["pipeline"], datetime.now(UTC))
            if found is not None and taken:
                self.asked.add(json.loads(found.body)["data"]["retraining"]["id"])
                self.store.outbox.delivered(found.id, datetime.now(UTC), 0.1)
            elif found is not None:
                self.store.outbox.bury(found.id, "no such pipeline", "status_4xx", 0.1)

    @rule(approve=st.booleans(), which=st.integers(0, 3))
    def decide(self, approve: bool, which: int) -> None:
        self.send(which, Event.APPROVE if approve else Event.REJECT, decided_by="ada")

    @rule(event=REPORTS, version=VERSIONS, which=st.integers(0, 3))
    def report(self, event: Event, version: str, which: int) -> None:
        """A pipeline says something of a retraining that it was asked for, and not always in order."""
        known = self.store.retrainings.newest("m", 10)
        if which < len(known) and known[which].id in self.asked:
            if event is Event.LIVE:
                self.live.add((known[which].id, version or known[which].model_version))
            self.send(which, event, model_version=version or None)

    @rule(event=REPORTS)
    def carry_on(self, event: Event) -> None:
        """The usual course of things, as far as a kill lets it come."""
        self.window(Outcome.DRIFT, 100)
        self.work(1.0, False)
        self.decide(True, 0)
        self.deliver(True)
        self.look()
        self.report(event, "1", 0)

    @rule()
    def approved_too_late(self) -> None:
        """The data breaks between a proposal and its approval."""
        self.window(Outcome.DRIFT, 100)
        self.work(1.0, False)
        self.window(Outcome.BROKEN, 100)
        self.decide(True, 0)

    @rule()
    def by_hand(self) -> None:
        with self.mortal(), suppress(RetrainingError):
            self.retrainer.begin("m", "ada")

    @precondition(lambda self: self.hours > 0)
    @rule()
    def restart(self) -> None:
        self.fuse = None
        self.store.close()
        self.open()
        self.store.recover(1000)

    def send(self, which: int, event: Event, **news: object) -> None:
        known = self.store.retrainings.newest("m", 10)
        if which < len(known):
            with self.mortal(), suppress(RetrainingError):
                self.retrainer.move(known[which].id, event, **news)

    # -- what must hold ------------------------------------------------------------------------

    def requests(self) -> list[str]:
        """The retrainings that a pipeline was asked for, by the messages to it."""
        rows = [d for d in self.store.outbox.deliveries() if d.receiver == "pipeline" and d.type == REQUESTED]
        return [json.loads(row.body)["data"]["retraining"]["id"] for row in rows]

    def watch(self) -> None:
        """Right after an event: nothing new was asked for while the data is broken."""
        new = set(self.requests()) - self.seen
        self.seen |= new
        if new and self.store.retrainings.broken("m") and self.was_broken:
            self.requested_on_broken += new
        self.was_broken = bool(self.store.retrainings.broken("m"))

    @invariant()
    def never_two_retrainings_for_one_cause(self) -> None:
        asked = self.requests()
        assert len(asked) == len(set(asked))
        known = self.store.retrainings.newest("m", 1000)
        causes = [r.episode for r in known if r.episode is not None]
        assert len(causes) == len(set(causes))
        assert {r.id for r in known if r.requested is not None} == set(asked)

    @invariant()
    def one_at_a_time(self) -> None:
        known = self.store.retrainings.newest("m", 1000)
        assert sum(r.state is not State.LIVE and r.in_flight for r in known) <= 1

    @invariant()
    def never_a_retraining_on_broken_data(self) -> None:
        assert self.requested_on_broken == []

    @invariant()
    def never_a_promotion_of_a_model_that_is_not_live(self) -> None:
        assert set(self.promoted) <= self.live
        for retraining in self.store.retrainings.newest("m", 1000):
            if retraining.state is State.PROMOTED:
                assert (retraining.id, retraining.model_version) in self.promoted
                episode = retraining.episode and self.store.retrainings.episode(retraining.episode)
                assert not episode or episode.closed is not None

    @invariant()
    def a_state_and_its_facts_agree(self) -> None:
        for retraining in self.store.retrainings.newest("m", 1000):
            assert_sound(retraining)


def assert_sound(retraining: Retraining) -> None:
    state = retraining.state
    if state in {State.APPROVED, State.SENT, State.RUNNING, State.TRAINED, State.LIVE, State.PROMOTED}:
        assert retraining.requested is not None
    if state in {State.PREPARING, State.WITHHELD, State.PROPOSED, State.REJECTED}:
        assert retraining.requested is None
    if state in {State.TRAINED, State.LIVE, State.PROMOTED}:
        assert retraining.model_version
    assert (state is State.PROMOTED) == bool(retraining.reference)


TestLoop = Loop.TestCase
TestLoop.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
