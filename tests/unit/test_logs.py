"""Log lines: one an event, whatever is in the names."""

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_monitor.service.logs import Formatter, fields, set_up


def record(message, *arguments, name="drift_monitor.service.app", exception=None, **values):
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, exception)
    made.created = 0.0
    vars(made).update(fields(**values))
    return made


def test_logfmt():
    line = Formatter("logfmt").format(record("window %s", "done", monitor="a", reason='say "no"\n', rows=3))
    assert line == (
        'time=1970-01-01T00:00:00.000+00:00 level=warning event="window done" monitor=a '
        'reason="say \\"no\\"\\n" rows=3'
    )


def test_json():
    line = json.loads(Formatter("json").format(record("done", monitor="a", rows=3, name="apscheduler")))
    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "warning",
        "event": "done",
        "monitor": "a",
        "rows": 3,
        "logger": "apscheduler",
    }


@pytest.mark.parametrize("style", ["logfmt", "json"])
@given(text=st.text(st.characters(codec=None)))
def test_no_text_breaks_its_line_or_its_encoding(style, text):
    line = Formatter(style).format(record("said", text=text))
    assert len(line.splitlines()) == 1
    assert line.encode()


def test_an_exception_stays_on_the_line():
    try:
        int("a")
    except ValueError:
        line = Formatter("logfmt").format(record("failed", exception=sys.exc_info()))
    assert len(line.splitlines()) == 1
    assert r"\nValueError: invalid literal" in line


def test_set_up_writes_to_standard_error_alone(capsys, monkeypatch):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up("logfmt", logging.INFO)
        logging.getLogger("drift_monitor.x").info("hello", extra=fields(a=1))
        logging.getLogger("waitress").info("nobody asked")
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("event=hello a=1\n")
    assert err.count("\n") == 1
