"""`check-config` beyond the text: what the configuration means, and whether the world is as it says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_connection, create_server

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from drift_monitor.cli import layers
from drift_monitor.cli.explain import explain_monitor
from drift_monitor.cli.layers import examine_file, examine_layers, token_problem
from drift_monitor.config.file import load
from drift_monitor.reference import build_reference

START = datetime(2013, 1, 1, tzinfo=UTC)
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
MONITOR = """\
monitors:
  flights:
    reference: training.parquet
    source: {path: "live/*.parquet", timestamp: at}
    schedule: {every: 1d}
    columns: {prediction: p_late, id: flight_id}
"""


def table(rows: int = 5000) -> pa.Table:
    return pa.table(
        {
            "at": [START + timedelta(minutes=i) for i in range(rows)],
            "flight_id": [str(i) for i in range(rows)],
            "carrier": [("UA", "AA", "DL")[i % 3] for i in range(rows)],
            "distance": [float(i * 37 % 1000) for i in range(rows)],
            "p_late": [(i * 13 % 100) / 100 for i in range(rows)],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(table(), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    pq.write_table(table(2000), tmp_path / "live" / "a.parquet")
    return tmp_path


def problems(folder: Path, text: str = MONITOR, *, offline: bool = False) -> list[str]:
    found = examine_layers(text, folder / "c.yaml", offline=offline).problems
    shown = [("warning: " if p.warning else "") + str(p) for p in found]
    return [line.replace(f"{folder}/", "") for line in shown]


def test_a_world_as_described_has_no_problems(folder: Path) -> None:
    assert problems(folder) == []


def test_all_layers_speak_at_once(folder: Path) -> None:
    text = MONITOR.replace("p_late", "p_lat").replace("at}", "att}") + "    alarm: {report: [kss]}\n"
    at = "monitors.flights"
    assert [line.partition(" (got ")[0] for line in problems(folder, text + "server: {token_file: token}\n")] == [
        "c.yaml:4:49: monitors.flights.source.timestamp: unknown column in the reference, did you mean `at`?",
        f"c.yaml:6:27: {at}.columns.prediction: unknown column in the reference, did you mean `p_late`?",
        "c.yaml:7:22: monitors.flights.alarm.report[0]: there is no method 'kss'; did you mean 'ks'?",
        "c.yaml:8:22: server.token_file: token cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("executor", "extra", "library"),
    [
        ('{type: dask, address: "tcp://a:1"}', "dask", "distributed"),
        ('{type: spark, master: "local[1]"}', "spark", "pyspark"),
    ],
)
def test_an_executor_whose_library_is_missing_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, executor: str, extra: str, library: str
) -> None:
    text = MONITOR + f"    executor: {executor}\n"
    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    at = "warning: c.yaml:7:5: monitors.flights.executor"
    (missing,) = problems(folder, text)
    assert missing.startswith(f"{at}: {extra} needs {library}: pip install 'drift-monitor[{extra}]'")
    monkeypatch.setattr(layers, "find_spec", lambda name: object())
    assert problems(folder, text) == []


def test_an_id_that_the_endpoint_gives_is_not_missed_in_the_training_data(folder: Path) -> None:
    pq.write_table(table().drop_columns("flight_id"), folder / "training.parquet")
    sides = {"endpointInput": "UA,812", "endpointOutput": "0.4"}
    request = {
        "captureData": {side: {"data": data, "encoding": "CSV"} for side, data in sides.items()},
        "eventMetadata": {"eventId": "e-1", "inferenceTime": "2013-01-01T00:00:00Z"},
    }
    (folder / "live" / "a.jsonl").write_text(json.dumps(request) + "\n")
    captured = "*.jsonl, timestamp: at, format: sagemaker, inputs: [carrier, distance], outputs: [p_late]"
    text = MONITOR.replace('"live/*.parquet", timestamp: at', f"live/{captured}")
    assert problems(folder, text.replace("id: flight_id", "id: eventId")) == []
    missed = "warning: c.yaml:6:39: monitors.flights.columns.id: unknown column in the reference"
    assert problems(folder, text.replace("id: flight_id", "id: event"))[0].startswith(missed)
    assert problems(folder, MONITOR.replace("id: flight_id", "id: eventId"))[0].startswith(missed)


def test_offline_looks_at_nothing_but_the_text(tmp_path: Path) -> None:
    text = MONITOR + "    alarm: {report: [kss]}\n"
    assert problems(tmp_path, MONITOR, offline=True) == []
    assert len(problems(tmp_path, text, offline=True)) == 1


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        (
            "alarm: {methods: {numeric: [chi2x]}}",
            "monitors.flights.alarm.methods.numeric[0]: there is no method 'chi2x'; did you mean 'chi2'?",
        ),
        (
            "alarm: {methods: {categorical: [ks]}}",
            "monitors.flights.alarm.methods.categorical[0]: method 'ks' is not for categorical features",
        ),
        (
            'alarm: {methods: {numeric: ["evidently:ks"]}}',
            "numeric[0]: evidently:ks has no threshold of its own; set one in alarm.thresholds",
        ),
        (
            'alarm: {methods: {numeric: ["evidently:chisquare"]}, thresholds: {"evidently:chisquare": 1}}',
            "monitors.flights.alarm.methods.numeric[0]: is not for numeric features",
        ),
        (
            'alarm: {thresholds: {"evidently:nope": 1}}',
            'monitors.flights.alarm.thresholds."evidently:nope": unknown',
        ),
        ("alarm: {features: {distance: {kx: 1}}}", "alarm.features.distance.kx: there is no method 'kx'"),
        ("quality: {min_rows: 9, max_rows: 5}", "monitors.flights.quality: min_rows 9 is above max_rows 5"),
    ],
)
def test_meaning(tmp_path: Path, addition: str, expected: str) -> None:
    (problem,) = problems(tmp_path, MONITOR + f"    {addition}\n", offline=True)
    assert expected in problem


def test_a_method_of_evidently_with_a_threshold_is_right(folder: Path) -> None:
    alarm = '    alarm: {methods: {numeric: ["evidently:ks"]}, thresholds: {"evidently:ks": 0.99}}\n'
    assert problems(folder, MONITOR + alarm) == []


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("{prediction: p, label: p}", "monitors.flights.columns.label: column p is the prediction already"),
        ("{id: at}", "monitors.flights.source.timestamp: column at is the id already"),
        ("{prediction: p, ignore: [p]}", "monitors.flights.columns.prediction: the prediction is watched"),
        ("{features: [a], ignore: [a]}", "monitors.flights.columns.features[0]: a feature cannot be ignored too"),
        ("{features: [a], label: a}", "monitors.flights.columns.features[0]: column a is the label already"),
    ],
)
def test_a_column_has_one_meaning(tmp_path: Path, columns: str, expected: str) -> None:
    text = MONITOR.replace("{prediction: p_late, id: flight_id}", columns)
    (problem,) = problems(tmp_path, text, offline=True)
    assert expected in problem


def test_a_schedule_that_never_fires_is_wrong_and_one_with_gaps_is_odd(tmp_path: Path) -> None:
    (never,) = problems(tmp_path, MONITOR.replace("{every: 1d}", "{cron: '0 0 30 2 *'}"), offline=True)
    assert "cron '0 0 30 2 *' never fires" in never
    (gaps,) = problems(tmp_path, MONITOR.replace("1d", "2d"), offline=True)
    assert gaps.startswith("warning: ")
    assert "leaves rows between the windows unwatched" in gaps


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("alarm: {features: {distanse: {ks: 1}}}", ["distanse: the reference has no feature 'distanse'; did you"]),
        (
            "quality: {null_rate: {distanse: 1}}",
            ["distanse: the reference has no feature 'distanse'; did you mean"],
        ),
        ("quality: {unseen: {carrier: 0.5}}", []),
        (
            "quality: {unseen: {distance: 0.5}}",
            ["quality.unseen.distance: this check is not for a numeric feature"],
        ),
        ("alarm: {features: {carrier: {ks: 1}}}", ["method 'ks' is not for categorical features"]),
        ("alarm: {drifted_features: 9}", ["drifted_features: 9 cannot drift, there are 3 features (got 9)"]),
    ],
)
def test_columns_are_looked_up_in_the_reference(folder: Path, addition: str, expected: list[str]) -> None:
    found = problems(folder, MONITOR + f"    {addition}\n")
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_a_kind_that_a_column_cannot_have_is_wrong(folder: Path) -> None:
    (problem,) = problems(folder, MONITOR.replace("{pred", "{kinds: {carrier: numeric}, pred"))
    assert (
        "columns.kinds.carrier: the column is string, which cannot be read as numeric (got 'numeric')" in problem
    )


def test_a_timestamp_that_only_the_live_files_lack_is_wrong(folder: Path) -> None:
    pq.write_table(table(10).rename_columns(["att", *table(1).column_names[1:]]), folder / "live" / "a.parquet")
    (problem,) = problems(folder)
    assert "source.timestamp: unknown column in the source, did you mean `att`?" in problem


def test_a_column_that_changed_its_type_is_warned_of(folder: Path) -> None:
    live = table(10)
    text = live["distance"].cast(pa.string())
    pq.write_table(live.set_column(3, "distance", text), folder / "live" / "a.parquet")
    (warning,) = problems(folder)
    assert warning.startswith("warning: ")
    assert "column distance is string, which cannot be read as the numeric feature of the reference" in warning


def test_a_label_that_arrives_later_and_an_ignored_column_are_only_warned_of(folder: Path) -> None:
    found = problems(folder, MONITOR.replace("{pred", "{label: is_late, ignore: [tail], pred"))
    assert len(found) == 2
    assert all(line.startswith("warning: ") for line in found)


def test_columns_of_a_built_reference_are_known_too(folder: Path) -> None:
    config = folder / "c.yaml"
    config.write_text(MONITOR)
    monitor = load(config).monitors["flights"]
    build_reference(
        folder / "training.parquet",
        folder / "refs",
        columns=monitor.columns,
        timestamp="at",
        bucket=timedelta(hours=1),
        created=START,
    )
    text = MONITOR.replace("training.parquet", "refs") + "    alarm: {false_alerts_per_month: null}\n"
    assert problems(folder, text) == []
    (problem,) = problems(folder, text.replace("null", "null, features: {distanse: {ks: 1}}"))
    assert "did you mean 'distance'?" in problem
    for file in (folder / "refs").rglob("*.parquet"):
        file.write_bytes(b"damaged")
    (damaged,) = problems(folder, text)
    assert damaged.startswith("c.yaml:3:16: monitors.flights.reference: ")


@pytest.mark.parametrize(
    ("days", "alarm", "warning"),
    [
        (60, "false_alerts_per_month: 2", None),
        (60, "false_alerts_per_month: null", None),
        (
            20,
            "false_alerts_per_month: 1",
            ".false_alerts_per_month: extrapolated to 1 false alert a month: 20 days of reference",
        ),
        (
            3,
            "alpha: 0.01",
            ".false_alerts_per_month: no promise: the reference has 3 days that can be replayed, 39 more",
        ),
        (
            60,
            "thresholds: {psi: 0.2}",
            ": there is no promise about false alerts: fixed thresholds are set; remove alarm.thresholds",
        ),
    ],
    ids=["kept", "not wanted", "extrapolated", "none", "ruled out"],
)
def test_a_promise_that_cannot_be_kept_is_a_warning(
    folder: Path, days: int, alarm: str, warning: str | None
) -> None:
    some = table(days * 48)
    at = pa.array([START + timedelta(minutes=30 * i) for i in range(len(some))])
    pq.write_table(some.set_column(0, "at", at), folder / "training.parquet")
    config = folder / "c.yaml"
    config.write_text(MONITOR)
    build_reference(
        folder / "training.parquet",
        folder / "refs",
        columns=load(config).monitors["flights"].columns,
        timestamp="at",
        bucket=timedelta(hours=1),
        created=START,
    )
    text = MONITOR.replace("training.parquet", "refs") + f"    alarm: {{min_rows: 20, {alarm}}}\n"
    found = problems(folder, text)
    assert len(found) == (0 if warning is None else 1)
    for line in found:
        assert line.startswith("warning: c.yaml:7:")
        assert f" monitors.flights.alarm{warning}" in line


def test_a_missing_or_damaged_reference_is_wrong(folder: Path) -> None:
    (folder / "training.parquet").write_bytes(b"PAR1")
    (damaged,) = problems(folder)
    assert damaged.startswith("c.yaml:3:16: monitors.flights.reference: ")
    (folder / "training.parquet").unlink()
    (missing,) = problems(folder)
    assert missing.endswith("reference: training.parquet: no such file or folder (got 'training.parquet')")


def test_live_files_may_come_later(folder: Path) -> None:
    (folder / "live" / "a.parquet").unlink()
    (warning,) = problems(folder)
    assert warning.startswith("warning: c.yaml:4:20: monitors.flights.source.path: no file matches yet")


def test_columns_that_the_live_files_lack_are_named(folder: Path) -> None:
    pq.write_table(table(10).drop_columns(["distance", "flight_id"]), folder / "live" / "a.parquet")
    found = problems(folder)
    assert "the source lacks columns that the reference has: distance" in found[0]
    assert "monitors.flights.columns.id: unknown column in the source" in found[1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0123456789abcdef\n", None),
        (b"short\n", "a token of 5 characters"),
        (b"two words of enough length\n", "more than one word"),
        ("0123456789abcdefé".encode(), "not ASCII"),
    ],
)
def test_a_token_file_is_looked_into(tmp_path: Path, content: bytes, expected: str | None) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    found = token_problem(path)
    assert found is None if expected is None else expected in (found or "")
    assert content.decode().strip() not in (found or "")


def test_a_state_folder_that_is_a_file_is_wrong(folder: Path) -> None:
    (folder / "state").write_text("")
    assert problems(folder, "state: state\n" + MONITOR) == [
        "c.yaml:1:8: state: state is not a folder (got 'state')"
    ]


@contextmanager
def listening() -> Iterator[int]:
    with closing(create_server(("127.0.0.1", 0))) as server:
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                connection, _ = server.accept()
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            with closing(create_connection(server.getsockname())):
                thread.join()


def test_receivers_are_reached_without_being_told_anything(folder: Path) -> None:
    (folder / "secret").write_text(SECRET)
    with listening() as port:
        receivers = "receivers: {{hook: {{type: webhook, url: 'http://127.0.0.1:{}', secret_file: secret}}}}\n"
        assert problems(folder, receivers.format(port) + MONITOR) == []
    (down,) = problems(folder, receivers.format(port) + MONITOR)
    assert down.startswith("c.yaml:1:13: receivers.hook: ")
    os.remove(folder / "secret")
    (problem,) = problems(folder, receivers.format(port) + MONITOR)
    assert "secret" in problem


def test_explain_tells_what_follows_from_a_training_file(folder: Path) -> None:
    config = folder / "c.yaml"
    config.write_text(MONITOR + "    alarm: {thresholds: {psi: 0.2}}\n")
    before = sorted(folder.rglob("*"))
    told = explain_monitor(
        "flights", load(config).monitors["flights"], datetime(2013, 3, 1, 12, tzinfo=UTC), folder / "state"
    )
    assert sorted(folder.rglob("*")) == before
    watched = {w.name: w for w in told.features}
    assert {n: (w.kind, w.role) for n, w in watched.items()} == {
        "carrier": ("categorical", "feature"),
        "distance": ("numeric", "feature"),
        "p_late": ("numeric", "prediction"),
    }
    assert watched["distance"].alarm["psi"] == 0.2
    assert watched["distance"].alarm["anderson_darling"] is None
    assert set(watched["carrier"].expectations) == {"null_rate", "unseen", "constant_gain"}
    assert told.not_watched == {"at": "the timestamp", "flight_id": "the id"}
    assert told.windows[0] == {
        "due": "2013-03-02T00:00Z",
        "start": "2013-03-01T00:00Z",
        "end": "2013-03-02T00:00Z",
    }
    assert len(told.windows) == 3
    assert told.promise.startswith("no promise")


def test_explain_shows_no_limit_that_nothing_can_exceed(folder: Path) -> None:
    days = table()
    one_a_day = pa.array([str(i // 1440) for i in range(len(days))])
    pq.write_table(days.append_column("day", one_a_day), folder / "training.parquet")
    config = folder / "c.yaml"
    config.write_text(MONITOR + "    quality: {constant: {carrier: 0.9}}\n")
    told = explain_monitor("flights", load(config).monitors["flights"], START, folder / "state")
    expected = {w.name: w.expectations for w in told.features}
    assert expected["day"]["constant_gain"] == 1.0
    assert expected["carrier"]["constant"] == 0.9
    console = Console(width=80)
    with console.capture() as drawn:
        console.print(told.drawn())
    rows = [line for line in drawn.get().splitlines() if line.startswith("day ")]
    assert len(rows) == 1
    assert "100.00%" not in drawn.get()
    assert max(map(len, drawn.get().splitlines())) <= 80


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a: \xff", "c.yaml:1:4: byte 0xff is not UTF-8"), (None, "c.yaml:1:1: no such file: `drift-monitor init")],
)
def test_a_file_that_cannot_be_read_is_placed_once(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    (problem,) = examine_file(path).problems
    assert str(problem).startswith(f"{tmp_path}/{expected}")
    assert str(problem).count("c.yaml") == 1
