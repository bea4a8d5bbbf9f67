"""The queue of reports: what fails is remembered for a while, what is old goes."""

import os
import time
from datetime import timedelta

from drift_monitor.actions.report import ReportRequest
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import SourceError
from drift_monitor.service import reporter
from drift_monitor.service.reporter import Reporter

MONITOR = Monitor.model_validate(
    {"reference": "r", "source": {"path": "p"}, "schedule": {"every": "1h"}}, strict=False
)


def test_old_reports_go_with_what_a_killed_child_left(tmp_path):
    names = ["1.html", "2.html", ".3.html.4711", ".4.html.4712", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("page")
    for name in ("1.html", ".3.html.4711", "notes.txt"):
        os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    Reporter(tmp_path).purge(timedelta(hours=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".4.html.4712", "2.html", "notes.txt"]


def test_a_folder_that_was_never_needed_has_nothing_to_purge(tmp_path):
    Reporter(tmp_path / "none").purge(timedelta(hours=1))
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_failures_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(reporter, "MOST_FAILED", 3)

    def fail(request, deadline):
        raise (SourceError if request.run % 2 else ZeroDivisionError)(f"no {request.run}")

    made = Reporter(tmp_path, fail)
    for run in range(6):
        made.ask(
            ReportRequest(name="m", monitor=MONITOR, state=tmp_path, window=None, output=made.path(run), run=run),
            timedelta(seconds=1),
        )
    made.start()
    give_up = time.monotonic() + 60
    while made.waiting:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert made.failed == {3: "no 3", 4: "ZeroDivisionError('no 4')", 5: "no 5"}
