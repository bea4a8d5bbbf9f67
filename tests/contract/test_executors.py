"""The same rows give the same bits by threads, on Spark and on Dask; workers die; nothing outlives a check."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from drift_monitor.clusters import dask as dask_client
from drift_monitor.clusters import spark as spark_session
from drift_monitor.clusters.spark import map_in_arrow, session
from drift_monitor.config.clusters import DaskExecutor, SparkExecutor, SparkSource, ThreadsExecutor
from drift_monitor.config.daemon import Workers
from drift_monitor.config.models import Monitor
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import ExecutorError, SchemaError, SourceError
from drift_monitor.core.fold import category_counts
from drift_monitor.core.folding import Folding, lost_rows
from drift_monitor.core.packed import Layout
from drift_monitor.core.products import PairSpec
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Spec
from drift_monitor.core.types import CheckResult, FailureReason, Kind, Outcome, Window
from drift_monitor.executors import EXECUTORS
from drift_monitor.service.backtest import Replay
from drift_monitor.service.child import Child
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.sources.files import Files
from drift_monitor.sources.reading import Reading
from drift_monitor.sources.spark import open_spark

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets that py4j leaves to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Creating scratch directories"),  # takes long on a busy machine, says Dask
]

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIVE = Window(start=START + 14 * DAY, end=START + 15 * DAY)
PER_DAY = 1440
HOSTILE = "a.`b\"; drop table 'x' -- ü"
TWIN = "SPEED"  # Spark's own names do not differ by case
SETTINGS = {
    "spark.sql.caseSensitive": "true",
    "spark.sql.codegen.wholeStage": "false",  # a test is over before compiled code would be any quicker
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
DATES = LIVE.start - DAY, LIVE.end + DAY
MASTER = "local[2, 2]"  # a task may be lost once


def rows(days: float, seed: int, start: datetime) -> pa.Table:
    rng, n = np.random.default_rng(seed), round(days * PER_DAY)
    speed = rng.normal(100, 10, n)
    speed[5::90], speed[7::600] = np.nan, np.inf
    return pa.table(
        {
            "at": pa.array([start + i * DAY / PER_DAY for i in range(n)], pa.timestamp("us", "UTC")),
            "id": [f"{seed}-{i % (n - 3)}" for i in range(n)],
            "speed": pa.array(speed, mask=rng.random(n) < 0.05),
            TWIN: rng.gamma(2, 1, n).astype(np.float32),
            HOSTILE: rng.integers(0, 1000, n),
            "carrier": rng.choice(["UA", "AA", "", "b b", f"new{seed}"], n, p=[0.5, 0.3, 0.1, 0.09, 0.01]),
            "late": pa.array(rng.random(n) < 0.3, mask=rng.random(n) < 0.1),
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two weeks to learn from, and three live days in several row groups, some rows late, some without a time."""
    folder = tmp_path_factory.mktemp("data")
    pq.write_table(rows(14, 1, START), folder / "training.parquet")
    (folder / "live").mkdir()
    live = rows(3, 2, LIVE.start - DAY)
    order = np.random.default_rng(3).permutation(live.num_rows)
    order = np.concatenate((np.sort(order[100:]), order[:100]))
    live = live.take(pa.array(order))
    times = live["at"].to_pylist()
    times[::500] = [None] * len(times[::500])
    live = live.set_column(0, "at", pa.array(times, pa.timestamp("us", "UTC")))
    for i in range(3):
        part = live.slice(i * PER_DAY, PER_DAY)
        pq.write_table(part, folder / "live" / f"{i}.parquet", row_group_size=400)
    return folder


@pytest.fixture(scope="module", autouse=True)
def importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers find this module, whose folds die. They get the package itself from the executors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkExecutor]:
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    config = SparkExecutor(type="spark", master=MASTER, options=SETTINGS)
    with session(config):  # held open for all tests
        yield config


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def dask(cluster: Any) -> DaskExecutor:
    return DaskExecutor(type="dask", address=cluster.scheduler_address)


