"""Rows that come after their window was judged: it is noticed, judged again, and says so."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept_checks import DAY, HOUR, LIVE, PER_HOUR, START, count_rows, monitor, rows
from pydantic import ValidationError

from drift_monitor.cli.account import account_of
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import StoreError
from drift_monitor.core.late_rows import Again, compared, revised
from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Performance, Revision, Window
from drift_monitor.service import buckets as buckets_module
from drift_monitor.service import kept as kept_module
from drift_monitor.service import store as store_module
from drift_monitor.service.bucket_store import FOLDER
from drift_monitor.service.evaluate import CheckRequest, Earlier, evaluate
from drift_monitor.service.messages import Links
from drift_monitor.service.metrics_api import FeaturePages
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import Store
from drift_monitor.service.stored import stored_run
from drift_monitor.service.worker import cannot_judge
from drift_monitor.sources import sql as sql_module
from drift_monitor.sources.parquet_files import BATCH_ROWS

SIX = 6 * HOUR
QUIET = (5, 6, 8, 11)  # seeds of windows that are no drift
WHOLE = 6 * PER_HOUR


def window(n: int) -> Window:
    """One of the live day's four quarters."""
    return Window(start=LIVE + n * SIX, end=LIVE + (n + 1) * SIX)


def write(data: Path, name: str, table: pa.Table) -> None:
    pq.write_table(table, data / "live" / f"{name}.parquet")


def late(data: Path, n: int = 0, hours: int = 1, seed: int = 9) -> None:
    """Further rows of a window."""
    write(data, f"late-{n}-{seed}", rows(window(n).start, hours, seed=seed))


