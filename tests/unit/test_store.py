"""The store: what is kept, what is refused, what a failure leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from textwrap import dedent

import pytest

from drift_monitor.core.errors import StoreError
from drift_monitor.core.types import (
    CheckResult,
    Episode,
    FailureReason,
    FeatureResult,
    Message,
    Outcome,
    StatResult,
    Window,
)
from drift_monitor.service import database
from drift_monitor.service.database import MIGRATIONS
from drift_monitor.service.store import FILE, HISTOGRAMS, Store, read_lock

DAY = timedelta(days=1)
T0 = datetime(2013, 1, 1, tzinfo=UTC)  # event time
NOW = datetime(2026, 3, 1, tzinfo=UTC)  # the daemon's clock


def window(day: int) -> Window:
    return Window(start=T0 + day * DAY, end=T0 + (day + 1) * DAY)


def result(day: int = 0, verdict: Outcome = Outcome.OK, monitor: str = "m", **fields: object) -> CheckResult:
    given = {"rows": 10, "reason": "because", "promise": "none", **fields}
    return CheckResult.model_validate({"monitor": monitor, "window": window(day), "verdict": verdict, **given})


def episode(name: str = "e", *, opened: int = 0, closed: int | None = None, monitor: str = "m") -> Episode:
    return Episode(
        id=name,
        monitor=monitor,
        lane="drift",
        opened=T0 + opened * DAY,
        updated=T0 + opened * DAY,
        closed=None if closed is None else T0 + closed * DAY,
        reminded=T0,
        worst=2.0,
        features=("distance",),
    )


def message(name: str, group: str = "g") -> Message:
    return Message(id=name, type="t", source="/s", subject="m", time=T0, group=group, data={"n": 1})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    opened = Store.open(state)
    yield opened
    opened.close()


def run_one(store: Store, day: int = 0, monitor: str = "m", **options: object) -> int:
    """Enter, start and finish one window."""
    verdict = options.pop("verdict", Outcome.OK)
    failure = options.pop("failure", None)
    now = options.pop("now", NOW)
    store.enqueue(monitor, [window(day)])
    (run,) = [run.id for run in store.due() if run.monitor == monitor and run.window == window(day)]
    store.start(run, NOW)
    store.finish(run, result(day, verdict, monitor, failure=failure), now=now, **options)  # type: ignore[arg-type]
    return run


def put(store: Store, *pairs: tuple[str, Message], day: int = 0) -> None:
    run_one(store, day, messages=pairs)


def counter(store: Store, name: str, **labels: str) -> float:
    return store.snapshot().counters.get((name, tuple(sorted(labels.items()))), 0)


# -- the ledger ------------------------------------------------------------------------------------


def test_known_windows_are_left_as_they_are(store: Store) -> None:
    assert store.newest_window("m") is None
    assert store.enqueue("m", [window(1), window(2)], missed=[window(0)]) == 2
    assert store.enqueue("m", [window(2), window(3)], missed=[window(0), window(1)]) == 1
    assert [run.window for run in store.due()] == [window(1), window(2), window(3)]
    assert store.newest_window("m") == window(3)
    assert counter(store, "runs_missed_total", monitor="m") == 1


def test_a_window_that_was_written_off_too_early_is_due_when_its_time_comes(store: Store) -> None:
    store.enqueue("m", [window(3)], missed=[window(1), window(2)])
    assert store.enqueue("m", [window(2)]) == 1
    assert store.enqueue("m", [window(2)], missed=[window(2)]) == 0
    assert [run.window for run in store.due()] == [window(2), window(3)]
    assert counter(store, "runs_missed_total", monitor="m") == 2


def test_a_backlog_of_one_monitor_starves_no_other(store: Store) -> None:
    store.enqueue("old", [window(day) for day in range(3)])
    store.enqueue("new", [window(100), window(101)])
    due = [(run.monitor, run.window) for run in store.due()]
    assert due == [
        ("old", window(0)), ("new", window(100)), ("old", window(1)), ("new", window(101)), ("old", window(2))
    ]  # fmt: skip


def test_times_of_any_century_come_back_to_the_microsecond(store: Store) -> None:
    odd = Window(start=datetime(1, 1, 1, tzinfo=UTC), end=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
    store.enqueue("m", [odd])
    assert store.newest_window("m") == odd


def test_only_a_due_run_starts(store: Store) -> None:
    store.enqueue("m", [window(0)], missed=[window(1)])
    (run,) = store.due()
    store.start(run.id, NOW)
    assert store.due() == []
    with pytest.raises(StoreError, match="is running, not due"):
        store.start(run.id, NOW)
    with pytest.raises(StoreError, match="is missed, not due"):
        store.start(run.id - 1, NOW)  # missed windows are entered first
    with pytest.raises(StoreError, match="is not in the ledger, not due"):
        store.start(99, NOW)


def test_a_run_that_dies_with_its_process_is_due_again_a_bounded_number_of_times(state: Path) -> None:
    for attempt in range(1, 4):
        store = Store.open(state)
        store.enqueue("m", [window(0)])
        assert store.recover() == []
        (run,) = store.due()
        assert run.attempts == attempt - 1
        store.start(run.id, NOW)
        store.close()
    store = Store.open(state)
    (lost,) = store.recover()
    assert (lost.id, lost.attempts, lost.state) == (run.id, 3, "running")
    store.finish(lost.id, result(0, Outcome.CANNOT_JUDGE, failure=FailureReason.INTERNAL), now=NOW)
    assert store.recover() == []
    store.close()


def test_history_is_of_finished_windows_before_a_time_newest_first(store: Store) -> None:
    verdicts = [Outcome.OK, Outcome.DRIFT, Outcome.NO_DATA, Outcome.BROKEN]
    for day in (2, 0, 3, 1):  # finished in any order
        run_one(store, day, verdict=verdicts[day])
    store.enqueue("m", [window(4)])
    assert store.history("m", T0 + 10 * DAY, 10) == verdicts[::-1]
    assert store.history("m", window(3).end, 2) == [Outcome.NO_DATA, Outcome.DRIFT]
    assert store.history("other", T0 + 10 * DAY, 10) == []


def test_results_come_back_whole(store: Store) -> None:
    nasty = FeatureResult(name="</script>\n\x00'\"", kind="numeric", drifted=True, score=1e300)
    full = result(0, Outcome.DRIFT, features=(nasty,), newest_event=T0, seconds={"source": 0.25})
    store.enqueue("m", [window(0), window(1)])
    first, second = (run.id for run in store.due())
    store.finish(first, full, now=NOW)
    assert store.result(first) == full
    assert store.result(second) is None
    store.finish(second, result(1), now=NOW)
    short = full.model_copy(update={"features": ()})
    assert store.results("m", 10) == [(second, result(1)), (first, short)]
    assert store.results("m", 1) == [(second, result(1))]
    assert store.run_of("m", window(0).end) == first
    assert store.run_of("m", window(2).end) is None


@pytest.mark.parametrize("written", ["{}", '{"from": "another version"}', "not JSON"])
def test_what_another_version_wrote_is_left_out_and_stops_nothing(
    store: Store, caplog: pytest.LogCaptureFixture, written: str
) -> None:
    good = run_one(store, 0, monitor="good", episodes=[episode("good", monitor="good")])
    bad = run_one(store, 1, verdict=Outcome.DRIFT, episodes=[episode("bad")])
    run_one(store, 2, monitor="short")
    with store._database.transaction():
        edit = store._database._connection.execute
        edit("UPDATE runs SET summary = ?, result = ? WHERE id = ?", (written, zlib.compress(b"{}"), bad))
        edit("UPDATE runs SET result = ? WHERE monitor = 'short'", (b"not zlib",))
        edit("UPDATE episodes SET body = ? WHERE id = 'bad'", (written,))
    for _ in range(2):
        shown = store.snapshot()
        assert set(shown.latest) == set(shown.latest_judged) == {"good", "short"}
        assert shown.latest["short"] == result(2, monitor="short")  # its summary
        assert [e.id for e in shown.open_episodes] == ["good"]
        assert set(shown.finished) == {"good", "m", "short"}
        assert store.result(bad) is None
        assert store.results("m", 9) == []
        assert store.episode("m", "drift") is None
    assert [run for run, _ in store.results("good", 9)] == [good]
    assert caplog.text.count("cannot be read") == 4  # each thing once
    run_one(store, 3)
    assert store.snapshot().latest["m"] == result(3)


def test_a_snapshot_does_not_mind_another_made_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_one(store, 0)
    before = store.snapshot()
    run = store._database.run

    def run_while_another_thread_ends_its_own(
        query: str, /, **values: str | bytes | float | None
    ) -> sqlite3.Cursor:
        if query == "open_episodes":
            store._parsed = {}
        return run(query, **values)

    monkeypatch.setattr(store._database, "run", run_while_another_thread_ends_its_own)
    assert store.snapshot() == before


# -- finishing a run -------------------------------------------------------------------------------


def test_a_finished_run_counts_itself(store: Store) -> None:
    run_one(store, 0)
    run_one(store, 1, verdict=Outcome.NO_DATA)
    run_one(store, 2, verdict=Outcome.CANNOT_JUDGE)
    run_one(store, 3, verdict=Outcome.CANNOT_JUDGE, failure=FailureReason.TIMEOUT)
    run_one(store, 4, counts=[("alerts_total", {"severity": "warning", "monitor": "m"}, 1)])
    assert counter(store, "runs_total", monitor="m") == 5
    assert counter(store, "runs_skipped_total", monitor="m", reason="insufficient_data") == 2
    assert counter(store, "run_failures_total", monitor="m", reason="timeout") == 1
    assert counter(store, "rows_processed_total", monitor="m") == 50
    assert counter(store, "alerts_total", monitor="m", severity="warning") == 1


def test_to_finish_twice_changes_nothing(store: Store) -> None:
    run = run_one(store, 0, messages=[("hook", message("a"))], episodes=[episode()])
    before = store.snapshot()
    store.finish(
        run,
        result(0, Outcome.DRIFT),
        now=NOW + DAY,
        messages=[("hook", message("b"))],
        episodes=[episode("f")],
        counts=[("alerts_total", {}, 1)],
    )
    assert store.snapshot() == before
    assert [delivery.event_id for delivery in store.outbox.deliveries()] == ["a"]


def test_a_window_that_was_missed_or_never_entered_cannot_finish(store: Store) -> None:
    store.enqueue("m", [], missed=[window(0)])
    with pytest.raises(StoreError, match="run 1 of monitor m cannot finish: it is missed"):
        store.finish(1, result(0), now=NOW)
    with pytest.raises(StoreError, match="run 7 of monitor m cannot finish: it is not in the ledger"):
        store.finish(7, result(0), now=NOW)


def test_it_is_all_or_nothing(store: Store) -> None:
    store.enqueue("m", [window(0)])
    before = store.snapshot()
    with pytest.raises(ValueError, match="no_such_histogram has no buckets"):  # the very last thing that is stored
        store.finish(
            1,
            result(0),
            now=NOW,
            messages=[("hook", message("a"))],
            episodes=[episode()],
            counts=[("alerts_total", {}, 1)],
            observations=[("no_such_histogram", {}, 1)],
        )
    assert store.snapshot() == before
    assert store.outbox.deliveries() == []
    assert [run.id for run in store.due()] == [1]


def test_an_event_is_kept_once_a_receiver_as_it_was_first_rendered(store: Store) -> None:
    put(store, ("one", message("a")), ("one", message("a")), ("two", message("a")))
    first = store.outbox.deliveries()
    put(store, ("one", message("a").model_copy(update={"data": {"n": 2}})), day=1)
    assert store.outbox.deliveries() == first
    assert [(delivery.receiver, delivery.event_id) for delivery in first] == [("one", "a"), ("two", "a")]
    assert json.loads(first[0].body)["data"] == {"n": 1}


def test_a_counter_never_falls(store: Store) -> None:
    store.count("config_reloads_total", {}, 2)
    for by in (-1, float("nan")):
        with pytest.raises(ValueError, match="cannot go down"):
            store.count("config_reloads_total", {}, by)
    assert counter(store, "config_reloads_total") == 2


def test_label_values_from_outside_come_back_as_they_were(store: Store) -> None:
    for value in ('"', "\\", "\n", "é\ud800", ""):
        store.count("c_total", {"a": value})
        assert counter(store, "c_total", a=value) == 1


def test_a_histogram_counts_a_value_on_an_edge_below_it(store: Store) -> None:
    name = "run_duration_seconds"
    bounds = HISTOGRAMS[name]
    values = (bounds[0], bounds[0] * 1.001, bounds[-1] + 1, 0)
    run_one(store, 0, observations=[(name, {"phase": "source"}, value) for value in values])
    stored, counts, total = store.snapshot().histograms[name, (("phase", "source"),)]
    assert stored == bounds
    assert counts == (2, 1, *[0] * (len(bounds) - 2), 1)
    assert total == pytest.approx(sum(values))


def test_a_histogram_with_other_buckets_starts_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "run_duration_seconds"
    run_one(store, 0, observations=[(name, {}, 1.0)])
    monkeypatch.setitem(HISTOGRAMS, name, (1.0, 2.0))  # type: ignore[arg-type]
    run_one(store, 1, observations=[(name, {}, 1.5)])
    assert store.snapshot().histograms[name, ()] == ((1.0, 2.0), (0, 1, 0), 1.5)


# -- episodes and the snapshot ---------------------------------------------------------------------


def test_the_newest_episode_of_a_lane(store: Store) -> None:
    assert store.episode("m", "drift") is None
    run_one(store, 0, episodes=[episode("a", opened=0, closed=1)])
    run_one(store, 1, episodes=[episode("b", opened=5)])
    run_one(store, 2, episodes=[episode("a", opened=0, closed=2), episode("c", opened=9, monitor="other")])
    assert store.episode("m", "drift") == episode("b", opened=5)
    assert store.episode("m", "quality") is None
    assert [e.id for e in store.episodes("m", 9)] == ["b", "a"]
    assert [e.id for e in store.episodes(None, 2)] == ["c", "b"]
    assert store.episodes("m", 9)[1].closed == T0 + 2 * DAY
    assert [e.id for e in store.snapshot().open_episodes] == ["b", "c"]


def test_the_snapshot_shows_the_newest_window_and_the_newest_judged(store: Store) -> None:
    run_one(store, 2, verdict=Outcome.DRIFT, now=NOW)
    run_one(store, 5, verdict=Outcome.CANNOT_JUDGE, now=NOW + 2 * DAY)
    run_one(store, 1, verdict=Outcome.OK, now=NOW + DAY)  # an old window that was caught up
    run_one(store, 0, monitor="silent", verdict=Outcome.NO_DATA)
    store.enqueue("idle", [window(0)])
    shown = store.snapshot()
    assert {name: found.window for name, found in shown.latest.items()} == {"m": window(5), "silent": window(0)}
    assert {name: found.window for name, found in shown.latest_judged.items()} == {"m": window(2)}
    assert shown.finished == {"m": NOW + 2 * DAY, "silent": NOW}
    assert shown.succeeded == {"m": NOW + DAY}
    assert store.snapshot() == shown  # now from parsed results that were kept


def test_everything_is_there_after_a_restart(state: Path) -> None:
    store = Store.open(state)
    run_one(store, 0, messages=[("hook", message("a")), ("off", message("a"))], episodes=[episode()],
            observations=[("run_duration_seconds", {}, 1)])  # fmt: skip
    store.outbox.delivered(1, NOW, 0.1)
    store.outbox.bury(2, "410", "gone", 0.1, disable_at=NOW)
    before, rows = store.snapshot(), store.outbox.deliveries()
    store.close()
    again = Store.open(state)
    assert again.snapshot() == before
    assert again.outbox.deliveries() == rows
    again.close()


# -- the outbox ------------------------------------------------------------------------------------


def test_a_group_is_delivered_in_order_and_groups_do_not_wait_for_each_other(store: Store) -> None:
    put(
        store,
        ("r", message("a1", "a")),
        ("r", message("a2", "a")),
        ("r", message("b1", "b")),
        ("s", message("s1")),
    )

    def next_id(now: datetime = NOW) -> str | None:
        delivery = store.outbox.next_delivery(["r"], now)
        return delivery and delivery.event_id

    assert next_id() == "a1"
    store.outbox.retry_at(1, NOW + DAY, "no answer", "timeout", 1)
    assert next_id() == "b1"
    store.outbox.delivered(3, NOW, 1)
    assert next_id() is None
    assert store.outbox.next_attempt_at(["r"]) == NOW + DAY
    assert next_id(NOW + DAY) == "a1"
    store.outbox.bury(1, "no answer", "timeout", 1)
    assert next_id() == "a2"
    assert store.outbox.next_attempt_at(["nobody"]) is None
    assert store.outbox.next_delivery([], NOW) is None


def test_a_message_that_was_never_tried_does_not_wait_for_a_clock(store: Store) -> None:
    put(store, ("r", message("a")))
    assert store.outbox.next_delivery(["r"], NOW - 1000 * DAY) is not None
    assert store.outbox.next_delivery(["r"], NOW + 1000 * DAY) is not None


def test_a_clock_that_was_set_back_loses_no_message(store: Store) -> None:
    put(store, ("r", message("a")))
    store.outbox.retry_at(1, NOW + timedelta(hours=5), "no answer", "timeout", 1)
    assert store.outbox.next_delivery(["r"], NOW) is None
    assert store.outbox.next_delivery(["r"], NOW - 30 * DAY) is not None  # no schedule waits that long
    assert store.outbox.next_delivery(["r"], NOW + 30 * DAY) is not None


def test_attempts_are_counted(store: Store) -> None:
    put(store, ("r", message("a")), ("r", message("b", "other")))
    store.outbox.retry_at(1, NOW, "no answer", "timeout", 0.2)
    store.outbox.bury(1, "no answer again", "status_5xx", 0.2)
    store.outbox.delivered(2, NOW + DAY, 0.2)
    dead, delivered = store.outbox.deliveries()
    assert (dead.state, dead.attempts, dead.last_error, dead.next_attempt) == ("dead", 2, "no answer again", None)
    assert (delivered.state, delivered.attempts, delivered.last_error) == ("delivered", 1, None)
    assert counter(store, "webhook_requests_total", receiver="r") == 3
    assert counter(store, "webhook_request_failures_total", receiver="r", reason="timeout") == 1
    assert counter(store, "webhook_request_failures_total", receiver="r", reason="status_5xx") == 1
    assert counter(store, "outbox_dead_letters_total", receiver="r") == 1
    shown = store.snapshot()
    assert sum(shown.histograms["webhook_request_duration_seconds", (("receiver", "r"),)][1]) == 3
    assert shown.outbox == {("r", "dead"): (1, NOW), ("r", "delivered"): (1, NOW)}
    assert shown.last_delivery == {"r": NOW + DAY}


def test_replay_and_drop(store: Store) -> None:
    put(store, *[("r", message(name, name)) for name in "abc"])
    store.outbox.bury(1, "no", "timeout", 1)
    store.outbox.delivered(2, NOW, 1)
    assert store.outbox.replay(1, NOW + DAY)
    first = store.outbox.deliveries()[0]
    assert (first.state, first.attempts, first.next_attempt) == ("pending", 0, NOW + DAY)
    assert not store.outbox.replay(2, NOW)
    assert not store.outbox.drop(2)
    assert not store.outbox.drop(99)
    assert store.outbox.drop(3)
    assert [d.event_id for d in store.outbox.deliveries()] == ["a", "b"]
    assert [d.event_id for d in store.outbox.deliveries("pending")] == ["a"]
    assert len(store.outbox.deliveries(limit=1)) == 1
    store.outbox.delivered(3, NOW, 1)  # dropped while it was under way
    assert counter(store, "webhook_requests_total", receiver="r") == 2


def test_a_disabled_receiver_gets_nothing_until_a_message_is_replayed(store: Store) -> None:
    put(store, ("r", message("a")), ("r", message("b")), ("s", message("a")))
    store.outbox.bury(1, "410 Gone", "gone", 1, disable_at=NOW)
    put(store, ("r", message("c")), day=1)
    assert [(d.receiver, d.state, d.last_error) for d in store.outbox.deliveries()] == [
        ("r", "dead", "410 Gone"), ("r", "dead", "410 Gone"), ("s", "pending", None), ("r", "dead", "410 Gone")
    ]  # fmt: skip
    assert counter(store, "outbox_dead_letters_total", receiver="r") == 3
    assert store.outbox.replay(3, NOW)  # of another receiver
    assert store.snapshot().disabled_receivers == {"r": "410 Gone"}
    assert store.outbox.replay(1, NOW)
    assert store.snapshot().disabled_receivers == {}
    put(store, ("r", message("d")), day=2)
    assert [(d.receiver, d.event_id) for d in store.outbox.deliveries("pending")] == [
        ("r", "a"),
        ("s", "a"),
        ("r", "d"),
    ]


# -- retention -------------------------------------------------------------------------------------

TIMES = {"monitors": ["m", "other"], "results": DAY, "runs": DAY, "delivered": DAY}


def test_purge_keeps_what_is_still_needed(store: Store) -> None:
    store.enqueue("m", [], missed=[window(0), window(4)])
    run_one(store, 1, verdict=Outcome.OK, episodes=[episode("a", opened=1, closed=2)])
    run_one(store, 2, verdict=Outcome.DRIFT, episodes=[episode("b", opened=2, closed=3)])
    run_one(store, 3, verdict=Outcome.NO_DATA, episodes=[episode("c", opened=1, monitor="other")])
    run_one(store, 5, verdict=Outcome.NO_DATA)
    put(store, ("r", message("x", "1")), ("r", message("y", "2")), ("r", message("z", "3")), day=6)
    store.outbox.delivered(1, NOW, 1)
    store.outbox.bury(2, "no", "timeout", 1)
    before = store.snapshot()

    assert store.purge(NOW, **TIMES) == 0
    # runs of days 1, 2, 3, 5 (6 is the newest and the newest judged), both missed windows, episode a, message x
    assert store.purge(NOW + 2 * DAY, **TIMES) == 4 + 2 + 1 + 1

    after = store.snapshot()
    assert after.latest == before.latest
    assert after.latest_judged == before.latest_judged
    assert after.counters == before.counters
    assert [e.id for e in store.episodes(None, 9)] == ["b", "c"]
    assert [d.event_id for d in store.outbox.deliveries()] == ["y", "z"]
    assert store.newest_window("m") == window(6)


def test_purge_keeps_the_newest_judged_run_though_later_ones_failed(store: Store) -> None:
    judged = run_one(store, 1, verdict=Outcome.DRIFT)
    run_one(store, 2, verdict=Outcome.NO_DATA)
    newest = run_one(store, 3, verdict=Outcome.NO_DATA)
    assert store.purge(NOW + 99 * DAY, **TIMES) == 1
    assert [run for run, _ in store.results("m", 9)] == [newest, judged]


def test_purge_leaves_nothing_of_a_monitor_that_is_watched_no_more(store: Store) -> None:
    for name in ("m", "gone"):
        run_one(store, 1, name, episodes=[episode(name, opened=1, monitor=name)])
        store.enqueue(name, [window(5)])
    assert store.purge(NOW, **TIMES) == 1
    assert [run.monitor for run in store.due()] == ["m"]
    assert store.newest_window("gone") == window(1)  # from here its schedule would go on
    assert store.purge(NOW + 2 * DAY, **TIMES) == 2
    assert set(store.snapshot().latest) == {"m"}
    assert [e.monitor for e in store.episodes(None, 9)] == ["m"]
    assert store.newest_window("gone") is None


def test_purge_cuts_old_results_down_to_their_summaries(store: Store) -> None:
    feature = FeatureResult(
        name="distance",
        kind="numeric",
        drifted=True,
        score=2,
        threshold=1,
        statistics={"ks": StatResult(statistic=2)},
    )
    whole = [result(day, Outcome.DRIFT, score=2, threshold=1, features=(feature,)) for day in range(3)]
    store.enqueue("m", [window(day) for day in range(3)])
    runs = [run.id for run in store.due()]
    for run, found, age in zip(runs, whole, (3, 1, 3), strict=True):
        store.finish(run, found, now=NOW - age * DAY)
    assert store.purge(NOW, monitors=["m"], results=2 * DAY, runs=99 * DAY, delivered=DAY) == 0
    short = whole[0].model_copy(update={"features": ()})
    assert [store.result(run) for run in runs] == [short, whole[1], whole[2]]  # the last is what pages show
    shown = store.snapshot()
    assert shown.judged_runs == {"m": runs[2]}
    assert shown.latest["m"].features == (feature.model_copy(update={"statistics": {}}),)  # it is kept in memory
    assert [found.verdict for _, found in store.results("m", 9)] == [Outcome.DRIFT] * 3


# -- one process -----------------------------------------------------------------------------------


def test_a_second_store_is_refused_by_the_pid_of_the_first(state: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", dedent("""
            import sys
            from pathlib import Path
            from drift_monitor.service.store import Store
            store = Store.open(Path(sys.argv[1]), address="http://127.0.0.1:9877")
            print("open", flush=True)
            sys.stdin.read()
        """), str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with child:
        assert child.stdout
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=rf"in use by another drift-monitor \(pid {child.pid}, started 20"):
            Store.open(state)
        info = read_lock(state)
        assert info
        assert (info.pid, info.address) == (child.pid, "http://127.0.0.1:9877")
        child.send_signal(signal.SIGKILL)
    assert read_lock(state) is None
    Store.open(state).close()


def test_the_lock_tells_where_the_api_is(state: Path) -> None:
    assert read_lock(state) is None
    store = Store.open(state)
    with pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        Store.open(state)
    store.announce("http://[::1]:1234")
    info = read_lock(state)
    assert info
    assert info.address == "http://[::1]:1234"
    store.close()
    store.close()
    assert read_lock(state) is None


def test_a_closed_store_says_so(state: Path) -> None:
    store = Store.open(state)
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.due()


def test_any_thread_may_use_it(store: Store) -> None:
    def work(name: str) -> None:
        for n in range(20):
            store.count("c_total", {})
            store.enqueue(name, [window(n)])

    threads = [threading.Thread(target=work, args=(f"m{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter(store, "c_total") == 80
    assert len(store.due()) == 80


# -- what is refused -------------------------------------------------------------------------------


@pytest.fixture
def filled(state: Path) -> Path:
    """The path of a database of several pages that nobody has open."""
    store = Store.open(state)
    for day in range(20):
        features = tuple(
            FeatureResult(name=os.urandom(20).hex(), kind="numeric", drifted=False) for _ in range(50)
        )
        store.enqueue("m", [window(day)])
        store.finish(store.due()[0].id, result(day, features=features), now=NOW)
    store.close()
    return state / FILE


def tear(start: int, length: int) -> Callable[[bytearray], None]:
    def damage(content: bytearray) -> None:
        content[start : start + length] = b"\xa5" * len(content[start : start + length])

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (tear(0, 16), "is damaged (file is not a database)"),
        (tear(0, 4096), "is damaged (file is not a database)"),
        (tear(100, 200), "is damaged"),
        (tear(4096, 4096), "is damaged"),
        (tear(8192, 100_000_000), "is damaged"),
        (lambda content: content.__delitem__(slice(len(content) // 2, None)), "is damaged"),
        (lambda content: content.clear(), "is empty"),
    ],
    ids=["magic", "first page", "schema", "second page", "all but two pages", "cut in half", "cut to nothing"],
)
def test_a_damaged_database_is_refused_and_left_as_it_is(
    filled: Path, damage: Callable[[bytearray], None], said: str
) -> None:
    content = bytearray(filled.read_bytes())
    damage(content)
    filled.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            Store.open(filled.parent)
        assert f"{filled} {said}" in str(caught.value)
        assert "restore it from a backup, or move it away" in str(caught.value)
        assert filled.read_bytes() == content
    assert read_lock(filled.parent) is None
    filled.rename(filled.with_name("aside"))
    Store.open(filled.parent).close()


def test_damage_under_a_write_ahead_log_is_refused_and_left_as_it_is(filled: Path) -> None:
    """What a kill leaves: pages in the log, and damage in the file."""
    code = dedent("""
        import os, sys
        from pathlib import Path
        from drift_monitor.service.store import Store
        Store.open(Path(sys.argv[1])).count("c_total", {})
        os.kill(os.getpid(), 9)
    """)
    assert subprocess.run([sys.executable, "-c", code, filled.parent], check=False).returncode == -signal.SIGKILL
    log = filled.with_name(FILE + "-wal")
    logged = log.read_bytes()
    assert logged
    content = bytearray(filled.read_bytes())
    tear(len(content) // 2, 8192)(content)
    filled.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        Store.open(filled.parent)
    assert filled.read_bytes() == content
    assert log.read_bytes() == logged


def test_a_database_of_something_else_is_refused(state: Path) -> None:
    state.mkdir()
    with closing(sqlite3.connect(state / FILE)) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="is not a database of drift-monitor"):
        Store.open(state)


def test_a_newer_database_is_refused(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99, and this drift-monitor knows versions up to 4"):
        Store.open(filled.parent)


def test_a_log_without_its_database_is_refused(filled: Path) -> None:
    filled.rename(filled.with_name(FILE + "-wal"))
    with pytest.raises(StoreError, match=r"-wal is there, but .* is not"):
        Store.open(filled.parent)


def test_an_older_database_is_brought_up_to_date_or_left_alone(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripts:
        """The package's folder with two later migrations in it: a good one, then one that fails half way."""

        def joinpath(self, name: str) -> Scripts:
            self.name = name
            return self

        def read_text(self, encoding: str) -> str:
            later = {
                "good.sql": "CREATE TABLE added (x);",
                "bad.sql": "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);",
            }
            return later.get(self.name) or files("drift_monitor.service").joinpath(self.name).read_text(encoding)

    monkeypatch.setattr(database, "files", lambda package: Scripts())
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "good.sql", "bad.sql"))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        Store.open(filled.parent)
    with closing(sqlite3.connect(filled)) as plain:
        assert plain.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert plain.execute("SELECT name FROM sqlite_schema WHERE name IN ('added', 'half')").fetchall() == [
            ("added",)
        ]
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "good.sql"))
    store = Store.open(filled.parent)
    assert len(store.results("m", 99)) == 20
    store.close()