@pytest.fixture(params=["spark", "dask"])
def executor(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def monitor(data: Path, executor: Any = None, promise: float | None = None, **more: Any) -> Monitor:
    settings = {
        "reference": str(data / "training.parquet"),
        "source": {"path": str(data / "live" / "*"), "timestamp": "at"},
        "schedule": {"every": "1d"},
        "columns": {"id": "id"},
        "alarm": {"false_alerts_per_month": promise},
        "quality": {"false_alerts_per_month": promise},
    }
    if executor is not None:
        settings["executor"] = json.loads(executor.model_dump_json())
    return Monitor.model_validate_json(json.dumps(settings | more))


def check(data: Path, state: Path, executor: Any = None, **more: Any) -> CheckResult:
    request = CheckRequest(name="m", monitor=monitor(data, executor, **more), state=state, window=LIVE)
    return told(evaluate(request))


def told(result: CheckResult) -> CheckResult:
    """Without what is another time or another folder."""
    return result.model_copy(update={"seconds": {}, "reference": None})


@pytest.fixture(scope="module")
def embedded(data: Path) -> CheckResult:
    result = check(data, data / "embedded")
    assert result.failure is None
    assert result.rows > 1400
    assert result.invalid_rows > 0
    return result


@pytest.mark.parametrize("incremental", [True, False])
def test_a_check_has_the_same_result(
    data: Path, embedded: CheckResult, executor: Any, tmp_path: Path, incremental: bool
) -> None:
    window = {"incremental": incremental}
    wanted = embedded if incremental else embedded.model_copy(update={"read_from": None})
    assert check(data, tmp_path, executor, window=window) == wanted
    if incremental:  # all is kept, so no cluster is asked again, and no session begun
        nowhere = executor.model_copy(update={"address": "tcp://127.0.0.1:1", "master": "spark://127.0.0.1:1"})
        assert check(data, tmp_path, nowhere, window=window) == embedded


@pytest.fixture(scope="module")
def folding(data: Path) -> Folding:
    """Stretches of 7 hours and what was before, with products, on cells of the training rows."""
    training, specs = pq.read_table(data / "training.parquet"), list[Spec]()
    kinds: dict[str, Kind] = {
        "speed": "numeric", TWIN: "numeric", HOSTILE: "numeric", "carrier": "categorical", "late": "boolean",
    }  # fmt: skip
    for name, kind in kinds.items():
        column = training[name].combine_chunks()
        if kind == "numeric":
            values = column.cast(pa.float64()).drop_null().to_numpy()
            specs.append(NumericSpec.fit(name, values, edges=50))
        else:
            specs.append(CategoricalSpec.fit(name, category_counts(column), kind=kind))
    names = ("speed", TWIN, HOSTILE)
    pairs = PairSpec(names, np.array([100.0, 1.0, 500.0]), np.array([10.0, 1.0, 300.0]))
    start = int((LIVE.start - DAY).timestamp()) * 10**6
    starts = np.array([start + k * 7 * 3600 * 10**6 for k in range(11)], np.int64)
    return Folding(Layout(tuple(specs), pairs), (*kinds, "id", "at"), "at", "id", starts)


@pytest.fixture(scope="module")
def reading(data: Path, folding: Folding) -> Reading:
    return Reading(files(data), {}, folding)


def files(data: Path) -> FilesSource:
    return FilesSource(path=str(data / "live" / "*.parquet"), timestamp="at")


def splits(data: Path) -> Sequence[Any]:
    source = Files(files(data), {})
    return source.units(Window(start=START, end=START + 40 * DAY), [], timedelta(hours=1))


def test_parts_are_folded_to_the_same_bytes(data: Path, folding: Folding, reading: Reading, executor: Any) -> None:
    parts = [part for _ in range(3) for part in splits(data)]  # more than are in hand at once
    wanted = dict(EXECUTORS["threads"](ThreadsExecutor()).each(splits(data), reading, most=1))
    found = list(EXECUTORS[executor.type](executor).each(parts, reading, most=4))
    assert sorted(split.path for split, _ in found) == sorted(split.path for split in parts)
    for split, folded in found:
        assert folded.to_bytes() == wanted[split].to_bytes()
    assert folding.merged(wanted.values()) == folding.merged(reversed(list(wanted.values())))


def spark_source(data: Path, config: SparkExecutor, **more: Any) -> dict[str, Any]:
    given = json.loads(config.model_dump_json(include={"master", "options"}))
    return {"type": "spark", "timestamp": "at", "query": f"SELECT * FROM parquet.`{data}/live`", **given, **more}


def test_a_table_of_spark_is_folded_where_it_is(
    data: Path, embedded: CheckResult, folding: Folding, reading: Reading, spark: SparkExecutor, tmp_path: Path
) -> None:
    settings = spark_source(data, spark)
    source = open_spark(SparkSource.model_validate(settings), {})
    wanted = folding.merged(reading(part) for part in splits(data))
    whole = source.fold(None, folding)
    assert whole.parts == wanted.parts
    assert lost_rows(whole.lost) == lost_rows(wanted.lost) > 0  # where they are depends on how the rows are cut
    [row] = source.fold(LIVE, folding).parts[:1]
    assert row[0] >= folding.starts[0]
    result = check(data, tmp_path, source=settings)
    assert result.invalid_rows == 0  # SQL leaves out rows without a time; files tell of them
    assert result == embedded.model_copy(update={"invalid_rows": 0, "read_from": None})


def test_rows_of_a_table_of_spark_come_as_they_are(data: Path, spark: SparkExecutor) -> None:
    source = open_spark(SparkSource.model_validate(spark_source(data, spark)), {})
    names = [HOSTILE, TWIN, "speed", "id"]
    (split,) = source.splits(LIVE)
    found = pa.Table.from_batches(source.batches(split, names))
    plain = Files(files(data), {})
    wanted = [batch for part in plain.splits(LIVE) for batch in plain.batches(part, names)]
    ids = sorted(row["id"] for batch in wanted for row in batch.to_pylist() if row["at"] is not None)
    assert found.schema.names == [*names, "at"]
    assert sorted(found["id"].to_pylist()) == ids
    with pytest.raises(SchemaError, match="has no column 'nope'; it has 'at', 'id'"):
        next(source.batches(split, ["nope"]))
    bad = open_spark(SparkSource.model_validate(spark_source(data, spark, query=None, table="no_such")), {})
    with pytest.raises(ExecutorError, match=r"Spark at local\[2, 2\]: .*no_such.*cannot be found.*write `table`"):
        bad.columns()


class DiesOnce(Reading):
    """Kills its worker in the middle of the first part that it reads, unless a mark says that this was done."""

    def __init__(self, *arguments: Any, mark: Path, always: bool = False) -> None:
        super().__init__(*arguments)
        self.mark, self.always = mark, always

    def _reopened(self, split: Any) -> Files:
        source = super()._reopened(split)
        plain = source.batches

        def batches(split: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            for batch in plain(split, columns):
                yield batch
                if self.always or not self.mark.exists():
                    self.mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        source.batches = batches  # type: ignore[method-assign]
        return source


def test_what_a_dying_worker_had_in_hand_is_read_again(
    data: Path, folding: Folding, reading: Reading, executor: Any, tmp_path: Path
) -> None:
    fold = DiesOnce(files(data), {}, folding, mark=tmp_path / "died")
    found = dict(EXECUTORS[executor.type](executor).each(splits(data), fold, most=4))
    assert (tmp_path / "died").exists()
    assert found == {part: reading(part) for part in splits(data)}


def test_workers_that_always_die_end_the_whole(
    data: Path, folding: Folding, executor: Any, tmp_path: Path, cluster: Any
) -> None:
    cluster.scheduler.allowed_failures = 0
    fold = DiesOnce(files(data), {}, folding, mark=tmp_path / "died", always=True)
    where = executor.master if executor.type == "spark" else executor.address
    with pytest.raises(ExecutorError, match="died") as caught:
        list(EXECUTORS[executor.type](executor).each(splits(data)[:1], fold, most=4))
    assert where in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_what_a_worker_cannot_read_is_said_as_it_is_here(
    data: Path, reading: Reading, executor: Any, tmp_path: Path
) -> None:
    (part, *_) = splits(data)
    copy = tmp_path / "x.parquet"
    shutil.copyfile(part.path, copy)
    moved = type(part)(**{**part.__dict__, "path": str(copy)})
    with pytest.raises(SourceError, match=r"x\.parquet' changed while .*\(on the worker ") as caught:
        list(EXECUTORS[executor.type](executor).each([moved], reading, most=1))
    assert not isinstance(caught.value, ExecutorError)


def where_it_is(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"path": [import_module("drift_monitor.core.folding").__file__]})


def test_workers_run_the_package_that_was_sent(spark: SparkExecutor, dask: DaskExecutor) -> None:
    with session(spark) as opened:
        ((path,),) = map_in_arrow(opened.range(0, 1, 1, 1), where_it_is, "path string").collect()
    with dask_client.client(dask) as (client, _):
        paths = client.run(lambda: __import__("drift_monitor").__file__)
    for each in (path, *paths.values()):
        assert ".zip" + os.sep in each


def test_text_files_and_hive_folders_are_read_by_workers(dask: DaskExecutor, tmp_path: Path) -> None:
    for day in range(3):
        folder = tmp_path / "live" / f"region={'north' if day else 'south'}"
        folder.mkdir(parents=True, exist_ok=True)
        table = rows(1, 10 + day, LIVE.start + (day - 1) * DAY).drop_columns(["late"])
        pacsv.write_csv(table, folder / f"{day}.csv")
    training = rows(14, 1, START)
    training = training.append_column("region", pa.array(["north", "south"] * (training.num_rows // 2)))
    pq.write_table(training, tmp_path / "training.parquet")
    source = {"path": str(tmp_path / "live" / "**" / "*.csv"), "timestamp": "at", "hive": True}
    here = check(tmp_path, tmp_path / "a", source=source)
    assert here.rows == PER_DAY
    assert check(tmp_path, tmp_path / "b", dask, source=source) == here


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_scheduler_that_is_not_there_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_client, "_PATIENCE", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    result = check(data, tmp_path, DaskExecutor(type="dask", address=address))
    assert (result.verdict, result.failure) == (Outcome.CANNOT_JUDGE, FailureReason.SOURCE)
    assert result.reason.startswith(f"Dask at {address}: ")
    assert "see that the scheduler is up and can be reached from here" in result.reason


@pytest.mark.parametrize(
    ("executor", "module"),
    [
        (DaskExecutor(type="dask", address="tcp://127.0.0.1:1"), "distributed"),
        (SparkExecutor(type="spark", master="local[3]"), "pyspark.sql"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    data: Path, tmp_path: Path, executor: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_session._Open, "users", 0)
    monkeypatch.setitem(sys.modules, module, None)
    result = check(data, tmp_path, executor)
    assert (result.verdict, result.failure) == (Outcome.CANNOT_JUDGE, FailureReason.SOURCE)
    assert f"pip install 'drift-monitor[{executor.type}]'" in result.reason


def test_a_killed_check_takes_its_spark_along(data: Path, embedded: CheckResult, tmp_path: Path) -> None:
    """The daemon's child, with its limit of memory: Java and the workers fit, and none of them outlives it."""
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    executor = SparkExecutor(type="spark", master="local[1]", options=SETTINGS)
    workers = Workers(memory=512 * 2**20)
    child = Child([sys.executable, "-m", "drift_monitor.service.worker"], workers.memory, Event())
    try:
        request = CheckRequest(name="m", monitor=monitor(data, executor), state=tmp_path, window=LIVE)
        assert told(child.evaluate(request, workers)) == embedded
        family = psutil.Process(child.pid).children(recursive=True)
        assert "java" in {process.name() for process in family}
    finally:
        child.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_backtest_folds_on_the_cluster(data: Path, dask: DaskExecutor, tmp_path: Path) -> None:
    def judged(executor: Any) -> list[CheckResult]:
        replay = Replay("m", monitor(data, executor), tmp_path / "state", *DATES, rivals=False)
        return [told(result) for result, _ in replay.judged()]

    here = judged(None)
    assert [result.rows > 1400 for result in here] == [True, True, True]
    assert here[1].invalid_rows > 0
    assert judged(dask) == here
    nowhere = dask.model_copy(update={"address": "tcp://127.0.0.1:1"})
    with pytest.raises(ExecutorError, match=r"tcp://127\.0\.0\.1:1"):  # it is asked
        judged(nowhere)
