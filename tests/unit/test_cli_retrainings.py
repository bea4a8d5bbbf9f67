"""`drift-monitor retrainings`, `approve`, `reject` and `retrain`, on a state folder and through a daemon's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from drift_monitor.cli import main as command
from drift_monitor.config.file import load
from drift_monitor.core.retraining import Event, Retraining, State, Weights
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.service.metrics import Exposition
from drift_monitor.service.retrainer import Retrainer
from drift_monitor.service.retraining_messages import Sender
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import Store

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)
CONFIG = """\
state: state
receivers:
  people: {type: webhook, url: "http://127.0.0.1:1/", secret_file: s}
  pipeline: {type: webhook, url: "http://127.0.0.1:1/", secret_file: s}
monitors:
  m:
    reference: r
    source: {path: p, timestamp: t}
    schedule: {every: 1h}
    columns: {label: y}
    notify: [people]
    retrain: {receiver: pipeline}
"""


def retraining(ident: str, state: State = State.PROPOSED, **values: object) -> Retraining:
    fields = {
        "id": ident * 8,
        "monitor": "m",
        "episode": ident,
        "opened": NOW,
        "window": WINDOW,
        "reason": "x moved\x1b[31m",
        "receiver": "pipeline",
        "mode": "propose",
        "state": state,
        "created": NOW,
        "changed": NOW,
        "weights": Weights(
            path="/w", rows=9000, sha256="s", effective_sample_size=4500, adopt=False, why="it gains nothing"
        ),
    }
    return Retraining.model_validate(fields | values)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    with closing(Store.open(folder / "state")) as store:
        yield store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A state folder with a judged window and a proposal."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    with opened(tmp_path) as store:
        store.enqueue("m", [WINDOW])
        result = CheckResult(monitor="m", window=WINDOW, rows=5000, verdict=Outcome.DRIFT, reason="r", promise="p")
        store.finish(store.due()[0].id, result, now=NOW)
        assert store.retrainings.put(retraining("ab12"))
    return tmp_path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(place: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = command([arguments[0], "--config", str(place / "c.yaml"), *arguments[1:]])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_list_tells_where_each_stands_and_hides_nothing_in_control_characters(call: Call) -> None:
    code, out, _ = call("retrainings")
    assert code == 0
    head, weights, *_ = out.splitlines()
    assert head.startswith("ab12ab12  proposed  m  2026-03-04 12:00Z  x moved")
    assert "\x1b" not in out
    assert weights == ("    weights: do not use them: it gains nothing (worth 4,500 of 9,000 rows), /w")
    (row,) = json.loads(call("retrainings", "m", "--json")[1])
    assert (row["id"], row["state"]) == ("ab12" * 8, "proposed")
    assert call("retrainings", "other")[0] == 64


def test_approving_puts_the_request_in_the_outbox(call: Call, place: Path) -> None:
    code, out, _ = call("approve", "ab12", "--by", "ada", "--note", "seen")
    assert (code, out) == (0, "retraining ab12ab12 of m is approved\n")
    with opened(place) as store:
        assert [(d.receiver, d.type) for d in store.outbox.deliveries()] == [
            ("pipeline", "drift_monitor.retraining.requested"),
            ("people", "drift_monitor.weights.ready"),
        ]
        found = store.retrainings.find("ab12")
        assert (found.decided_by, found.note) == ("ada", "seen")
    assert call("approve", "ab12")[1] == "retraining ab12ab12 of m is approved\n"
    code, _, err = call("reject", "ab12")
    assert (code, err) == (1, "drift-monitor: retraining ab12ab12 is approved: reject cannot follow that\n")


def test_rejecting(call: Call, place: Path) -> None:
    assert call("reject", "AB12", "--by", "ada")[1] == "retraining ab12ab12 of m is rejected\n"
    with opened(place) as store:
        assert [d.type for d in store.outbox.deliveries()] == ["drift_monitor.retraining.rejected"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("ffff", "there is no retraining 'ffff'"), ("ab", "more than one retraining begins with 'ab'")],
)
def test_a_name_that_is_not_one(call: Call, place: Path, name: str, sentence: str) -> None:
    with opened(place) as store:
        store.retrainings.put(retraining("ab34", State.FAILED))
    code, _, err = call("approve", name)
    assert code == 1
    assert sentence in err


def test_by_hand(call: Call, place: Path) -> None:
    code, _, err = call("retrain", "m", "--by", "ada")
    assert (code, "one at a time" in err) == (1, True)
    call("reject", "ab12")
    code, out, _ = call("retrain", "--by", "ada")
    assert code == 0
    assert "is being prepared" in out
    with opened(place) as store:
        assert store.retrainings.newest("m", 1)[0].decided_by == "ada"


def test_through_a_running_daemon(call: Call, place: Path) -> None:
    config = load(place / "c.yaml")
    with opened(place) as store:
        retrainer = Retrainer(store, lambda: config, lambda: Sender("/d", "http://d"), lambda: None)
        daemon = SimpleNamespace(
            config=config,
            store=store,
            move=retrainer.move,
            begin=retrainer.begin,
            exposition=Exposition(),
            reports=place,
        )
        server = Server("127.0.0.1", 0, Application(daemon))
        server.start()
        store.announce(f"http://127.0.0.1:{server.port}")
        try:
            assert call("retrainings", "m")[1].startswith("ab12ab12  proposed")
            assert call("approve", "ab12", "--by", "ada")[1] == "retraining ab12ab12 of m is approved\n"
            assert store.retrainings.find("ab12").state is State.APPROVED
            code, _, err = call("reject", "ab12")
            assert (code, err) == (
                1,
                "drift-monitor: retraining ab12ab12 is approved: reject cannot follow that\n",
            )
            said = "drift-monitor: retraining ab12ab12 is approved: reject cannot follow that\n"
            assert (code, err) == (1, said)
            retrainer.move("ab12", Event.FAILED, note="no disk")
            assert "is being prepared" in call("retrain", "m", "--by", "ada")[1]
            assert store.retrainings.newest("m", 1)[0].mode == "by hand"
        finally:
            server.stop()
