"""What a configuration may say of executors, and what goes to workers and comes back; no cluster is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_monitor import __version__
from drift_monitor.clusters.package import zipped
from drift_monitor.clusters.work import Work, answer, heard
from drift_monitor.config.clusters import SparkSource, place_of
from drift_monitor.config.file import examine, parse
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DamagedError, ExecutorError, SchemaError, SourceError
from drift_monitor.core.folding import Folded, Folding
from drift_monitor.core.packed import Layout
from drift_monitor.core.profile import NumericSpec
from drift_monitor.executors.dask import functions

FILE = Path("/etc/drift/c.yaml")
HEAD = "monitors:\n  m:\n    reference: r\n    schedule: {every: 1h}\n"
PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def monitor(source: str, executor: str = "{}") -> Monitor:
    return parse(f"{HEAD}    source: {source}\n    executor: {executor}\n", FILE).monitors["m"]


FILES = "{path: live, timestamp: t}"


def test_threads_are_the_default() -> None:
    assert monitor(FILES).executor.type == "threads"
    assert monitor(FILES, "{workers: 4}").model_dump()["executor"] == {"type": "threads", "workers": 4}
    assert place_of(monitor(FILES).executor) is None


@pytest.mark.parametrize("word", ["dask", "spark", "threads", "[dask]"])
def test_a_word_is_no_executor_and_the_error_shows_one(word: str) -> None:
    _, _, found = examine(f"{HEAD}    source: {FILES}\n    executor: {word}\n", FILE)
    assert [(p.line, 'such as `{type: dask, address: "tcp://host:8786"}`' in str(p)) for p in found] == [(6, True)]
    example = re.findall(r"`(\{.*\})`", str(found[0]))[0]
    assert place_of(monitor(FILES, example).executor) == "Dask at tcp://host:8786"


@pytest.mark.parametrize(
    ("executor", "place"),
    [
        ("{type: spark, master: 'local[2]'}", "Spark at local[2]"),
        (
            "{type: spark, master: 'spark://a:7077,b:7077', python: /opt/bin/python3.11}",
            "Spark at spark://a:7077,b:7077",
        ),
        ("{type: spark, master: yarn, options: {spark.executor.memory: 4g}}", "Spark at yarn"),
        ("{type: spark, master: 'sc://connect:15002'}", "Spark at sc://connect:15002"),
        ("{type: dask, address: 'tls://scheduler:8786'}", "Dask at tls://scheduler:8786"),
    ],
)
def test_clusters_are_named(executor: str, place: str) -> None:
    assert place_of(monitor(FILES, executor).executor) == place


@pytest.mark.parametrize(
    ("source", "executor", "message"),
    [
        (FILES, "{type: dask}", r"c\.yaml:6:5: monitors\.m\.executor: give the `address` of your cluster"),
        (FILES, "{type: dask, address: scheduler}", "must match the pattern"),
        (FILES, "{type: ray}", r"executor\.type: must be one of threads, spark, dask \(got 'ray'\)"),
        (FILES, "{type: spark}", r"executor\.master: is required but missing"),
        (FILES, "{type: spark, master: localhost}", "must match the pattern"),
        (FILES, "{worker: 2}", r"executor\.worker: unknown key, did you mean `workers`"),
        (FILES, "{workers: 0}", r"executor\.workers: must be at least 1"),
        (
            FILES,
            "{type: spark, master: yarn, options: {spark.ssl.keyPassword: hunter2}}",
            "is a secret, which must not stand in the file",
        ),
        (
            "{type: spark, master: yarn, table: t}",
            "{type: spark, master: yarn}",
            "a table of Spark is folded by the Spark that `source` names: leave `executor` out",
        ),
        (
            "{type: delta, path: t}",
            "{type: dask, address: 'tcp://h:1'}",
            "a source of type delta is read by the process that checks: leave `executor` out",
        ),
        ("{type: spark, master: yarn}", "{}", "give exactly one of `table` and `query`"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_place(source: str, executor: str, message: str) -> None:
    text = f"{HEAD}    source: {source}\n    executor: {executor}\n"
    config, _, found = examine(text, FILE)
    assert config is None
    said = "\n".join(map(str, found))
    assert re.search(message, said), said
    assert "hunter2" not in said


def test_every_configuration_of_the_page_can_be_read() -> None:
    assert len(BLOCKS) >= 3
    found = [monitor for text in BLOCKS for monitor in parse(text, FILE).monitors.values()]
    assert {"spark", "dask"} <= {monitor.executor.type for monitor in found}
    assert any(isinstance(monitor.source, SparkSource) for monitor in found)


LOST = st.tuples(st.none() | st.integers(), st.none() | st.integers(), st.integers(0))


@given(st.lists(st.tuples(st.integers(), st.binary(max_size=20))), st.lists(LOST), st.booleans(), st.integers(0))
def test_folded_parts_come_back_whole_or_not_at_all(
    parts: list[tuple[int, bytes]], lost: list[tuple[int | None, int | None, int]], scattered: bool, cut: int
) -> None:
    whole = Folded(tuple(parts), tuple(lost), scattered)
    blob = whole.to_bytes()
    assert Folded.from_bytes(blob) == whole
    with pytest.raises(DamagedError):
        Folded.from_bytes(blob[: cut % len(blob)])
    with pytest.raises(DamagedError):
        Folded.from_bytes(blob + b"x")


def test_folded_parts_of_another_format_are_refused() -> None:
    blob = Folded(()).to_bytes().replace(b'"format": 1', b'"format": 2')
    with pytest.raises(DamagedError, match="it has format 2, and this version reads 1"):
        Folded.from_bytes(blob)


NUMBERS = Folding(Layout((NumericSpec.fit("x", np.arange(10.0)),)), ("at", "x"), "at", None)
HOUR = 3_600_000_000


def in_hours(*hours: int | None) -> pa.RecordBatch:
    """A row in each of these hours since 1970, or without a time."""
    times = pa.array([None if hour is None else hour * HOUR for hour in hours], pa.timestamp("us", "UTC"))
    return pa.record_batch({"at": times, "x": np.arange(len(hours)) % 10.0})


def test_folded_parts_are_merged_the_same_in_any_order_and_lose_no_row() -> None:
    folded = [NUMBERS([in_hours(*hours)]) for hours in ((5, None, 6), (1, 5), (None,), (None, 5, 6, None))]
    merged = NUMBERS.merged(folded)
    assert [start // HOUR for start, _ in merged.parts] == [1, 5, 6]
    assert [profile.rows for profile in NUMBERS.unpacked(merged).values()] == [1, 3, 2]
    assert merged.lost == ((None, None, 1), (5 * HOUR, 6 * HOUR, 3))
    for order in permutations(folded):
        assert NUMBERS.merged(order).to_bytes() == merged.to_bytes()


@pytest.mark.parametrize(("limit", "scattered"), [(2, True), (3, False), (None, False)])
def test_a_part_may_be_spread_over_so_many_buckets(limit: int | None, *, scattered: bool) -> None:
    folded = replace(NUMBERS, limit=limit)([in_hours(1, 2, 2), in_hours(2, 4)])
    assert folded.scattered is scattered
    assert [start // HOUR for start, _ in folded.parts] == ([] if scattered else [1, 2, 4])
    assert NUMBERS.merged([folded, NUMBERS([in_hours(1)])]).scattered is scattered


def failing(error: Exception) -> Folded:
    raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SourceError("a.parquet is not there"), SourceError),
        (SchemaError("no column"), SchemaError),
        (MemoryError("a.parquet is not there"), ExecutorError),
    ],
)
def test_errors_of_workers_are_told_in_words(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=re.escape(str(error))) as caught:
        heard(answer(partial(failing, error)))
    assert type(caught.value) is kind
    assert heard(answer(lambda: Folded(((1, b"x"),)))) == Folded(((1, b"x"),))


def test_another_version_does_no_work() -> None:
    work = Work.of([1])
    assert work.open() == [1]
    with pytest.raises(ExecutorError, match=r"was sent work of 0\.0\.9: restart the workers, or install 0\.0\.9"):
        replace(work, version="0.0.9").open()


def test_a_scheduler_of_dask_needs_no_drift_monitor() -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="it comes with Dask")
    sent = cloudpickle.dumps(functions())
    code = "import sys, cloudpickle; sys.modules['drift_monitor'] = None; cloudpickle.load(sys.stdin.buffer)"
    subprocess.run([sys.executable, "-c", code], input=sent, check=True)


def test_the_package_is_one_file_named_by_what_is_in_it() -> None:
    with zipped() as one, zipped() as two:
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()
        names = zipfile.ZipFile(one).namelist()
        found = "import drift_monitor; print(drift_monitor.__version__, drift_monitor.__file__)"
        code = f"import sys; sys.path.insert(0, {str(one)!r}); {found}"
        command = [sys.executable, "-I", "-S", "-c", code]  # nothing is installed there
        version, path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert version == __version__
    assert path.startswith(str(one))
    assert "drift_monitor/core/folding.py" in names
    assert not one.exists()
