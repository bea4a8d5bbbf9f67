"""Runs are taken in turn, whatever a reload does to the configuration meanwhile."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from drift_monitor.config.models import Config
from drift_monitor.core.types import FailureReason, Window
from drift_monitor.service.messages import Links
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import Store
from drift_monitor.service.worker import cannot_judge

START = datetime(2026, 3, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


def config(*names, **fields):
    monitor = {"reference": "r", "source": {"path": "p", "timestamp": "t"}, "schedule": {"every": "1h"}, **fields}
    return Config.model_validate({"monitors": dict.fromkeys(names, monitor)}, strict=False)


@pytest.fixture
def store(tmp_path):
    with closing(Store.open(tmp_path / "state")) as opened:
        yield opened


def make(store, configuration):
    """Runs over a store; `configuration` gives the configuration of each moment."""
    failures = []
    hooks = Hooks(finished=lambda: None, report=lambda *_: None, stored=lambda: None, failed=failures.append)
    return Runs(store, configuration, lambda *_: Links("", None), "/drift-monitor/test", hooks), failures


def enter(store, name, n):
    store.enqueue(name, [Window(start=START + k * HOUR, end=START + (k + 1) * HOUR) for k in range(n)])


def test_monitors_take_turns_and_their_windows_stay_in_order(store):
    runs, _ = make(store, lambda: config("a", "b"))
    enter(store, "a", 3)
    enter(store, "b", 2)
    taken = []
    while work := runs.take():
        run = work[0]
        taken.append(f"{run.monitor}{run.window.start.hour}")
        runs.done(run, cannot_judge(run.monitor, run.window, FailureReason.SOURCE, "no rows"))
    assert taken == ["a0", "b0", "a1", "b1", "a2"]


def test_a_reload_that_removes_a_monitor_while_a_run_is_taken(store):
    enter(store, "a", 1)
    moments = iter([config("a")])
    runs, failures = make(store, lambda: next(moments, config("other")))
    run, request = runs.take()  # one look at the configuration, so it cannot change in between
    assert (run.monitor, request.name) == ("a", "a")
    assert runs.take() is None
    assert failures == []


def test_removed_and_disabled_monitors_wait(store):
    enter(store, "a", 1)
    now = config("b")
    runs, _ = make(store, lambda: now)
    assert runs.take() is None
    now = config("a", enabled=False)
    assert runs.take() is None
    assert runs.idle
    now = config("a")
    assert not runs.idle
    assert runs.take()[0].monitor == "a"


def test_a_poisonous_window_of_a_removed_monitor_waits_for_its_return(store):
    enter(store, "a", 1)
    for _ in range(3):
        store.start(store.due()[0].id, START)
        poisonous = store.recover(3)
    runs, _ = make(store, lambda: config("b"))
    runs.finish_poisonous(poisonous)
    assert [run.monitor for run in store.due()] == ["a"]
    assert store.results("a", 9) == []
