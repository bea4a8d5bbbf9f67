"""Any sequence of operations, with restarts in between, leaves the store as a plain model in memory says."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drift_monitor.core.types import CheckResult, Episode, Message, Outcome, Window
from drift_monitor.service.store import Store

DAY = timedelta(days=1)
T0 = datetime(2013, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
MONITORS = st.sampled_from(["m", "n"])
DAYS = st.integers(0, 5)
RECEIVERS = st.sampled_from(["r", "s"])
EVENTS = st.tuples(RECEIVERS, st.integers(0, 20), st.sampled_from("gh"))  # receiver, number of the event, group
JUDGED = {Outcome.OK, Outcome.DRIFT, Outcome.BROKEN}


def window(day: int) -> Window:
    return Window(start=T0 + day * DAY, end=T0 + (day + 1) * DAY)


@dataclass
class Entry:
    """A run as the model has it."""

    monitor: str
    day: int
    state: str
    attempts: int = 0
    verdict: Outcome | None = None


@dataclass
class Row:
    """An outbox row as the model has it."""

    receiver: str
    event: str
    group: str
    state: str = "pending"
    attempts: int = 0
    next_attempt: datetime | None = NOW


@dataclass
class Model:
    """What must be on disk."""

    runs: dict[int, Entry] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    episodes: dict[str, Episode] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)

    def heads(self, receiver: str) -> dict[int, Row]:
        """The first pending row of each group."""
        groups: dict[str, int] = {}
        for number, row in sorted(self.rows.items()):
            if row.receiver == receiver and row.state == "pending":
                groups.setdefault(row.group, number)
        return {number: self.rows[number] for number in groups.values()}


class Sequences(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()

    @initialize()
    def begin(self) -> None:
        self.store = Store.open(Path(self.folder.name))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    # -- operations ----------------------------------------------------------------------------

    @rule(max_attempts=st.integers(1, 3))
    def restart(self, max_attempts: int) -> None:
        self.store.close()
        self.store = Store.open(Path(self.folder.name))
        lost = self.store.recover(max_attempts)
        expected = []
        for number, entry in self.model.runs.items():
            if entry.state == "running" and entry.attempts < max_attempts:
                entry.state = "due"
            elif entry.state == "running":
                expected.append(number)
        assert [run.id for run in lost] == sorted(expected)

    @rule(monitor=MONITORS, due=st.lists(DAYS, max_size=3), missed=st.lists(DAYS, max_size=2))
    def enter(self, monitor: str, due: list[int], missed: list[int]) -> None:
        self.enqueue(monitor, due, missed)

    def enqueue(self, monitor: str, due: list[int], missed: list[int]) -> None:
        new = self.store.enqueue(monitor, [window(day) for day in due], [window(day) for day in missed])
        known = {entry.day: entry.state for entry in self.model.runs.values() if entry.monitor == monitor}
        fresh_missed = set(missed) - known.keys()
        revived = set(due) & (fresh_missed | {day for day, state in known.items() if state == "missed"})
        fresh_due = set(due) - known.keys() | revived
        assert new == len(fresh_due)
        self.model.runs = {
            number: entry
            for number, entry in self.model.runs.items()
            if not (entry.state == "missed" and entry.monitor == monitor and entry.day in revived)
        }
        self.model.counters["runs_missed_total"] += len(fresh_missed)
        for run in self.store.due():
            self.model.runs.setdefault(run.id, Entry(run.monitor, (run.window.start - T0).days, "due"))
        seen = {(entry.monitor, entry.day) for entry in self.model.runs.values()}
        assert {(monitor, day) for day in fresh_due} <= seen
        for day in fresh_missed - revived:  # missed rows have no id to be asked by
            self.model.runs[min([0, *self.model.runs]) - 1] = Entry(monitor, day, "missed")

    @precondition(lambda self: any(entry.state == "due" for entry in self.model.runs.values()))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        due = sorted(number for number, entry in self.model.runs.items() if entry.state == "due")
        run = data.draw(st.sampled_from(due))
        self.store.start(run, NOW)
        self.model.runs[run].state = "running"
        self.model.runs[run].attempts += 1

    @precondition(lambda self: any(entry.state != "missed" for entry in self.model.runs.values()))
    @rule(
        data=st.data(),
        verdict=st.sampled_from(Outcome),
        events=st.lists(EVENTS, max_size=4),
        closed=st.booleans(),
    )
    def finish(
        self, data: st.DataObject, verdict: Outcome, events: list[tuple[str, int, str]], closed: bool
    ) -> None:
        """Finish a run, perhaps one that is done already."""
        runs = sorted(number for number, entry in self.model.runs.items() if entry.state != "missed")
        self.finish_one(data.draw(st.sampled_from(runs)), verdict, events, closed=closed)

    @rule(
        day=st.integers(6, 60), verdict=st.sampled_from(Outcome), events=st.lists(EVENTS, min_size=2, max_size=6)
    )
    def whole_run(self, day: int, verdict: Outcome, events: list[tuple[str, int, str]]) -> None:
        """A window from entry to end, with messages."""
        self.enqueue("m", [day], [])
        for number, entry in list(self.model.runs.items()):
            if (entry.monitor, entry.day, entry.state) == ("m", day, "due"):
                self.finish_one(number, verdict, events, closed=False)

    def finish_one(self, run: int, verdict: Outcome, events: list[tuple[str, int, str]], *, closed: bool) -> None:
        entry = self.model.runs[run]
        span = window(entry.day)
        result = CheckResult(
            monitor=entry.monitor, window=span, rows=7, verdict=verdict, reason=str(run), promise=""
        )
        changed = Episode(
            id=f"{entry.monitor}-{entry.day % 2}",
            monitor=entry.monitor,
            lane="drift",
            opened=T0 + (entry.day % 2) * DAY,
            updated=span.end,
            closed=span.end if closed else None,
            reminded=T0,
            worst=1,
            features=(),
        )
        messages = [
            (name, Message(id=f"e{n}", type="t", source="/s", subject="m", time=T0, group=group, data={"n": n}))
            for name, n, group in events
        ]
        self.store.finish(run, result, now=NOW, episodes=[changed], messages=messages)
        if entry.state == "done":
            return
        entry.state, entry.verdict = "done", verdict
        self.model.episodes[changed.id] = changed
        self.model.counters["runs_total"] += 1
        self.model.counters["rows_processed_total"] += 7
        self.model.counters["runs_skipped_total"] += verdict in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}
        known = {(row.receiver, row.event) for row in self.model.rows.values()}
        stored = {
            (delivery.receiver, delivery.event_id): delivery.id for delivery in self.store.outbox.deliveries()
        }
        for name, n, group in events:
            key = (name, f"e{n}")
            if key in known:
                continue
            known.add(key)
            row = self.model.rows[stored[key]] = Row(*key, group)
            if name in self.model.disabled:
                self.kill(row)

    def kill(self, row: Row) -> None:
        row.state, row.next_attempt = "dead", None
        self.model.counters["outbox_dead_letters_total"] += 1

    @rule(
        receiver=RECEIVERS,
        fate=st.sampled_from(["delivered", "retry", "bury", "gone"]),
        later=st.sampled_from([-40, -3, 0, 3, 40]),
    )
    def attempt(self, receiver: str, fate: str, later: int) -> None:
        """What the outbox does with the next delivery, at a time that jumps about."""
        now = NOW + timedelta(hours=later)
        delivery = self.store.outbox.next_delivery([receiver], now)
        ready = {
            number: row
            for number, row in self.model.heads(receiver).items()
            if not row.attempts or (row.next_attempt and not now < row.next_attempt <= now + timedelta(hours=28))
        }
        if delivery is None:
            assert not ready
            return
        assert delivery.id in ready
        row = ready[delivery.id]
        assert (delivery.receiver, delivery.event_id, delivery.group) == (row.receiver, row.event, row.group)
        self.model.counters["webhook_requests_total"] += 1
        if fate == "delivered":
            self.store.outbox.delivered(delivery.id, now, 0.1)
            row.state, row.next_attempt = "delivered", None
        else:
            self.model.counters["webhook_request_failures_total"] += 1
        if fate == "retry":
            row.next_attempt = now + timedelta(hours=5)
            self.store.outbox.retry_at(delivery.id, row.next_attempt, "no", "timeout", 0.1)
        elif fate == "bury":
            self.store.outbox.bury(delivery.id, "no", "timeout", 0.1)
            self.kill(row)
        elif fate == "gone":
            self.store.outbox.bury(delivery.id, "no", "gone", 0.1, disable_at=now)
            self.model.disabled.add(receiver)
            for other in self.model.rows.values():
                if other.receiver == receiver and other.state == "pending":
                    self.kill(other)
        row.attempts += 1

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data(), replay=st.booleans())
    def by_hand(self, data: st.DataObject, replay: bool) -> None:
        """`outbox retry` and `outbox drop`."""
        number = data.draw(st.sampled_from(sorted(self.model.rows)))
        row = self.model.rows[number]
        waiting = row.state != "delivered"
        if replay:
            assert self.store.outbox.replay(number, NOW) == waiting
            if waiting:
                row.state, row.attempts, row.next_attempt = "pending", 0, NOW
                self.model.disabled.discard(row.receiver)
        else:
            assert self.store.outbox.drop(number) == waiting
            if waiting:
                del self.model.rows[number]

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        runs = self.model.runs.values()
        due = [(run.monitor, (run.window.start - T0).days) for run in self.store.due()]
        assert sorted(due) == sorted((entry.monitor, entry.day) for entry in runs if entry.state == "due")
        for monitor in ("m", "n"):
            assert [day for name, day in due if name == monitor] == sorted(
                day for name, day in due if name == monitor
            )
            done = sorted((e for e in runs if e.monitor == monitor and e.state == "done"), key=lambda e: -e.day)
            assert self.store.history(monitor, T0 + 99 * DAY, 99) == [entry.verdict for entry in done]
            days = [entry.day for entry in runs if entry.monitor == monitor]
            assert self.store.newest_window(monitor) == (window(max(days)) if days else None)

    @invariant()
    def the_outbox_is_as_the_model_says(self) -> None:
        stored = {
            d.id: Row(d.receiver, d.event_id, d.group, d.state, d.attempts, d.next_attempt)
            for d in self.store.outbox.deliveries()
        }
        assert stored == self.model.rows

    @invariant()
    def the_snapshot_is_as_the_model_says(self) -> None:
        shown = self.store.snapshot()
        totals: Counter[str] = Counter()
        for (name, _), value in shown.counters.items():
            totals[name] += int(value)
        assert +totals == +self.model.counters
        done = [entry for entry in self.model.runs.values() if entry.state == "done"]
        for found, among in (
            (shown.latest, done),
            (shown.latest_judged, [entry for entry in done if entry.verdict in JUDGED]),
        ):
            newest = {e.monitor: e for e in sorted(among, key=lambda e: e.day)}
            assert {name: (r.window, r.verdict) for name, r in found.items()} == {
                name: (window(e.day), e.verdict) for name, e in newest.items()
            }
        open_ones = {name: e for name, e in self.model.episodes.items() if e.closed is None}
        assert {e.id: e for e in shown.open_episodes} == open_ones
        assert set(shown.disabled_receivers) == self.model.disabled


TestSequences = Sequences.TestCase
TestSequences.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
