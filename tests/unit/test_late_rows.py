"""Rows that come after their window was judged: it is noticed, judged again, and says so."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept_checks import HOUR, LIVE, PER_HOUR, START, count_rows, monitor, rows
from pydantic import ValidationError

from drift_monitor.config.models import Config
from drift_monitor.core.late_rows import revised, says_the_same
from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Revision, Window
from drift_monitor.service.evaluate import CheckRequest, Earlier, evaluate
from drift_monitor.service.messages import Links
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import Store
from drift_monitor.service.worker import cannot_judge

SIX = 6 * HOUR
QUIET = (5, 6, 8, 11)  # seeds of windows that are no drift


def window(n: int) -> Window:
    """One of the live day's four quarters."""
    return Window(start=LIVE + n * SIX, end=LIVE + (n + 1) * SIX)


def write(data: Path, name: str, table: pa.Table) -> None:
    pq.write_table(table, data / "live" / f"{name}.parquet")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two weeks of training data, and the live day in a file a quarter."""
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    for n in range(4):
        write(tmp_path, str(n), rows(window(n).start, 6, seed=QUIET[n]))
    return tmp_path


def judge(data: Path, n: int, *earlier: CheckResult) -> CheckResult:
    asked = tuple(Earlier(window=each.window, read_from=each.read_from or "") for each in earlier)
    request = CheckRequest(
        name="m",
        monitor=monitor(data, length="6h", lateness="1d"),
        state=data / "state",
        window=window(n),
        earlier=asked,
    )
    return evaluate(CheckRequest.model_validate_json(request.model_dump_json()))


def test_late_rows_reopen_the_windows_that_they_lie_in_and_no_other(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_rows(monkeypatch)
    first, second = judge(data, 0), judge(data, 1)
    third = judge(data, 2, first, second)
    assert third.reopened == ()
    write(data, "late", rows(window(1).start + HOUR, 1, seed=9))
    assert judge(data, 3, first, second, third).reopened == (window(1),)
    again = judge(data, 1)
    assert (again.rows, second.rows) == (7 * PER_HOUR, 6 * PER_HOUR)
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


def test_what_was_counted_in_other_cells_is_not_compared(data: Path) -> None:
    first = judge(data, 0)
    write(data, "late", rows(window(0).start, 1, seed=9))
    pq.write_table(rows(START, 14 * 24, seed=55), data / "training.parquet")
    assert judge(data, 1, first).reopened == ()


# -- judged again ----------------------------------------------------------------------------------


def result(**fields: object) -> CheckResult:
    known = {
        "monitor": "m",
        "window": window(0),
        "rows": 10,
        "verdict": Outcome.OK,
        "reason": "fine",
        "promise": "p",
    }
    return CheckResult.model_validate(known | fields)


def test_a_revised_result_tells_what_was_said_first_and_how_often_it_changed() -> None:
    second = revised(result(score=0.5), result(rows=12, score=2.0, verdict=Outcome.DRIFT, reason="drift"))
    assert second.revised == Revision(verdict=Outcome.OK, rows=10, score=0.5, times=1)
    assert second.reason == "drift (judged again since rows came late: ok with 10 rows at first)"
    third = revised(second, result(rows=13))
    assert (third.rows, third.revised) == (13, Revision(verdict=Outcome.OK, rows=10, score=0.5, times=2))


def test_results_say_the_same_however_long_they_took() -> None:
    assert says_the_same(result(seconds={"judge": 1.0}, read_from="a:b"), result(seconds={"judge": 2.0}))
    assert not says_the_same(result(), result(rows=11))
    assert not says_the_same(result(), result(invalid_rows=1))


class Daemon:
    """Due windows, judged one by one, with the record that a daemon keeps of them."""

    def __init__(self, data: Path, store: Store, lateness: str = "1d") -> None:
        watched = monitor(data, length="6h", lateness=lateness)
        config = Config.model_construct(state=data / "state", monitors={"m": watched})
        hooks = Hooks(finished=lambda: None, report=lambda *_: None, stored=lambda: None, failed=lambda _: None)
        self.store = store
        self.runs = Runs(store, lambda: config, lambda *_: Links("", None), "/drift-monitor/test", hooks)

    def judge(self, *due: int) -> list[str]:
        """What was judged, in order, a window that was judged again with `again`."""
        self.store.enqueue("m", [window(n) for n in due])
        judged = []
        while (work := self.runs.take()) is not None:
            run, request = work
            again = " again" if run.state == "done" else ""
            judged.append(f"{(run.window.start - LIVE) // SIX}{again}")
            self.runs.done(run, evaluate(request))
        return judged

    def results(self) -> list[CheckResult]:
        """Oldest first."""
        return [found for _, found in self.store.results("m", 99)][::-1]

    def count(self, name: str) -> float:
        return self.store.snapshot().counters.get((name, (("monitor", "m"),)), 0)


@pytest.fixture
def daemon(data: Path) -> Daemon:
    with closing(Store.open(data / "state")) as store:
        yield Daemon(data, store)


def test_a_window_that_late_rows_reached_is_judged_again_after_the_new_one(data: Path, daemon: Daemon) -> None:
    assert daemon.judge(0) == ["0"]
    write(data, "late", rows(window(0).start, 2, seed=9))
    assert daemon.judge(1) == ["1", "0 again"]
    first, second = daemon.results()
    assert (first.rows, second.rows) == (8 * PER_HOUR, 6 * PER_HOUR)
    assert (second.reopened, first.reopened) == ((window(0),), ())
    assert (first.revised.verdict, first.revised.rows, first.revised.times) == (Outcome.OK, 6 * PER_HOUR, 1)
    assert daemon.judge(2) == ["2"]
    assert (daemon.count("runs_total"), daemon.count("windows_revised_total")) == (3, 1)
    assert daemon.count("rows_processed_total") == 18 * PER_HOUR


def test_a_late_row_may_make_it_drift_for_the_windows_to_come_but_tells_nobody(data: Path, daemon: Daemon) -> None:
    assert daemon.judge(0) == ["0"]
    moved = rows(window(0).start, 6, seed=12)
    speed = np.random.default_rng(9).normal(115, 10, moved.num_rows)
    write(data, "late", moved.set_column(2, "speed", pa.array(speed)))
    daemon.judge(1)
    assert daemon.store.history("m", window(1).end, 9)[-1] is daemon.results()[0].verdict is Outcome.DRIFT
    assert daemon.store.snapshot().open_episodes == ()
    assert daemon.store.outbox.deliveries() == []


def test_rows_that_come_later_than_the_lateness_change_nothing(data: Path) -> None:
    with closing(Store.open(data / "state")) as store:
        daemon = Daemon(data, store, lateness="6h")
        daemon.judge(0, 1, 2)
        for n in range(3):
            write(data, f"late{n}", rows(window(n).start, 1, seed=9 + n))
        assert daemon.judge(3) == ["3", "1 again", "2 again"]
        assert [each.rows // PER_HOUR for each in daemon.results()] == [6, 7, 7, 6]


def test_without_lateness_a_window_stays_as_it_was_judged(data: Path) -> None:
    with closing(Store.open(data / "state")) as store:
        daemon = Daemon(data, store, lateness="0s")
        daemon.judge(0)
        write(data, "late", rows(window(0).start, 1, seed=9))
        assert daemon.judge(1) == ["1"]


def test_rows_in_another_order_of_files_are_no_revision(data: Path, daemon: Daemon) -> None:
    """Two files of one hour become one, so the kept profiles change and what they say does not."""
    halves = rows(window(0).start, 1, seed=9)
    write(data, "a", halves.slice(0, 20))
    write(data, "b", halves.slice(20))
    daemon.judge(0)
    (data / "live" / "b.parquet").unlink()
    write(data, "a", halves)
    assert daemon.judge(1) == ["1", "0 again"]
    assert daemon.results()[0].revised is None
    assert daemon.judge(2) == ["2"]
    assert daemon.count("windows_revised_total") == 0


def test_a_window_that_cannot_be_judged_again_stays_and_is_tried_with_the_next(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    write(data, "late", rows(window(0).start, 1, seed=9))
    daemon.store.enqueue("m", [window(1)])
    run, request = daemon.runs.take()
    daemon.runs.done(run, evaluate(request))
    run, _ = daemon.runs.take()
    daemon.runs.done(run, cannot_judge("m", run.window, FailureReason.SOURCE, "the disk is gone"))
    assert daemon.runs.idle
    assert (daemon.results()[0].verdict, daemon.results()[0].rows) == (Outcome.OK, 6 * PER_HOUR)
    assert daemon.judge(2) == ["2", "0 again"]
    assert daemon.results()[0].rows == 7 * PER_HOUR


def test_a_daemon_that_dies_while_it_judges_again_does_so_after_its_start_and_not_for_ever(
    data: Path, daemon: Daemon
) -> None:
    daemon.judge(0)
    write(data, "late", rows(window(0).start, 1, seed=9))
    daemon.store.enqueue("m", [window(1)])
    run, request = daemon.runs.take()
    daemon.runs.done(run, evaluate(request))
    taken = Counter[int]()
    for _ in range(5):
        runs = Daemon(data, daemon.store).runs  # of a new process
        daemon.store.recover(3)
        if (work := runs.take()) is not None:
            taken[work[0].id] += 1
    assert taken == {1: 3}
    assert daemon.results()[0].rows == 6 * PER_HOUR


def test_one_that_was_stopped_with_the_daemon_is_given_back(data: Path, daemon: Daemon) -> None:
    daemon.judge(0)
    write(data, "late", rows(window(0).start, 1, seed=9))
    daemon.store.enqueue("m", [window(1)])
    run, request = daemon.runs.take()
    daemon.runs.done(run, evaluate(request))
    for _ in range(5):
        run, _ = daemon.runs.take()
        daemon.runs.give_back(run)
        daemon.store.recover(3)
    assert daemon.judge() == ["0 again"]


# -- the configuration -----------------------------------------------------------------------------


def configured(source: dict[str, object], retention: dict[str, str] | None = None, **window: object) -> Config:
    monitor = {
        "reference": "r",
        "source": source,
        "schedule": {"every": "6h"},
        "window": {"length": "6h", **window},
    }
    return Config.model_validate({"monitors": {"m": monitor}, "retention": retention or {}}, strict=False)


FILES = {"path": "p", "timestamp": "t"}
TABLE = {"type": "sql", "uri": "duckdb:///x.db", "table": "t", "timestamp": "t"}


@pytest.mark.parametrize(
    ("source", "fields", "said"),
    [
        ({"path": "p"}, {}, "window.lateness needs source.timestamp"),
        (FILES, {"incremental": False}, "window.lateness needs window.incremental"),
        ({**FILES, "sample": 10}, {}, "window.lateness needs no source.sample"),
        (TABLE, {}, "window.lateness needs source.lateness of 6h or more"),
        ({**TABLE, "lateness": "5h"}, {}, "window.lateness needs source.lateness of 6h or more"),
        ({"type": "push", "timestamp": "t", "keep": "12h"}, {}, "a window with its delay and lateness needs 13h"),
    ],
)
def test_lateness_needs_what_tells_late_rows(
    source: dict[str, object], fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        configured(source, lateness="6h", delay="1h", **fields)


def test_lateness_is_taken_where_late_rows_can_be_told() -> None:
    for source in (FILES, {**TABLE, "lateness": "6h"}, {"type": "push", "timestamp": "t", "keep": "13h"}):
        assert configured(source, lateness="6h", delay="1h").monitors["m"].window.lateness == SIX


def test_lateness_is_within_the_time_that_results_are_kept() -> None:
    with pytest.raises(ValidationError, match=r"m\.window\.lateness is 8d, and results are kept for 1w"):
        configured(FILES, {"results": "7d"}, lateness="8d")
