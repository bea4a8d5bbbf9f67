"""Worker children that hang, die, bloat, chatter and outlive nothing."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from drift_monitor.config.daemon import Workers
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import FailureReason, Outcome, Window
from drift_monitor.service.child import OUTPUT_LINES, Child
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.pool import WorkerPool
from drift_monitor.service.store import Run

STAND_IN = (sys.executable, str(Path(__file__).with_name("worker_stand_in.py")))
START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 60  # seconds until something that must happen is given up


class Bench:
    """A pool fed from a list, with its results in a queue."""

    def __init__(self, tmp_path, workers, command=STAND_IN):
        self.todo, self.results, self.tmp_path = [], queue.Queue(), tmp_path
        self.lock = threading.Lock()
        self.given_back = []
        self.pool = WorkerPool(workers, self.take, self.done, self.given_back.append, command=command)
        self.number = 0

    def ask(self, what, name="m"):
        """Have the stand-in do something: see worker_stand_in.py."""
        source = f'{{"path": "{what}", "timestamp": "t"}}'
        monitor = Monitor.model_validate_json(
            f'{{"reference": "r", "source": {source}, "schedule": {{"every": "1h"}}}}'
        )
        self.number += 1
        window = Window(start=START, end=START + timedelta(hours=self.number))
        run = Run(id=self.number, monitor=name, window=window, state="due", attempts=1)
        request = CheckRequest(name=name, monitor=monitor, state=self.tmp_path, window=window)
        with self.lock:
            self.todo.append((run, request))
        self.pool.kick()

    def take(self):
        with self.lock:
            return self.todo.pop(0) if self.todo else None

    def done(self, run, result):
        assert (run.monitor, run.window) == (result.monitor, result.window)
        self.results.put(result)

    def answer(self):
        return self.results.get(timeout=PATIENCE)


@pytest.fixture
def bench(tmp_path):
    benches = []

    def make(command=STAND_IN, **settings):
        settings = {"count": 1, "deadline": "30s", "memory": "400MB", "idle": "1m"} | settings
        bench = Bench(tmp_path, Workers.model_validate(settings, strict=False), command)
        benches.append(bench)
        bench.pool.start()
        return bench

    yield make
    for bench in benches:
        bench.pool.stop(timedelta(0))
        assert bench.pool.children == []


def until(probe):
    give_up = time.monotonic() + PATIENCE
    while not (found := probe()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)
    return found


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_child_stays_warm_from_run_to_run(bench):
    b = bench()
    b.ask("pid")
    b.ask("pid")
    first, second = b.answer(), b.answer()
    assert first.verdict == Outcome.OK
    assert first.reason == second.reason
    assert b.pool.children == [int(first.reason)]


def test_children_use_one_thread_for_linear_algebra(bench):
    b = bench()
    b.ask("threads")
    assert b.answer().reason == "1 1"


def test_a_hung_child_is_killed_at_the_deadline_and_costs_its_own_run(bench):
    b = bench(deadline="1s")
    b.ask("pid")
    before = int(b.answer().reason)
    b.ask("hang")
    b.ask("pid")
    hung, after = b.answer(), b.answer()
    assert (hung.verdict, hung.failure) == (Outcome.CANNOT_JUDGE, FailureReason.TIMEOUT)
    assert "workers.deadline (1s)" in hung.reason
    assert after.verdict == Outcome.OK
    assert int(after.reason) != before
    assert gone(before)


def test_what_a_hung_child_started_is_killed_too(bench, tmp_path):
    b = bench(deadline="1s")
    b.ask("spawn")
    assert b.answer().failure == FailureReason.TIMEOUT
    grandchild = int((tmp_path / "grandchild").read_text())
    until(lambda: gone(grandchild))


def test_a_memory_hog_is_killed_and_told_what_to_raise(bench):
    b = bench()
    b.ask("hog")
    b.ask("pid")
    hog, after = b.answer(), b.answer()
    assert (hog.verdict, hog.failure) == (Outcome.CANNOT_JUDGE, FailureReason.MEMORY)
    assert "workers.memory" in hog.reason
    assert after.verdict == Outcome.OK


def test_a_bomb_that_outruns_the_watch_is_refused_memory(bench):
    b = bench()
    b.ask("bomb")
    bomb = b.answer()
    assert (bomb.verdict, bomb.failure) == (Outcome.CANNOT_JUDGE, FailureReason.MEMORY)
    assert "workers.memory" in bomb.reason


def test_a_child_killed_from_outside_costs_its_own_run(bench):
    b = bench()
    b.ask("pid")
    pid = int(b.answer().reason)
    b.ask("hang")
    until(lambda: b.pool.running)
    os.kill(pid, signal.SIGKILL)
    b.ask("pid")
    killed, after = b.answer(), b.answer()
    assert (killed.verdict, killed.failure) == (Outcome.CANNOT_JUDGE, FailureReason.INTERNAL)
    assert "killed from outside" in killed.reason
    assert after.verdict == Outcome.OK


def test_a_child_that_died_while_idle_costs_nothing(bench):
    b = bench()
    b.ask("pid")
    pid = int(b.answer().reason)
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    b.ask("pid")
    assert int(b.answer().reason) != pid


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("segfault", "died of SIGSEGV"),
        ("exit", "ended with exit code 7"),
        ("raise", r"the check failed with ValueError('no \u2603 here')"),
        ("nonsense", "the worker's result cannot be read"),
    ],
)
def test_a_crash_is_a_run_that_cannot_be_judged(bench, what, said):
    b = bench()
    b.ask(what)
    b.ask("pid")
    crashed, after = b.answer(), b.answer()
    assert (crashed.verdict, crashed.failure) == (Outcome.CANNOT_JUDGE, FailureReason.INTERNAL)
    assert said in crashed.reason
    assert after.verdict == Outcome.OK


def test_a_death_is_seen_though_a_grandchild_holds_the_pipe(bench):
    b = bench()
    b.ask("orphan")
    assert "exit code 7" in b.answer().reason


def test_what_is_printed_is_logged_and_never_taken_for_a_result(bench, caplog):
    b = bench()
    b.ask("chatter")
    assert b.answer().verdict == Outcome.OK
    texts = [r.fields["text"] for r in caplog.records if r.getMessage() == "worker said"]
    assert texts[0] == '{"verdict": "drift"}'
    assert len(texts) == OUTPUT_LINES
    assert "worker says too much" in caplog.text


def test_a_request_larger_than_a_pipe_arrives(bench):
    b = bench()
    b.ask("pid" + " " * 300_000)
    assert b.answer().verdict == Outcome.OK


def test_a_child_without_work_ends(bench):
    b = bench(idle="1s")
    b.ask("pid")
    pid = int(b.answer().reason)
    until(lambda: b.pool.children == [] and gone(pid))
    b.ask("pid")
    assert b.answer().verdict == Outcome.OK


def test_a_child_is_replaced_after_many_runs(bench, monkeypatch):
    monkeypatch.setattr("drift_monitor.service.child.RECYCLE", 3)
    b = bench()
    for _ in range(7):
        b.ask("pid")
    pids = [b.answer().reason for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_command_that_cannot_start(bench):
    b = bench(command=("/nowhere/python",))
    b.ask("pid")
    result = b.answer()
    assert result.failure == FailureReason.INTERNAL
    assert "/nowhere/python" in result.reason


def test_a_mistake_of_ours_costs_its_own_run(bench, monkeypatch):
    b = bench()
    evaluate = Child.evaluate
    monkeypatch.setattr(Child, "evaluate", lambda *_: 1 / 0)
    b.ask("pid")
    failed = b.answer()
    assert (failed.verdict, failed.failure) == (Outcome.CANNOT_JUDGE, FailureReason.INTERNAL)
    assert "ZeroDivisionError" in failed.reason
    monkeypatch.setattr(Child, "evaluate", evaluate)
    b.ask("pid")
    assert b.answer().verdict == Outcome.OK


def test_runs_go_side_by_side(bench):
    b = bench(count=2)
    b.ask("meet a")
    b.ask("meet b")
    assert {b.answer().verdict, b.answer().verdict} == {Outcome.OK}


def test_stop_waits_for_the_run_in_progress(bench):
    b = bench()
    b.ask("slow")
    b.ask("pid")
    until(lambda: b.pool.running)
    assert b.pool.stop(timedelta(seconds=PATIENCE))
    assert b.answer().reason == "slow"
    assert b.results.empty()
    assert len(b.todo) == 1


def test_stop_kills_after_the_grace_and_the_run_has_no_result(bench):
    b = bench()
    b.ask("pid")
    pid = int(b.answer().reason)
    b.ask("hang")
    until(lambda: b.pool.running)
    assert not b.pool.stop(timedelta(seconds=0.2))
    assert b.results.empty()
    assert [run.id for run in b.given_back] == [2]
    assert gone(pid)


def test_settings_change_while_running(bench):
    b = bench()
    b.ask("pid")
    first = b.answer().reason
    b.pool.reconfigure(Workers.model_validate({"count": 2, "memory": "500MB", "deadline": "1s"}, strict=False))
    b.ask("meet a")
    b.ask("meet b")
    assert {b.answer().verdict, b.answer().verdict} == {Outcome.OK}
    b.ask("hang")
    assert b.answer().failure == FailureReason.TIMEOUT
    assert gone(int(first))


@pytest.mark.parametrize("what", ["pid", "hang"])
def test_children_die_with_a_parent_that_is_killed(tmp_path, what):
    script = Path(__file__).with_name("worker_parent.py")
    with subprocess.Popen(
        [sys.executable, str(script), what, str(tmp_path), *STAND_IN], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    until(lambda: gone(child))