def moved(n: int) -> pa.Table:
    """A window's rows, faster than ever."""
    table = rows(window(n).start, 6, seed=12)
    return table.set_column(2, "speed", pa.array(np.random.default_rng(9).normal(115, 10, table.num_rows)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two weeks of training data, and the live day in a file a quarter."""
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    for n in range(4):
        write(tmp_path, str(n), rows(window(n).start, 6, seed=QUIET[n]))
    return tmp_path


def judge(data: Path, n: int, *earlier: CheckResult, **settings: Any) -> CheckResult:
    asked = tuple(Earlier(window=each.window, read_from=each.read_from or "") for each in earlier)
    request = CheckRequest(
        name="m",
        monitor=monitor(data, **({"length": "6h", "lateness": "1d"} | settings)),
        state=data / "state",
        window=window(n),
        earlier=asked,
    )
    return evaluate(CheckRequest.model_validate_json(request.model_dump_json()))


# -- noticed ---------------------------------------------------------------------------------------


def test_late_rows_reopen_the_windows_that_they_lie_in_and_no_other(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_rows(monkeypatch)
    first, second = judge(data, 0), judge(data, 1)
    third = judge(data, 2, first, second)
    assert third.reopened == ()
    late(data, 1)
    assert judge(data, 3, first, second, third).reopened == (window(1),)
    again = judge(data, 1)
    assert (again.rows, second.rows) == (WHOLE + PER_HOUR, WHOLE)
    assert judge(data, 3, first, again, third).reopened == ()
    assert read["rows"] == 25 * PER_HOUR  # each once


def test_rows_that_are_gone_or_changed_reopen_their_window(data: Path) -> None:
    first, second = judge(data, 0), judge(data, 1)
    write(data, "0", rows(window(0).start, 6, seed=77))
    (data / "live" / "1.parquet").unlink()
    assert judge(data, 2, first, second).reopened == (window(0), window(1))


def test_late_rows_without_a_time_reopen_the_window_between_whose_rows_they_lie(data: Path) -> None:
    first, second = judge(data, 0), judge(data, 1)
    write(data, "late", rows(window(1).start - HOUR / 2, 1, seed=9, broken=39))  # its last row is the second's
    assert judge(data, 2, first, second).reopened == (window(1),)


def test_the_same_rows_in_another_file_reopen_nothing(data: Path) -> None:
    first, second = judge(data, 0), judge(data, 1)
    tables = [pq.read_table(data / "live" / f"{n}.parquet") for n in (0, 1)]
    (data / "live" / "0.parquet").unlink()
    write(data, "1", pa.concat_tables(tables))
    assert judge(data, 2, first, second).reopened == ()


@pytest.mark.parametrize("what", ["reference", "source", "columns"])
def test_what_was_counted_otherwise_is_not_compared(data: Path, what: str) -> None:
    first = judge(data, 0)
    late(data)
    if what == "reference":  # with one more column, so that its cells are the same
        table = pq.read_table(data / "training.parquet")
        pq.write_table(table.append_column("note", pa.array(["x"] * table.num_rows)), data / "training.parquet")
        assert judge(data, 0).reference != first.reference
    elif what == "source":
        (data / "source.json").write_text(json.dumps({"path": str(data / "live" / "*.parquet")}))
    else:
        table = pq.read_table(data / "training.parquet")
        pq.write_table(table.drop_columns(["load"]), data / "training.parquet")
    assert judge(data, 1, first).reopened == ()


@pytest.mark.parametrize("what", ["type", "column"])
def test_a_bad_file_of_an_earlier_window_does_not_touch_the_new_one(data: Path, what: str) -> None:
    first = judge(data, 0)
    table = rows(window(1).start, 6, seed=QUIET[1])
    if what == "type":
        table = table.set_column(table.column_names.index("load"), "load", pa.array(["x"] * table.num_rows))
    else:
        table = table.drop_columns(["load"])
    write(data, "1", table)
    found = judge(data, 2, first, judge(data, 1))
    assert (found.verdict, found.rows, found.reopened) == (Outcome.OK, WHOLE, ())


def test_rows_of_an_earlier_window_that_have_no_time_do_not_touch_the_new_one(data: Path) -> None:
    """A whole batch of them: nothing tells where they lie."""
    n = BATCH_ROWS + 1
    times = pa.array([None] * (n - 1) + [window(1).start], pa.timestamp("us", "UTC"))
    table = rows(window(1).start, 1, seed=9).slice(0, 1).take(np.zeros(n, int)).set_column(0, "time", times)
    write(data, "1", table)
    first, second = judge(data, 0), judge(data, 1)
    assert second.failure is FailureReason.SCHEMA
    found = judge(data, 2, first, second)
    assert (found.verdict, found.rows, found.invalid_rows, found.reopened) == (Outcome.OK, WHOLE, 0, ())
    assert judge(data, 1, first).reopened == ()


def test_a_look_that_fails_is_logged_and_costs_nothing_else(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = judge(data, 0)
    wrong = rows(window(0).start, 1, seed=9)
    write(data, "late", wrong.set_column(3, "load", pa.array(["x"] * wrong.num_rows)))
    found = judge(data, 1, first)
    assert (found.verdict, found.reopened) == (Outcome.OK, ())
    assert f"no late rows are found in {window(0)}" in caplog.text


def test_a_bad_file_of_one_earlier_window_does_not_hide_the_late_rows_of_others(data: Path) -> None:
    first, second = judge(data, 0), judge(data, 1)
    wrong = rows(window(0).start, 1, seed=9)
    write(data, "bad", wrong.set_column(3, "load", pa.array(["x"] * wrong.num_rows)))
    late(data, 1)
    assert judge(data, 2, first, second).reopened == (window(1),)


def test_a_scattered_file_in_the_new_window_does_not_hide_late_rows(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judge(data, 0)
    monkeypatch.setattr(buckets_module, "MEMORY", 0)  # 26 buckets
    hours = [rows(window(1).start - 24 * n * HOUR, 1, seed=n + 40).slice(0, 3) for n in range(30)]
    write(data, "scattered", pa.concat_tables(hours))
    late(data)
    found = judge(data, 1, first)
    assert (found.read_from, found.reopened) == (None, (window(0),))


# -- judged again ----------------------------------------------------------------------------------


FEATURES = ({"name": "x", "kind": "numeric", "drifted": False},)


def result(**fields: Any) -> CheckResult:
    said = {"rows": 10, "verdict": Outcome.OK, "reason": "fine", "promise": "p", "read_from": "a:1", **fields}
    return CheckResult.model_validate({"monitor": "m", "window": window(0), **said})


def test_a_revised_result_tells_what_was_said_first_and_how_often_it_changed() -> None:
    scored = Performance(window=window(0), rows=1, labelled=1, scored=0)
    before = result(score=0.5, performance=scored, reopened=(window(3),))
    second = revised(before, result(rows=12, score=2.0, verdict=Outcome.DRIFT, reason="drift"))
    assert second.revised == Revision(verdict=Outcome.OK, rows=10, score=0.5, times=1)
    assert second.reason == "drift (judged again since its rows changed: ok with 10 rows at first)"
    assert (second.performance, second.reopened) == (scored, (window(3),))
    third = revised(second, result(rows=13))
    assert (third.rows, third.revised) == (13, Revision(verdict=Outcome.OK, rows=10, score=0.5, times=2))


@pytest.mark.parametrize(
    ("before", "now", "outcome"),
    [
        ({}, {"seconds": {"judge": 1.0}, "read_from": "a:2", "reason": "other words"}, Again.SAME),
        ({"features": ()}, {"features": FEATURES}, Again.SAME),  # of an old one only the summary is kept
        ({"features": FEATURES}, {"features": ()}, Again.REVISED),
        ({}, {"rows": 11}, Again.REVISED),
        ({}, {"score": 1.0}, Again.REVISED),
        ({}, {"invalid_rows": 1}, Again.REVISED),
        ({}, {"rows": 9}, Again.FEWER),
        ({}, {"rows": 0, "verdict": Outcome.NO_DATA}, Again.FEWER),
        ({}, {"rows": 11, "read_from": "b:1"}, Again.OTHERWISE),
        ({}, {"rows": 11, "read_from": None}, Again.OTHERWISE),
        ({"failure": "schema", "rows": 90}, {"rows": 11}, Again.REVISED),
        ({}, {"failure": "source", "rows": 11}, Again.FAILED),
    ],
)
def test_what_becomes_of_a_second_judgement(before: dict[str, Any], now: dict[str, Any], outcome: Again) -> None:
    assert compared(result(**before), result(**now)) is outcome


class Daemon:
    """Due windows, judged one by one, with the record that a daemon keeps of them."""

    def __init__(self, data: Path, store: Store, **settings: Any) -> None:
        self.data, self.store = data, store
        self.reload(**settings)

    def reload(self, watched: Monitor | None = None, *, lateness: str = "1d", length: str = "6h") -> None:
        watched = watched or monitor(self.data, length=length, lateness=lateness)
        config = Config.model_construct(state=self.data / "state", monitors={"m": watched})
        hooks = Hooks(finished=lambda: None, report=lambda *_: None, stored=lambda: None, failed=lambda _: None)
        self.monitor = watched
        self.runs = Runs(self.store, lambda: config, lambda *_: Links("", None), "/drift-monitor/test", hooks)

    def judge(self, *due: int, most: int = 99) -> list[str]:
        """What was judged, in order, a window that was judged again with `again`."""
        self.store.enqueue("m", [window(n) for n in due])
        judged: list[str] = []
        while len(judged) < most and (work := self.runs.take()) is not None:
            run, request = work
            judged.append(f"{(run.window.start - LIVE) // SIX}{' again' if run.again else ''}")
            self.runs.done(run, evaluate(request))
        return judged

    @property
    def results(self) -> list[CheckResult]:
        """Oldest first."""
        return [found for _, found in self.store.results("m", 99)][::-1]

    def count(self, name: str) -> float:
        return self.store.snapshot().counters.get((name, (("monitor", "m"),)), 0)


@pytest.fixture
def daemon(data: Path) -> Iterator[Daemon]:
    with closing(Store.open(data / "state")) as store:
        yield Daemon(data, store)


def test_a_window_that_late_rows_reached_is_judged_again_after_the_new_ones(data: Path, daemon: Daemon) -> None:
    assert daemon.judge(0) == ["0"]
    late(data, hours=2)
    assert daemon.judge(1, 2) == ["1", "2", "0 again"]
    first, second, third = daemon.results
    assert (first.rows, second.rows) == (WHOLE + 2 * PER_HOUR, WHOLE)
    assert (first.reopened, second.reopened, third.reopened) == ((), (window(0),), (window(0),))
    assert first.revised is not None
    assert (first.revised.verdict, first.revised.rows, first.revised.times) == (Outcome.OK, WHOLE, 1)
    assert daemon.judge(3) == ["3"]
    assert (daemon.count("runs_total"), daemon.count("windows_revised_total")) == (4, 1)
    assert daemon.count("rows_processed_total") == 4 * WHOLE


def test_it_may_drift_for_the_windows_to_come_but_tells_nobody(data: Path, daemon: Daemon) -> None:
    assert daemon.judge(0) == ["0"]
    write(data, "late", moved(0))
    daemon.judge(1)
    assert daemon.store.history("m", window(1).end, 9)[-1] is daemon.results[0].verdict is Outcome.DRIFT
    assert daemon.store.snapshot().open_episodes == ()
    assert daemon.store.outbox.deliveries() == []


def test_explain_tells_of_a_revised_window_what_alarms_followed(data: Path, daemon: Daemon) -> None:
    write(data, "0", moved(0))
    daemon.judge(0, 1)
    write(data, "0", rows(window(0).start, 6, seed=QUIET[0]))
    write(data, "late", moved(1))
    daemon.judge(2)
    was_drift, was_ok = (account_of(stored_run(daemon.store, n), daemon.monitor.alarm) for n in (1, 2))
    assert was_drift.lanes["drift"][1] == (
        "this window opened an episode, which is one alert: 1 of the last 1 failed, 1 must, "
        "as it was judged first: drift with 240 rows"
    )
    assert was_ok.lanes["drift"][0] == "resolved"
    score = was_ok.result.revised.score
    assert was_ok.data()["revised"] == {"verdict": "ok", "rows": 240, "score": score, "times": 1}


def test_rows_that_come_later_than_the_lateness_change_nothing(data: Path, daemon: Daemon) -> None:
    daemon.reload(lateness="6h")
    daemon.judge(0, 1, 2)
    for n in range(3):
        late(data, n)
    assert daemon.judge(3) == ["3", "1 again", "2 again"]
    assert [each.rows // PER_HOUR for each in daemon.results] == [6, 7, 7, 6]


def test_at_most_so_many_windows_are_looked_at_the_newest(
    data: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_EARLIER", 2)
    daemon.judge(0, 1, 2)
    for n in range(3):
        late(data, n)
    assert daemon.judge(3) == ["3", "1 again", "2 again"]


def test_without_lateness_a_window_stays_as_it_was_judged(data: Path, daemon: Daemon) -> None:
    daemon.reload(lateness="0s")
    daemon.judge(0)
    late(data)
    assert daemon.judge(1) == ["1"]


def test_rows_in_another_order_of_files_are_no_revision(data: Path, daemon: Daemon) -> None:
    """Two files of one hour become one, so the kept profiles change and what they say does not."""
    halves = rows(window(0).start, 1, seed=9)
    write(data, "a", halves.slice(0, 20))
    write(data, "b", halves.slice(20))
    daemon.judge(0)
    first = daemon.store.result(1)
    (data / "live" / "b.parquet").unlink()
    write(data, "a", halves)
    assert daemon.judge(1) == ["1", "0 again"]
    assert daemon.judge(2) == ["2"]
    assert daemon.store.result(1) == first
    assert daemon.count("windows_revised_total") == 0
    late(data)
    assert daemon.judge(3) == ["3", "0 again"]
    assert daemon.judge(4) == ["4"]


def test_rows_that_are_gone_leave_the_judgement_that_knew_them(data: Path, daemon: Daemon) -> None:
    """A log that is kept no longer, say."""
    daemon.judge(0, 1)
    first = daemon.store.result(1)
    (data / "live" / "0.parquet").unlink()
    write(data, "1", rows(window(1).start, 6, seed=QUIET[1]).slice(80))
    assert daemon.judge(2) == ["2", "0 again", "1 again"]
    assert daemon.judge(3) == ["3"]  # one look at what is left is enough
    assert daemon.store.result(1) == first
    assert [each.rows for each in daemon.results[:2]] == [WHOLE, WHOLE]
    assert daemon.count("windows_revised_total") == 0


def test_a_window_that_cannot_be_judged_again_stays_and_is_tried_with_the_next(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    run, _ = daemon.runs.take()
    daemon.runs.done(run, cannot_judge("m", run.window, FailureReason.SOURCE, "the disk is gone"))
    assert daemon.runs.idle
    assert (daemon.results[0].verdict, daemon.results[0].rows) == (Outcome.OK, WHOLE)
    assert daemon.judge(2) == ["2", "0 again"]
    assert daemon.results[0].rows == WHOLE + PER_HOUR


def test_a_second_judgement_is_tried_three_times_and_succeeds_or_is_left(data: Path, daemon: Daemon) -> None:
    """A failure that comes after the rows were read is one that may pass, too."""
    daemon.judge(0)
    late(data)
    tried = 0
    for n in range(1, 8):
        daemon.store.enqueue("m", [window(n)])
        while (work := daemon.runs.take()) is not None:
            run, request = work
            found = evaluate(request)
            if run.again:
                tried += 1
                failed = cannot_judge("m", run.window, FailureReason.MEMORY, "too large")
                found = failed.model_copy(update={"read_from": found.read_from})
            daemon.runs.done(run, found)
    assert tried == 3
    assert daemon.results[0].rows == WHOLE


def test_a_window_that_is_read_directly_for_once_is_tried_with_the_next(
    data: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_: Path) -> None:
        raise StoreError("locked")

    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    with monkeypatch.context() as patch:
        patch.setattr(kept_module, "BucketStore", locked)
        assert daemon.judge() == ["0 again"]
    assert daemon.judge(2) == ["2", "0 again"]
    assert daemon.results[0].rows == WHOLE + PER_HOUR


def test_a_check_that_fails_does_not_forget_late_rows(data: Path, daemon: Daemon) -> None:
    daemon.reload(lateness="1h")
    daemon.judge(0)
    late(data)
    daemon.store.enqueue("m", [window(1)])
    run, _ = daemon.runs.take()
    daemon.runs.done(run, cannot_judge("m", run.window, FailureReason.SOURCE, "the disk is gone"))
    assert daemon.judge(2) == ["2", "0 again"]


def test_a_window_whose_times_could_not_be_read_is_judged_when_its_file_is_mended(
    data: Path, daemon: Daemon
) -> None:
    write(data, "0", rows(window(0).start, 6, seed=QUIET[0], broken=100))
    daemon.judge(0)
    assert daemon.results[0].failure is FailureReason.SCHEMA
    assert daemon.judge(1) == ["1"]
    write(data, "0", rows(window(0).start, 6, seed=QUIET[0]))
    assert daemon.judge(2) == ["2", "0 again"]
    assert daemon.results[0].verdict is Outcome.OK


def test_a_window_without_rows_is_judged_when_they_come(data: Path, daemon: Daemon) -> None:
    (data / "live" / "0.parquet").rename(data / "away")
    daemon.judge(0)
    assert daemon.results[0].verdict is Outcome.NO_DATA
    (data / "away").rename(data / "live" / "0.parquet")
    assert daemon.judge(1) == ["1", "0 again"]
    assert daemon.results[0].verdict is Outcome.OK


def test_labels_are_not_joined_again(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    daemon.reload(daemon.monitor.model_copy(update={"labels": object()}))
    _, request = daemon.runs.take()
    assert (request.monitor.labels, request.earlier) == (None, ())


# -- the daemon dies, or is told something else ----------------------------------------------------


def test_a_daemon_that_dies_while_it_judges_again_does_so_after_its_start_and_not_for_ever(
    data: Path, daemon: Daemon
) -> None:
    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    taken = Counter[int]()
    for _ in range(5):
        daemon.reload()  # a new process
        daemon.store.recover(3)
        if (work := daemon.runs.take()) is not None:
            taken[work[0].id] += 1
    assert taken == {1: 3}
    assert daemon.judge(2) == ["2"]
    assert daemon.results[0].rows == WHOLE


def test_attempts_are_counted_on_when_another_check_asks_for_the_window_too(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    assert daemon.runs.take()[0].attempts == 0
    daemon.reload()  # it died, and starts again
    assert daemon.judge(2, most=1) == ["2"]
    assert daemon.results[-1].reopened == (window(0),)
    assert daemon.runs.take()[0].attempts == 1


def test_one_that_was_stopped_with_the_daemon_is_given_back(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    late(data)
    daemon.judge(1, most=1)
    for _ in range(5):
        run, _ = daemon.runs.take()
        daemon.runs.give_back(run)
        daemon.store.recover(3)
    assert daemon.judge() == ["0 again"]


@pytest.mark.parametrize("what", ["lateness", "length", "source", "columns"])
def test_a_window_that_waits_while_the_configuration_changes_stays_as_it_was(
    data: Path, daemon: Daemon, what: str
) -> None:
    daemon.judge(0)
    version = next(path.parent for path in (data / "state").rglob("manifest.json"))
    first = daemon.store.result(1)
    late(data)
    daemon.judge(1, most=1)
    if what == "source":
        (data / "elsewhere").mkdir()
        pq.write_table(rows(window(0).start, 9, seed=3), data / "elsewhere" / "a.parquet")
        (data / "source.json").write_text(json.dumps({"path": str(data / "elsewhere" / "*")}))
        daemon.reload()
    elif what == "columns":
        less = daemon.monitor.columns.model_copy(update={"ignore": ("load",)})
        daemon.reload(daemon.monitor.model_copy(update={"columns": less, "reference": version}))
    else:
        daemon.reload(**{what: {"lateness": "0s", "length": "12h"}[what]})
    assert daemon.judge() == ([] if what in {"lateness", "length"} else ["0 again"])
    assert daemon.store.result(1) == first
    assert daemon.runs.idle


def test_windows_of_another_length_are_not_looked_at(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    late(data)
    daemon.reload(length="12h")
    daemon.store.enqueue("m", [Window(start=window(1).start, end=window(2).end)])
    assert daemon.judge() == ["1"]
    assert daemon.results[-1].reopened == ()


def test_metrics_follow_a_revision(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    pages = FeaturePages(daemon.store)
    old = pages.page("m", openmetrics=False)
    assert daemon.store.snapshot().latest_judged["m"].rows == WHOLE
    late(data, hours=6)
    (data / "live" / "1.parquet").unlink()
    daemon.judge(1)  # no data, so the first is still the newest that was judged
    assert daemon.store.snapshot().latest_judged["m"].rows == 2 * WHOLE
    new = pages.page("m", openmetrics=False)
    assert gzip.decompress(new) != gzip.decompress(old)


def test_a_snapshot_that_is_read_while_a_window_is_revised_is_not_remembered(
    data: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.judge(0)
    before = daemon.store.result(1)
    late(data)
    (data / "live" / "1.parquet").unlink()
    daemon.judge(1, most=1)  # no data, so the first is still the newest that was judged
    plain, begun = CheckResult.model_validate_json, threading.Event()

    def slow(text: Any, **options: Any) -> CheckResult:
        if not begun.is_set():
            begun.set()
            daemon.store.revise(1, before.model_copy(update={"rows": 999}))
        return plain(text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckResult, "model_validate_json", slow)
        assert daemon.store.snapshot().latest_judged["m"].rows == WHOLE
    assert daemon.store.snapshot().latest_judged["m"].rows == 999


def test_a_check_at_the_command_line_does_not_make_the_daemon_read_again(
    data: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4, 20):
        write(data, str(n), rows(window(n).start, 6, seed=100 + n))
    read = count_rows(monkeypatch)
    daemon.reload(lateness="5d")
    daemon.judge(*range(18))
    request = CheckRequest(name="m", monitor=daemon.monitor, state=data / "state", window=window(17))
    evaluate(request)  # which looks at no other window
    assert daemon.judge(18) == ["18"]
    assert read["rows"] == 19 * WHOLE


def test_late_rows_of_a_database(data: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the window's first hour comes after its end: that hour must not be settled yet."""
    now = [window(0).end]

    class Clock(datetime):
        @classmethod
        def now(cls, _: Any = None) -> datetime:
            return now[0]

    monkeypatch.setattr(sql_module, "datetime", Clock)
    table = data / "t.duckdb"
    with duckdb.connect(str(table)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT * FROM '{data}/live/*.parquet'")
    said = {"type": "sql", "uri": f"duckdb:///{table}", "table": "t", "lateness": "14h"}
    (data / "source.json").write_text(json.dumps(said))
    daemon.reload(lateness="2h")
    daemon.judge(0)
    late(data)
    with duckdb.connect(str(table)) as connection:
        connection.execute(f"INSERT INTO t SELECT * FROM '{data}/live/late*.parquet'")
    now[0] = window(1).end
    assert daemon.judge(1) == ["1", "0 again"]
    assert daemon.results[0].rows == WHOLE + PER_HOUR
    now[0] = window(2).end
    assert daemon.judge(2) == ["2"]
    for n in range(3, 12):
        now[0] = window(n).end
        daemon.judge(n)
    with closing(sqlite3.connect(data / "state" / FOLDER / "m.db")) as kept:
        (units,) = kept.execute("SELECT count(*) FROM units").fetchone()
        (oldest,) = kept.execute("SELECT min(start) FROM parts").fetchone()
    assert units < 2 * (6 + 6 + 2) + 6  # and not what each check has read
    kept_since = (
        window(11).start - SIX - 2 * HOUR - 2 * DAY
    )  # a window, its lateness and two days before the newest
    assert oldest >= kept_since.timestamp() * 1e6


# -- the configuration -----------------------------------------------------------------------------


def configured(source: dict[str, Any], retention: dict[str, str] | None = None, **window: Any) -> Config:
    known = {"reference": "r", "source": source, "schedule": {"every": "6h"}, "window": {"length": "6h", **window}}
    if "pushdown" in source:
        known |= {"columns": {"edges": 20}, "alarm": {"multivariate": []}, "report": {"enabled": False}}
    return Config.model_validate({"monitors": {"m": known}, "retention": retention or {}}, strict=False)


FILES = {"path": "p", "timestamp": "t"}
TABLE = {"type": "sql", "uri": "duckdb:///x.db", "table": "t", "timestamp": "t"}
SPARK = {"type": "spark", "master": "local[1]", "table": "t", "timestamp": "t"}
PUSH = {"type": "push", "timestamp": "t"}


@pytest.mark.parametrize(
    ("source", "fields", "said"),
    [
        ({"path": "p"}, {}, "window.lateness needs source.timestamp"),
        (FILES, {"incremental": False}, "window.lateness needs window.incremental"),
        ({**FILES, "sample": 10}, {}, "window.lateness needs no source.sample"),
        ({**TABLE, "pushdown": "duckdb"}, {}, "window.lateness needs no source.pushdown"),
        (SPARK, {}, "window.lateness needs another source than a table of Spark"),
        (TABLE, {}, "window.lateness needs source.lateness of 19h or more"),
        ({**TABLE, "lateness": "18h"}, {}, "window.lateness needs source.lateness of 19h or more"),
        ({**PUSH, "keep": "18h"}, {}, "a window with its delay and lateness needs 19h"),
    ],
)
def test_lateness_needs_what_tells_late_rows(source: dict[str, Any], fields: dict[str, Any], said: str) -> None:
    """A window of 6h is judged 1h after its end, and looked at again for 6h and one more check."""
    with pytest.raises(ValidationError, match=said):
        configured(source, lateness="6h", delay="1h", **fields)


def test_lateness_is_taken_where_late_rows_can_be_told() -> None:
    for source in (FILES, {**TABLE, "lateness": "19h"}, {**PUSH, "keep": "19h"}):
        assert configured(source, lateness="6h", delay="1h").monitors["m"].window.lateness == SIX


def test_lateness_is_within_the_time_that_results_are_kept() -> None:
    with pytest.raises(ValidationError, match=r"windows of 180h judged again, and results are kept for 1w"):
        configured(FILES, {"results": "7d"}, lateness="7d")
    configured(FILES, {"results": "8d"}, lateness="7d")