def test_what_a_kill_left_of_a_new_database_is_no_obstacle(state: Path) -> None:
    state.mkdir()
    for end in (".new", ".new-journal", ".new-wal"):
        (state / (FILE + end)).write_bytes(b"half")
    Store.open(state).close()
    assert sorted(path.name for path in state.iterdir()) == [FILE, "lock"]


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    state = tmp_path / "a?b#c%20 é'"
    Store.open(state).close()
    store = Store.open(state)
    assert (state / FILE).exists()
    store.close()


def test_a_state_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/state: the state folder cannot be used \(Not a directory\)"):
        Store.open(tmp_path / "file" / "state")


def test_a_state_folder_that_nobody_can_make_is_named() -> None:
    with pytest.raises(StoreError, match="/proc/drift-monitor/state: the state folder"):
        Store.open(Path("/proc/drift-monitor/state"))


# -- disks that are full or read-only --------------------------------------------------------------

SCENE = """
import os, resource, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from drift_monitor.core.errors import StoreError
from drift_monitor.core.types import CheckResult, Episode, Message, Window
from drift_monitor.service.store import FILE, Store
state = Path(sys.argv[1])
T0 = datetime(2013, 1, 1, tzinfo=UTC)
window = Window(start=T0, end=T0 + timedelta(days=1))
features = tuple({"name": os.urandom(40).hex(), "kind": "numeric", "drifted": False} for _ in range(4000))
result = CheckResult.model_validate({"monitor": "m", "window": window, "rows": 1, "verdict": "ok", "reason": "r",
                                     "promise": "p", "features": features})
message = Message(id="a", type="t", source="/s", subject="m", time=T0, group="g", data={})
def attempt(what):
    try:
        what()
    except StoreError as error:
        print("refused:", error)
    else:
        print("stored")
def finish():
    store.finish(1, result, now=T0, messages=[("r", message)])
"""


