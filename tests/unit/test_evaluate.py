"""One check from files to verdict, on small data with known answers. Damage has its own file, test_bad_input."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.models import Monitor
from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Window
from drift_monitor.reference import list_references
from drift_monitor.service import evaluate as module
from drift_monitor.service.evaluate import CheckRequest, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def rows(days: int, seed: int, start: datetime = START, per_day: int = 1500, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * per_day
    return pa.table(
        {
            "time": pa.array([start + DAY * (i / per_day) for i in range(n)], pa.timestamp("us", "UTC")),
            "id": [f"{seed}-{i}" for i in range(n)],
            "speed": rng.normal(100 + shift, 10, n),
            "load": rng.gamma(2, 1, n),
            "carrier": rng.choice(["UA", "AA", "DL"], n, p=[0.5, 0.3, 0.2]),
            "late": rng.random(n) < 0.3,
            "score": rng.random(n),
        }
    )


LIVE = Window(start=START + 14 * DAY, end=START + 15 * DAY)


def write(folder: Path) -> Path:
    """Two weeks of training data, and a live day that is no different."""
    pq.write_table(rows(14, seed=1), folder / "training.parquet")
    (folder / "live").mkdir()
    pq.write_table(rows(2, seed=2, start=LIVE.start), folder / "live" / "a.parquet")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after one check, without what it kept of the log: the reference is built and calibrated."""
    folder = write(tmp_path_factory.mktemp("built"))
    check(folder)
    shutil.rmtree(folder / "state" / "buckets")
    return folder


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Nothing is built yet."""
    return write(tmp_path)


def monitor(data: Path, **settings: Any) -> Monitor:
    raw: dict[str, Any] = {
        "reference": str(data / "training.parquet"),
        "source": {"path": str(data / "live" / "*"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "columns": {"prediction": "score", "id": "id"},
    }
    for section, values in settings.items():
        raw[section] = raw.get(section, {}) | values if isinstance(values, dict) else values
    return Monitor.model_validate_json(json.dumps(raw))


def check(data: Path, window: Window | None = LIVE, name: str = "m", **settings: Any) -> CheckResult:
    return evaluate(
        CheckRequest(name=name, monitor=monitor(data, **settings), state=data / "state", window=window)
    )


def test_a_day_like_the_others_is_ok(data: Path) -> None:
    result = check(data)
    assert (result.verdict, result.failure, result.rows) == (Outcome.OK, None, 1500)
    assert {f.name: f.kind for f in result.features} == {
        "speed": "numeric",
        "load": "numeric",
        "carrier": "categorical",
        "late": "boolean",
        "score": "numeric",
    }
    assert result.reference is not None
    assert result.reference.rows == 14 * 1500
    assert result.newest_event == LIVE.end - DAY / 1500
    assert (result.invalid_rows, result.duplicate_rows) == (0, 0)
    assert result.seconds.keys() == {"reference", "source", "judge"}
    assert result.versions.keys() == {"drift-monitor", "python", "numpy", "pyarrow", "scipy"}
    assert CheckResult.model_validate_json(result.model_dump_json()) == result


def test_a_shifted_day_has_drifted_and_names_the_feature(data: Path) -> None:
    pq.write_table(rows(1, seed=2, start=LIVE.start, shift=8), data / "live" / "a.parquet")
    result = check(data)
    assert result.verdict is Outcome.DRIFT
    assert [f.name for f in result.drifted] == ["speed"]


def test_the_same_check_twice_is_the_same_result(data: Path) -> None:
    one, two = (check(data).model_copy(update={"seconds": {}}) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("dense", [1, 12, 10**6])
def test_splits_workers_and_buckets_change_nothing(
    data: Path, workers: int, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = check(data)
    whole = pq.read_table(data / "live" / "a.parquet")
    (data / "live" / "a.parquet").unlink()
    order = np.random.default_rng(0).permutation(whole.num_rows)
    for i, part in enumerate(np.array_split(order, 7)):
        pq.write_table(whole.take(pa.array(part)), data / "live" / f"{i}.parquet", row_group_size=110)
    monkeypatch.setattr(module, "_DENSE", dense)
    found = check(data, executor={"workers": workers})
    kept = {"rows", "score", "newest_event", "duplicate_rows", "features"}
    if dense < 10**6:  # fewer windows of the reference tell what is usual
        kept -= {"features"}
    assert found.model_dump(include=kept) == expected.model_dump(include=kept)


def test_progress_counts_splits(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    request = CheckRequest(name="m", monitor=monitor(data), state=data / "state", window=LIVE)
    evaluate(request, progress=lambda done, in_all: seen.append((done, in_all)))
    assert seen == [(1, 1)]


def test_a_window_without_rows_is_no_data(data: Path) -> None:
    result = check(data, Window(start=START + 30 * DAY, end=START + 31 * DAY))
    assert (result.verdict, result.rows, result.failure) == (Outcome.NO_DATA, 0, None)


def test_too_few_rows_cannot_be_judged(data: Path) -> None:
    result = check(data, Window(start=LIVE.start, end=LIVE.start + timedelta(hours=1)))
    assert (result.verdict, result.rows) == (Outcome.CANNOT_JUDGE, 63)
    assert "63" in result.reason


def test_the_whole_source_as_a_window(data: Path) -> None:
    result = check(data, window=None)
    assert result.rows == 3000
    assert result.window.start == LIVE.start
    assert result.window.end == LIVE.start + 2 * DAY - DAY / 1500 + timedelta(microseconds=1)


def test_a_source_without_timestamps(data: Path) -> None:
    for name in ("training.parquet", "live/a.parquet"):
        pq.write_table(pq.read_table(data / name).drop_columns(["time"]), data / name)
    before = datetime.now(UTC)
    result = check(data, window=None, source={"timestamp": None})
    assert (result.verdict, result.rows, result.newest_event) == (Outcome.OK, 3000, None)
    assert before <= result.window.start == result.window.end <= datetime.now(UTC)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_text_logs_are_judged_like_parquet(data: Path, form: str) -> None:
    expected = check(data)
    table = pq.read_table(data / "live" / "a.parquet")
    table = table.set_column(0, "time", pa.array([t.isoformat() for t in table["time"].to_pylist()]))
    (data / "live" / "a.parquet").unlink()
    if form == "csv":
        pacsv.write_csv(table, data / "live" / "a.csv")
    else:
        (data / "live" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    kept = {"rows", "verdict", "score", "features", "quality", "newest_event", "duplicate_rows"}
    assert check(data).model_dump(include=kept) == expected.model_dump(include=kept)


def test_duplicates_are_counted_by_id(data: Path) -> None:
    table = pq.read_table(data / "live" / "a.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 48)]), data / "live" / "a.parquet")
    result = check(data)
    assert (result.verdict, result.duplicate_rows) == (Outcome.BROKEN, 48)


def test_only_some_features(data: Path) -> None:
    assert {f.name for f in check(data, columns={"ignore": ["speed", "late"]}).features} == {
        "load",
        "carrier",
        "score",
    }
    assert {f.name for f in check(data, name="other", columns={"features": ["load"]}).features} == {
        "load",
        "score",
    }


def test_evidentlys_own_tests_on_request(data: Path) -> None:
    pq.write_table(rows(1, seed=2, start=LIVE.start, shift=8), data / "live" / "a.parquet")
    result = check(data, alarm={"report": ["evidently:ks"]})
    statistics = {f.name: f.statistics for f in result.features}
    ours = statistics["speed"]["ks"]
    theirs = statistics["speed"]["evidently:ks"]
    assert theirs.p_value is not None
    assert theirs.p_value < 1e-6
    assert ours.statistic > 0.2


# -- the reference ---------------------------------------------------------------------------------------


def test_a_training_file_is_built_once_and_again_when_it_changes(fresh: Path) -> None:
    folder = fresh / "state" / "references" / "m"
    first = check(fresh).reference
    assert check(fresh).reference == first
    os.utime(fresh / "training.parquet")  # touched: the content is the same
    assert check(fresh).reference == first
    assert len(list_references(folder)) == 1
    pq.write_table(rows(14, seed=9), fresh / "training.parquet")
    second = check(fresh).reference
    assert second != first
    assert check(fresh, columns={"ignore": ["load"]}).reference not in (first, second)
    assert len(list_references(folder)) == 3


def test_a_damaged_version_of_ours_is_built_again(fresh: Path) -> None:
    first = check(fresh).reference
    assert first is not None
    folder = fresh / "state" / "references" / "m" / first.version
    for name in ("manifest.json", "profile.parquet"):
        (folder / name).write_bytes(b"{}")
        again = check(fresh)
        assert (again.verdict, again.reference and again.reference.sha256) == (Outcome.OK, first.sha256)
    (folder.parent / "training.json").write_bytes(b"\0")
    again = check(fresh)
    assert again.reference is not None
    assert again.reference.sha256 == first.sha256


def test_a_reference_folder_is_opened_where_it_lies(data: Path) -> None:
    built = check(data).reference
    result = check(data, reference=str(data / "state" / "references" / "m"), name="other")
    assert result.reference == built
    assert not (data / "state" / "references" / "other").exists()


def run(data: Path, results: Any) -> None:
    results.put(check(data).reference)


def test_two_processes_build_one_version(fresh: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=run, args=(fresh, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] is not None
    assert len(list_references(fresh / "state" / "references" / "m")) == 1


@pytest.mark.parametrize(
    ("settings", "failure", "message"),
    [
        ({"reference": "gone.parquet"}, "reference", r"reference '.*gone\.parquet' cannot be read: No such file"),
        ({"reference": "live"}, "reference", r"live is no reference folder: it has no file CURRENT"),
        ({"columns": {"prediction": "skore"}}, "reference", "no column 'skore'; did you mean 'score'"),
        (
            {"columns": {"id": "trip"}},
            "schema",
            r"the live data has no column 'trip' \(columns\.id\); it has 'time'",
        ),
        ({"source": {"timestamp": "when"}}, "reference", "timestamp: the training data has no column 'when'"),
        ({"alarm": {"features": {"sped": {"ks": 0.1}}}}, "schema", "sped"),
    ],
)
def test_settings_that_do_not_fit_end_in_a_sentence(
    data: Path, settings: dict[str, Any], failure: str, message: str
) -> None:
    if "reference" in settings:
        settings = settings | {"reference": str(data / settings["reference"])}
    result = check(data, **settings)
    assert (result.verdict, result.failure) == (Outcome.CANNOT_JUDGE, failure)
    assert re.search(message, result.reason), result.reason
    assert result.window == LIVE


def test_a_reference_of_other_kinds_is_refused(data: Path) -> None:
    check(data)
    folder = str(data / "state" / "references" / "m")
    result = check(data, reference=folder, columns={"kinds": {"carrier": "numeric"}})
    assert result.failure is FailureReason.REFERENCE
    assert "columns.kinds says that 'carrier' is numeric, but reference 2" in result.reason
    result = check(data, reference=folder, columns={"features": ["nothing"], "prediction": None})
    assert "has none of the monitor's features" in result.reason


def test_the_unexpected_costs_one_run_and_is_logged(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(module.Run, "_baseline", fail)
    with caplog.at_level(logging.ERROR):
        result = check(data)
    assert (result.verdict, result.failure, result.rows) == (Outcome.CANNOT_JUDGE, FailureReason.INTERNAL, 1500)
    assert result.reason == "the check failed with ZeroDivisionError: by zero"
    assert "Traceback" in caplog.text
    monkeypatch.setattr(module.Run, "_baseline", lambda *_: (_ for _ in ()).throw(MemoryError("1 GB")))
    assert check(data).failure is FailureReason.MEMORY


def test_asking_for_a_check_loads_nothing_large() -> None:
    program = (
        "import sys, drift_monitor.service.evaluate\n"
        "large = {'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & large))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_check_without_the_classifier_needs_no_pandas_and_no_scikit_learn(data: Path) -> None:
    # text ids are hashed with pandas, and the classifier is scikit-learn's
    settings: dict[str, Any] = {"columns": {"id": None, "ignore": ["id"]}, "alarm": {"multivariate": ["pairs"]}}
    assert check(data, **settings).verdict is Outcome.OK
    request = CheckRequest(name="m", monitor=monitor(data, **settings), state=data / "state", window=LIVE)
    program = (
        "import sys\n"
        "from drift_monitor.service.evaluate import CheckRequest, evaluate\n"
        "result = evaluate(CheckRequest.model_validate_json(sys.argv[1]))\n"
        "print(result.verdict, sorted({'pandas', 'scipy.stats', 'sklearn', 'evidently'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, request.model_dump_json()]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "ok []"


def test_a_reference_that_is_shorter_than_a_window_promises_nothing_and_is_compared_with(fresh: Path) -> None:
    pq.write_table(rows(1, seed=1, per_day=24 * 3000).slice(0, 3000), fresh / "training.parquet")
    result = check(fresh)
    assert result.verdict is Outcome.OK
    assert result.failure is None
    assert result.promise.startswith("no promise: the reference has 0 days")
