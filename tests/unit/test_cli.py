"""The command line as a shell sees it: exit codes, what goes to which stream, and every problem in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor import __version__
from drift_monitor.cli import command, main
from drift_monitor.cli.doctor import clock, kernel_clock
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import CheckResult, Message, Outcome, Window
from drift_monitor.service.deliveries import Deliveries
from drift_monitor.service.store import FILE, Store

START = datetime(2013, 1, 1, tzinfo=UTC)
MINIMAL = """\
monitors:
  flights:
    reference: training.parquet
    source: {path: "live/*.parquet", timestamp: at}
    schedule: {every: 1d}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "drift-monitor.yaml"
    path.write_text(MINIMAL)
    return path


def every_command() -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name, each in command.commands.items():
        found.append([name])
        if isinstance(each, click.Group):
            found += [[name, inner] for inner in each.commands]
    return found


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_has_examples(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"drift-monitor, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["chek"],
        ["check", "--colour"],
        ["check", "--window", "2013-04-01"],
        ["check", "--window", "2013-04-02/2013-04-01"],
        ["check", "--at", "yesterday"],
        ["check", "--at", "2013-04-01", "--window", "2013-04-01/2013-04-02"],
        ["run", "--replay-from", "2013-04-01"],
        ["run", "--replay-until", "2013-04-01"],
        ["run", "--replay-from", "2013-04-02", "--replay-until", "2013-04-01"],
        ["init"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_64_and_never_looks_like_drift(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Error:" in shown.err


def test_a_bad_configuration_is_78_with_every_problem(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(MINIMAL.replace("1d", "1") + "stte: x\n")
    for name in ("check", "check-config", "report", "run"):
        assert main([name, "--config", str(config)]) == 78
        shown = capsys.readouterr()
        assert shown.out == ""
        assert len(shown.err.splitlines()) == 2
        assert f"{config}:5:23: monitors.flights.schedule.every: " in shown.err
        assert f"{config}:6:1: stte: unknown key, did you mean `state`?" in shown.err


def test_a_missing_configuration_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(tmp_path / "none.yaml")]) == 78
    assert "drift-monitor init" in capsys.readouterr().err


def test_check_config_says_all_in_json_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--offline", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}
    config.write_text(MINIMAL + "stte: x\n")
    assert main(["check-config", "--json", "--config", str(config)]) == 78
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["line"], problem["column"], problem["path"]) == (6, 1, "stte")
    config.unlink()
    assert main(["check-config", "--json", "--config", str(config)]) == 78
    assert "no such file" in json.loads(capsys.readouterr().out)["problems"][0]["message"]


def test_check_config_explains(training: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--explain", "--config", str(config)]) == 0
    shown = capsys.readouterr()
    assert "false alerts of drift: no promise; the reference has 6 days that can be replayed, 36 more" in shown.out
    assert "no file matches yet" in shown.err
    assert main(["check-config", "--explain", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["monitors"]["flights"]["features"][0]["name"] == "flight_id"


def test_the_configuration_may_come_from_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFT_MONITOR_CONFIG", str(config))
    assert main(["check-config", "--offline"]) == 0
    assert str(config) in capsys.readouterr().out


def test_an_error_is_a_sentence_and_a_traceback_only_with_debug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "none.parquet")]) == 1
    shown = capsys.readouterr().err
    assert shown == f"drift-monitor: {tmp_path}/none.parquet: no such file\n"
    assert main(["--debug", "init", str(tmp_path / "none.parquet")]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (DriftMonitorError("the sky is falling"), 1, "drift-monitor: the sky is falling\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (ZeroDivisionError("by 0"), 1, "drift-monitor: internal error: ZeroDivisionError: by 0\n"),
        (PermissionError(13, "Permission denied", "x"), 1, "drift-monitor: [Errno 13] Permission denied: 'x'\n"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_a_command_raises_becomes_an_exit_code(
    error: BaseException,
    code: int,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(command.commands, "schema", click.Command("schema", callback=fail))
    assert main(["schema"]) == code
    assert capsys.readouterr().err.startswith(shown)


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "drift_monitor", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["monitors"]


# -- init ----------------------------------------------------------------------------------------------


def flights(rows: int = 1200, *, start: datetime = START, scale: float = 1.0) -> pa.Table:
    return pa.table(
        {
            "at": [start + timedelta(minutes=i) for i in range(rows)],
            "flight_id": [f"{start:%m%d}-{i}" for i in range(rows)],
            "carrier": [("UA", "AA", "DL")[i % 3] for i in range(rows)],
            "distance": [float(i * 37 % 1000) * scale for i in range(rows)],
            "p_late": [(i * 13 % 100) / 100 for i in range(rows)],
        }
    )


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "training.parquet"
    pq.write_table(flights(10_000), path)
    return path


def test_init_writes_what_check_config_accepts(
    training: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(training.parent)
    assert main(["init", "training.parquet"]) == 0
    assert "check-config --explain --config drift-monitor.yaml" in capsys.readouterr().out
    assert main(["check-config", "--offline"]) == 0
    assert "drift-monitor.yaml: fine (text; no warnings)" in capsys.readouterr().out


def test_init_replaces_a_file_only_when_told_to(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    assert main(["init", str(training), "-o", str(target)]) == 1
    assert "exists already: give --force" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["init", str(training), "-o", str(target), "--force"]) == 0
    assert "monitors:" in target.read_text()


def test_init_can_write_to_the_terminal(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(training), "-o", "-"]) == 0
    assert "timestamp: at" in capsys.readouterr().out


# -- outbox --------------------------------------------------------------------------------------------


@pytest.fixture
def letters(config: Path) -> Path:
    """A state folder with three messages, the first two of them dead."""
    window = Window(start=START, end=START + timedelta(days=1))
    result = CheckResult(monitor="flights", window=window, rows=1, verdict=Outcome.OK, reason="-", promise="-")
    store = Store.open(config.parent / "state")
    try:
        store.enqueue("flights", [window])
        (run,) = store.due()
        store.start(run.id, START)
        store.finish(run.id, result, now=START, messages=[("hook", message(n)) for n in range(3)])
        for delivery in store.outbox.deliveries()[:2]:
            store.outbox.bury(delivery.id, "answered 500 \x1b[31m", "status", 0.1)
    finally:
        store.close()
    return config


def message(n: int) -> Message:
    return Message(
        id=f"e{n}",
        type="drift_monitor.drift.opened",
        source="/s",
        subject="flights",
        time=START,
        group=f"g{n}",
        data={},
    )


def states(config: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["outbox", "list", "--json", "--config", str(config)]) == 0
    return [row["state"] for row in json.loads(capsys.readouterr().out)]


def test_outbox_lists_what_waits_and_what_nobody_took(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "list", "--config", str(letters)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("dead") == 2
    assert "answered 500" in shown
    assert "\x1b" not in shown
    assert states(letters, capsys) == ["dead", "dead", "pending"]


def test_outbox_says_when_it_may_not_list_all(
    letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["drift_monitor.cli.outbox"], "MOST_ROWS", 2)
    assert len(states(letters, capsys)) == 2
    assert main(["outbox", "list", "--config", str(letters)]) == 0
    assert "the 2 oldest are listed" in capsys.readouterr().err
    assert main(["outbox", "drop", "--all-dead", "--config", str(letters)]) == 0
    assert states(letters, capsys) == ["pending"]


def test_outbox_retry_and_drop_by_id(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "retry", "1", "--config", str(letters)]) == 0
    assert states(letters, capsys) == ["pending", "dead", "pending"]
    assert main(["outbox", "drop", "2", "3", "--config", str(letters)]) == 0
    assert states(letters, capsys) == ["pending"]


def test_outbox_all_dead(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "retry", "--all-dead", "--config", str(letters)]) == 0
    assert capsys.readouterr().out == "2 messages due again\n"
    assert states(letters, capsys) == ["pending"] * 3


def test_a_dead_message_that_dies_again_is_retried_once(
    letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that answers 410 at once must not keep the command going for ever."""
    monkeypatch.setattr(Deliveries, "replay", lambda _store, delivery, _now: retried.append(delivery) or True)
    retried: list[int] = []
    assert main(["outbox", "retry", "--all-dead", "--config", str(letters)]) == 0
    assert retried == [1, 2]
    assert capsys.readouterr().out == "2 messages due again\n"


def test_outbox_counts_a_message_once_however_often_it_is_named(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outbox", "drop", "1", "1", "--config", str(letters)]) == 0
    assert capsys.readouterr().out == "1 message dropped\n"


def test_outbox_names_what_is_not_there(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "drop", "1", "99", "--config", str(letters)]) == 1
    shown = capsys.readouterr()
    assert shown.out == "1 message dropped\n"
    assert shown.err == "no pending or dead message: 99\n"


def test_outbox_wants_ids_or_all_dead(letters: Path) -> None:
    assert main(["outbox", "drop", "--config", str(letters)]) == 64
    assert main(["outbox", "drop", "1", "--all-dead", "--config", str(letters)]) == 64


def test_an_empty_outbox_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "list", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "no messages\n"


def test_a_daemon_that_does_not_answer_is_named(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(letters.parent / "state", address="http://127.0.0.1:9")
    try:
        assert main(["outbox", "list", "--config", str(letters)]) == 1
    finally:
        store.close()
    assert "at http://127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.fixture
def daemon(training: Path, letters: Path) -> Iterator[Path]:
    """A real daemon that holds the state folder of `letters`, behind a token."""
    with closing(create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    (letters.parent / "token").write_text("0123456789abcdef0123456789abcdef\n")
    text = MINIMAL + f"server: {{listen: '127.0.0.1:{port}', token_file: token}}\n"
    letters.write_text(text.replace("{every: 1d}", "{cron: '0 0 29 2 *'}"))
    process = subprocess.Popen(
        [sys.executable, "-m", "drift_monitor", "run", "--config", str(letters)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "started" in line or "ready" in line:
                break
        yield letters
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_outbox_of_a_running_daemon_is_reached_through_it(
    daemon: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert states(daemon, capsys) == ["dead", "dead", "pending"]
    assert main(["outbox", "drop", "1", "99", "--config", str(daemon)]) == 1
    assert capsys.readouterr().err == "no pending or dead message: 99\n"
    assert main(["outbox", "retry", "--all-dead", "--config", str(daemon)]) == 0
    assert capsys.readouterr().out == "1 message due again\n"
    assert states(daemon, capsys) == ["pending", "pending"]
    assert findings(daemon, capsys)[1]["daemon"] == "ok"
    daemon.write_text(daemon.read_text().replace("token_file: token", "token_file: none"))
    assert main(["outbox", "list", "--config", str(daemon)]) == 1
    assert "the daemon's token cannot be read" in capsys.readouterr().err


# -- reference -----------------------------------------------------------------------------------------


def test_reference_build_list_show(training: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refs = str(training.parent / "refs")
    assert main(["reference", "build", str(training), refs, "--config", str(config), "--split", "January"]) == 0
    assert "January" in capsys.readouterr().out
    assert main(["reference", "list", refs, "--json"]) == 0
    (manifest,) = json.loads(capsys.readouterr().out)
    assert (manifest["rows"], manifest["timestamp"]) == (10_000, "at")
    assert main(["reference", "list", refs]) == 0
    assert manifest["version"] in capsys.readouterr().out
    assert main(["reference", "show", refs]) == 0
    shown = capsys.readouterr().out
    assert all(f"{feature['name']}  " in shown for feature in manifest["features"])
    assert not set("{}[]") & set(shown)
    assert main(["reference", "show", refs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == manifest
    assert main(["reference", "show", refs, "--version", "2000-01-01-000000000000"]) == 1
    assert "2000-01-01-000000000000" in capsys.readouterr().err


def test_a_damaged_reference_is_refused_by_name(
    training: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refs = training.parent / "refs"
    assert main(["reference", "build", str(training), str(refs), "--config", str(config)]) == 0
    damaged = next(refs.glob("*/profile*.parquet"), None) or next(refs.glob("*/*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert main(["reference", "show", str(refs)]) == 1
    assert damaged.name in capsys.readouterr().err


# -- doctor --------------------------------------------------------------------------------------------


def findings(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    capsys.readouterr()
    code = main(["doctor", "--json", "--config", str(config)])
    return code, {f["what"]: f["status"] for f in json.loads(capsys.readouterr().out)}


def test_doctor_finds_nothing_to_mend_before_the_first_run(
    training: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = findings(config, capsys)
    assert code == 0
    assert {"python", "packages", "configuration", "state folder", "disk", "database", "daemon", "memory"} <= set(
        found
    )
    assert found["database"] == found["state folder"] == "ok"
    assert found["daemon"] == "warn"
    assert not (config.parent / "state").exists()
    assert main(["doctor", "--config", str(config)]) == 0
    assert "start it with drift-monitor run" in capsys.readouterr().out


def test_doctor_names_a_bad_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("state: 5\n")
    code, found = findings(config, capsys)
    assert (code, found["configuration"]) == (1, "fail")
    assert "database" not in found


def test_doctor_sees_a_damaged_database_and_leaves_it(
    training: Path, letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert findings(letters, capsys) == (0, findings(letters, capsys)[1] | {"database": "ok"})
    path = letters.parent / "state" / FILE
    path.write_bytes(path.read_bytes()[:5000] + b"x" * 3000)
    before = path.read_bytes()
    code, found = findings(letters, capsys)
    assert (code, found["database"]) == (1, "fail")
    assert path.read_bytes() == before


def test_doctor_sees_a_daemon_that_does_not_answer(
    training: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(config.parent / "state", address="http://127.0.0.1:9")
    try:
        code, found = findings(config, capsys)
    finally:
        store.close()
    assert (code, found["daemon"], found["database"]) == (1, "fail", "ok")


def test_doctor_does_not_trust_every_clock() -> None:
    assert clock(datetime(1970, 1, 2, tzinfo=UTC), 0).status == "fail"
    assert clock(datetime(2026, 1, 1, tzinfo=UTC), 5).status == "warn"
    assert clock(datetime(2026, 1, 1, tzinfo=UTC), 0).status == "ok"
    assert -1 <= kernel_clock() <= 5


# -- check ---------------------------------------------------------------------------------------------

DAY = "2013-02-01/2013-02-02"


@pytest.fixture
def live(training: Path, config: Path) -> Path:
    """One quiet day, one in kilometres, one with half of the distances missing."""
    folder = config.parent / "live"
    folder.mkdir()
    pq.write_table(flights(start=datetime(2013, 2, 1, tzinfo=UTC)), folder / "1.parquet")
    pq.write_table(flights(start=datetime(2013, 2, 2, tzinfo=UTC), scale=0.5), folder / "2.parquet")
    broken = flights(start=datetime(2013, 2, 3, tzinfo=UTC))
    half = pa.array([None if i % 2 else 1.0 for i in range(broken.num_rows)], pa.float64())
    pq.write_table(broken.set_column(3, "distance", half), folder / "3.parquet")
    return config


def checked(config: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, CheckResult]:
    capsys.readouterr()
    code = main(["check", "--json", "--config", str(config), *arguments])
    return code, CheckResult.model_validate_json(capsys.readouterr().out)


def test_a_check_without_rows_says_how_to_look_elsewhere(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(live)]) == 3
    shown = capsys.readouterr()
    assert "no_data" in shown.out
    assert "--window START/END or --at TIME" in shown.err
    assert main(["check", "--config", str(live), "--window", DAY]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("window", "verdict", "code", "detailed"),
    [
        ("2013-02-01/2013-02-02", Outcome.OK, 0, 0),
        ("2013-02-02/2013-02-03", Outcome.DRIFT, 0, 2),
        ("2013-02-03/2013-02-04", Outcome.BROKEN, 0, 4),
        ("2013-02-05/2013-02-06", Outcome.NO_DATA, 3, 3),
        ("2013-02-01T00:00Z/2013-02-01T01:00Z", Outcome.CANNOT_JUDGE, 3, 3),
    ],
)
def test_a_verdict_is_an_exit_code(
    live: Path, capsys: pytest.CaptureFixture[str], window: str, verdict: Outcome, code: int, detailed: int
) -> None:
    found, result = checked(live, capsys, "--window", window)
    assert (result.verdict, found) == (verdict, code)
    assert checked(live, capsys, "--window", window, "--detailed-exitcode")[0] == detailed


def test_a_missing_reference_is_not_judged(live: Path, training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training.unlink()
    code, result = checked(live, capsys, "--window", DAY, "--detailed-exitcode")
    assert (code, result.verdict) == (3, Outcome.CANNOT_JUDGE)
    assert "training.parquet" in result.reason


def test_json_is_one_object_with_all_that_is_promised(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, result = checked(live, capsys, "--window", "2013-02-02/2013-02-03")
    assert result.monitor == "flights"
    assert result.rows == 1200
    assert result.score is not None
    assert result.threshold is not None
    assert result.score > result.threshold
    assert result.promise.startswith("no promise")
    assert result.reference is not None
    assert len(result.reference.sha256) == 64
    first = result.features[0]
    assert (first.name, first.kind, first.drifted) == ("distance", "numeric", True)
    assert first.statistics["ks"].statistic == pytest.approx(0.5, abs=0.01)
    assert first.statistics["ks"].p_value is not None


def test_at_takes_the_window_that_was_complete_then(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at, start in (("2013-02-02", 1), ("2013-02-02T23:59", 1), ("2013-02-03T00:00Z", 2)):
        _, result = checked(live, capsys, "--at", at)
        assert result.window.start == datetime(2013, 2, start, tzinfo=UTC)


def test_without_a_window_it_is_the_latest(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = checked(live, capsys)
    assert (code, result.verdict) == (3, Outcome.NO_DATA)
    assert timedelta(0) <= datetime.now(UTC) - result.window.end < timedelta(days=2)


def test_people_get_a_table_and_bars(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(live), "--window", "2013-02-02/2013-02-03"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("drift flights")
    assert "distance" in shown.out
    assert "█" in shown.out
    assert shown.err == ""


def test_a_monitor_is_named_only_where_there_is_a_choice(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(live, capsys, "flights", "--window", DAY)[0] == 0
    assert main(["check", "flihgts", "--config", str(live)]) == 64
    assert "did you mean `flights`?" in capsys.readouterr().err
    live.write_text(MINIMAL + MINIMAL.replace("monitors:\n  flights", "  trains"))
    assert main(["check", "--config", str(live)]) == 64
    assert "name one of the monitors: flights, trains" in capsys.readouterr().err


def test_a_source_without_times_is_one_window(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live.write_text(MINIMAL.replace(", timestamp: at", "") + "    columns: {ignore: [at]}\n")
    assert checked(live, capsys)[1].rows == 3600
    assert main(["check", "--config", str(live), "--window", DAY]) == 64


def test_a_terminal_without_bars_gets_the_numbers(live: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "drift_monitor",
            "check",
            "--config",
            str(live),
            "--window",
            "2013-02-02/2013-02-03",
        ],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.startswith(b"drift flights")
    assert done.stderr == b""


def test_nothing_but_the_result_reaches_stdout(live: Path) -> None:
    """In a process of its own, so that what libraries print counts too."""
    done = subprocess.run(
        [sys.executable, "-m", "drift_monitor", "check", "--json", "--config", str(live), "--window", DAY],
        capture_output=True,
        check=True,
    )
    assert CheckResult.model_validate_json(done.stdout).verdict is Outcome.OK
    assert done.stderr == b""


# -- report --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_report_writes_one_page_and_names_it(live: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = live.parent / "page.html"
    window = ["--window", "2013-02-02/2013-02-03"]
    assert main(["report", "--config", str(live), "-o", str(page), *window]) == 0
    assert capfd.readouterr().out == f"{page}\n"
    assert "distance" in page.read_text()


def test_a_report_that_cannot_be_made_says_why(
    live: Path, training: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training.unlink()
    assert main(["report", "--config", str(live), "--window", DAY]) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "the report of flights failed" in shown.err
    assert "Traceback" not in shown.err