def scene(code: str, *arguments: str | Path, wrap: tuple[str, ...] = ()) -> list[str]:
    done = subprocess.run(
        [*wrap, sys.executable, "-c", SCENE + dedent(code), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_that_may_not_grow_refuses_the_change_whole_and_recovers(state: Path) -> None:
    lines = scene(
        """
        store = Store.open(state)
        store.enqueue("m", [window])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        attempt(finish)
        print(store.outbox.deliveries(), store.due()[0].state)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        attempt(finish)
        print(len(store.outbox.deliveries()), store.due())
        store.close()
        """,
        state,
    )
    assert FILE in lines[0]
    assert "quotas and file-size limits; what was not stored was rolled back" in lines[0]
    assert lines[1:] == ["[] due", "stored", "1 []"]
    store = Store.open(state)
    assert len(store.outbox.deliveries()) == 1
    store.close()


def test_a_new_state_that_may_not_grow_is_refused_and_not_half_made(state: Path) -> None:
    lines = scene(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        attempt(lambda: Store.open(state))
        """,
        state,
    )
    assert lines[0].startswith("refused:")
    assert not (state / FILE).exists()
    Store.open(state).close()


def in_own_mounts() -> tuple[str, ...]:
    """A command that runs another where it may mount things that nobody else sees."""
    tool = shutil.which("unshare")
    wrap = (tool or "", "--map-root-user", "--mount")
    if tool is None or subprocess.run([*wrap, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a process have mounts of its own (unshare --mount)")
    return wrap


MOUNT = """
import subprocess
def mount(*options):
    subprocess.run(["mount", *options, str(state)], check=True)
"""


def test_a_full_disk_refuses_the_change_whole_and_recovers(state: Path) -> None:
    state.mkdir()
    lines = scene(
        MOUNT
        + dedent("""
        mount("-t", "tmpfs", "-o", "size=2m", "none")
        store = Store.open(state)
        store.enqueue("m", [window])
        filler = os.open(state / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(filler, bytes(4096))
        except OSError:
            pass
        attempt(finish)
        print(store.outbox.deliveries(), store.due()[0].state)
        os.ftruncate(filler, 0)
        attempt(finish)
        print(len(store.outbox.deliveries()), store.due())
        store.close()
        """),
        state,
        wrap=in_own_mounts(),
    )
    assert "the disk is full: free some space; what was not stored was rolled back" in lines[0]
    assert lines[1:] == ["[] due", "stored", "1 []"]


def test_a_state_folder_on_a_full_disk_is_named(state: Path) -> None:
    state.mkdir()
    lines = scene(
        MOUNT
        + dedent("""
        mount("-t", "tmpfs", "-o", "size=4k", "none")
        attempt(lambda: Store.open(state))
        """),
        state,
        wrap=in_own_mounts(),
    )
    assert "full" in lines[0]
    assert str(state) in lines[0]


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_state_folder_is_named(state: Path, existing: bool) -> None:
    state.mkdir()
    lines = scene(
        MOUNT
        + dedent(f"""
        mount("-t", "tmpfs", "none")
        if {existing}:
            Store.open(state).close()
        mount("-o", "remount,ro")
        attempt(lambda: Store.open(state))
        """),
        state,
        wrap=in_own_mounts(),
    )
    assert "the state folder is read-only for this user (Read-only file system)" in lines[0]


def test_a_disk_that_turns_read_only_is_named(store: Store) -> None:
    store._database._connection.execute("PRAGMA query_only = ON")  # SQLite then answers as on such a disk
    with pytest.raises(StoreError, match=f"{FILE}: is read-only"):
        store.count("c_total", {})


# -- the statements --------------------------------------------------------------------------------


def test_every_query_is_described_used_and_correct(state: Path) -> None:
    text = files("drift_monitor.service").joinpath("queries.sql").read_text()
    queries = database.load_queries()
    assert text.count("-- name:") == len(queries)
    folder = Path(database.__file__).parent
    used = {name for path in folder.glob("*.py") for name in re.findall(r'run\(\s*"(\w+)"', path.read_text())}
    assert used == queries.keys()
    Store.open(state).close()
    with closing(sqlite3.connect(state / FILE)) as connection:
        for sql in queries.values():
            assert sql.endswith(";")
            parameters = dict.fromkeys(re.findall(r":(\w+)", sql), "[]")
            connection.execute("EXPLAIN " + sql, parameters)
