"""Columns as users have them: structs by dotted paths, vectors, and every type of Arrow, from file to verdict."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.actions.training_rows import open_training
from drift_monitor.config.infer import infer
from drift_monitor.config.models import Columns, Monitor
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import BadReferenceError, SchemaError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import NumericProfile, NumericSpec
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.core.vectors import LONGEST, PARTS, vector_parts
from drift_monitor.reference import build_reference
from drift_monitor.reference.manifest import read_manifest
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.sources import parquet_files
from drift_monitor.sources.files import Files, open_files

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIVE = Window(start=START + 14 * DAY, end=START + 15 * DAY)


# -- names -------------------------------------------------------------------------------------------------


def struct(**fields: Any) -> pa.DataType:
    return pa.struct(fields)


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ({"a": pa.int8(), "a.b": pa.int8()}, {"a": pa.int8(), "a.b": pa.int8()}),
        ({"p": struct(x=pa.int8(), geo=struct(y=pa.string()))}, {"p.x": pa.int8(), "p.geo.y": pa.string()}),
        # a column's own name wins over a path, wherever it stands
        ({"p": struct(age=pa.int8()), "p.age": pa.string()}, {"p.age": pa.string()}),
        ({"p.y": pa.string(), "p": struct(y=pa.int8(), x=pa.int8())}, {"p.y": pa.string(), "p.x": pa.int8()}),
        ({"e": pa.list_(pa.int8()), "e.norm": pa.string()}, {"e.norm": pa.string()}),
        # dots in the names of fields are nothing but letters
        ({"p": pa.struct({"a.b": pa.int8(), "": pa.int8()})}, {"p.a.b": pa.int8(), "p.": pa.int8()}),
        ({"p": pa.struct([])}, {"p": pa.struct([])}),
        ({"t": pa.list_(pa.string())}, {"t": pa.list_(pa.string())}),
        ({"m": pa.list_(pa.list_(pa.int8()))}, {"m": pa.list_(pa.list_(pa.int8()))}),
        ({"p": struct(took=pa.duration("ns"))}, {"p.took": pa.float64()}),
        ({"p": struct(j=pa.json_())}, {"p.j": pa.string()}),
    ],
)  # fmt: skip
def test_columns_are_named(stored: dict[str, pa.DataType], named: dict[str, pa.DataType]) -> None:
    found = {field.name: field.type for field in Flat(pa.schema(stored)).schema}
    assert {name: found.get(name) for name in named} == named
    assert set(found) - set(named) <= {f"e.{part}" for part in PARTS}


def test_the_name_of_a_vector_is_no_column_so_a_field_may_have_it() -> None:
    stored = pa.schema({"p.x": pa.list_(pa.int8()), "p": struct(x=pa.int8())})
    assert Flat(stored).schema.names == [*(f"p.x.{part}" for part in PARTS), "p.x"]


def test_two_fields_of_one_name_are_both_there() -> None:
    stored = pa.schema({"p": pa.struct({"a.b": pa.int8(), "a": struct(b=pa.int8())})})
    assert Flat(stored).schema.names == ["p.a.b", "p.a.b"]


def test_a_null_struct_has_null_fields_and_slices_keep_their_rows() -> None:
    rows = [{"age": 1, "geo": {"city": "a"}}, None, {"age": 3, "geo": None}, {"age": None, "geo": {"city": "d"}}]
    batch = pa.RecordBatch.from_pydict({"p": pa.array(rows), "p.geo": [1, 2, 3, 4]})
    flat = Flat(batch.schema)
    names = ["p.geo.city", "p.geo", "p.age"]
    assert flat.pick(batch, names).to_pydict() == {
        "p.geo.city": ["a", None, None, "d"],
        "p.geo": [1, 2, 3, 4],
        "p.age": [1, None, 3, None],
    }
    assert flat.pick(batch.slice(2), names).to_pydict()["p.geo.city"] == [None, "d"]
    assert flat.stored(["p.geo.city"]).field("p").type == pa.struct({"geo": pa.struct({"city": pa.string()})})


@pytest.mark.parametrize(
    ("array", "seconds"),
    [
        (pa.array([0, 86_399, None], pa.time32("s")), [0.0, 86_399.0, None]),
        (pa.array([1500], pa.time32("ms")), [1.5]),
        (pa.array([1], pa.time64("us")), [1e-6]),
        (pa.array([-1_500_000_000, None], pa.duration("ns")), [-1.5, None]),
        (pa.array([2, 2, None], pa.duration("s")).dictionary_encode(), [2.0, 2.0, None]),
    ],
)
def test_durations_and_times_of_day_are_seconds(array: pa.Array, seconds: list[float | None]) -> None:
    batch = pa.RecordBatch.from_arrays([array], ["x"])
    assert Flat(batch.schema).pick(batch, ["x"]).column(0).to_pylist() == seconds


# -- vectors -----------------------------------------------------------------------------------------------


def direction(k: int, dimensions: int) -> list[int]:
    """The numbers of a direction, by the generator's definition and Python's whole numbers."""

    def word(number: int) -> int:
        z = (number + 1) * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    words = [[word(3 * (65_536 * k + j) + i) for i in range(3)] for j in range(dimensions)]
    return [sum(w >> s & 0xFFFF for w in three for s in (0, 16, 32, 48)) - 6 * 65_535 for three in words]


def test_projections_are_what_the_definition_says_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    vectors = [rng.normal(size=n).tolist() for n in (1, 3, 64, 100)]
    found = vector_parts(pa.array(vectors), PARTS)
    for row, x in enumerate(vectors):
        for k in range(8):
            g = direction(k, len(x))
            product = squares = 0.0
            for a, b in zip(x, g, strict=True):
                product += a * b
                squares += b * b
            assert found[f"p{k}"][row].as_py() == product / math.sqrt(squares)
        assert found["norm"][row].as_py() == pytest.approx(math.hypot(*x), rel=1e-14)
        assert found["length"][row].as_py() == str(len(x))


def test_directions_are_unit_vectors_and_lie_apart() -> None:
    matrix = np.eye(768)
    found = vector_parts(pa.array(list(matrix)), PARTS)
    directions = np.stack([found[f"p{k}"].to_numpy() for k in range(8)])
    products = directions @ directions.T
    np.testing.assert_allclose(np.diag(products), 1, rtol=1e-12)
    # random directions have products of standard deviation 1/sqrt(768) = 0.036
    assert np.abs(products - np.eye(8)).max() < 5 / math.sqrt(768)
    assert abs(directions.mean()) < 5 / math.sqrt(8 * 768 * 768)


numbers = st.one_of(st.floats(width=32), st.none())


@settings(max_examples=60)
@given(st.lists(st.one_of(st.none(), st.lists(numbers, max_size=6)), max_size=30), st.integers(1, 7))
def test_the_bits_do_not_depend_on_the_split(vectors: list[Any], step: int) -> None:
    whole = pa.array(vectors, pa.list_(pa.float32()))
    found = vector_parts(whole, PARTS)
    for dtype in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_view(pa.float32())):
        typed = pa.array(vectors, dtype)
        for part in PARTS:
            pieces = [vector_parts(typed.slice(at, step), [part])[part] for at in range(0, len(vectors), step)]
            texts = [repr(v) for piece in pieces for v in piece.to_pylist()]
            assert texts == [repr(v) for v in found[part].to_pylist()]


def test_the_bits_do_not_depend_on_how_many_rows_are_side_by_side() -> None:
    values = np.random.default_rng(2).normal(size=(5000, 40)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 40)
    whole = vector_parts(column, PARTS)
    for step in (1, 999, 2048, 4999):
        for at in range(0, 5000, step) if step > 1 else (0, 2047, 2048, 4999):
            part = vector_parts(column.slice(at, step), PARTS)
            for name in ("norm", "p0", "p7"):
                assert part[name].equals(whole[name].slice(at, step))


def test_what_is_no_vector_is_null_and_its_length_says_why() -> None:
    vectors = [[3.0, 4.0], None, [], [1.0, None], [math.nan, 1.0], [math.inf, 1.0], [0.0] * (LONGEST + 1)]
    found = vector_parts(pa.array(vectors), PARTS)
    assert found["length"].to_pylist() == ["2", None, "0", "2", "2", "2", str(LONGEST + 1)]
    assert str(found["norm"].to_pylist()) == "[5.0, None, None, None, nan, inf, None]"
    assert found["p3"].null_count == 4


def test_the_longest_vector_has_a_norm() -> None:
    found = vector_parts(pa.array([[2.0] * LONGEST]), ["norm"])
    assert found["norm"].to_pylist() == [512.0]  # the root of 4 * 65,536


# -- every type, from file to verdict ------------------------------------------------------------------------


def log(days: int, seed: int, start: datetime, *, shifted: bool = False) -> pa.Table:
    """A column of each type, all of which change when `shifted`."""
    n = days * 400
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 60, n) + 50 * shifted
    i, x = pa.array(whole), rng.normal(size=n) + 4 * shifted
    text = pa.array([f"c{c}" for c in rng.integers(0, 4, n) + 2 * shifted])
    columns = {"time": pa.array([start + DAY * days * j / n for j in range(n)], pa.timestamp("us", "UTC"))}
    for bits in (8, 16, 32, 64):
        columns |= {f"{sign}int{bits}": i.cast(getattr(pa, f"{sign}int{bits}")()) for sign in ("", "u")}
    columns |= {f"float{bits}": pa.array(x, getattr(pa, f"float{bits}")()) for bits in (16, 32, 64)}
    for bits, digits in ((32, 9), (64, 18), (128, 20), (256, 50)):
        columns[f"decimal{bits}"] = i.cast(pa.decimal128(30, 2)).cast(getattr(pa, f"decimal{bits}")(digits, 2))
    columns["date32"] = i.cast(pa.int32()).cast(pa.date32())
    columns["date64"] = columns["date32"].cast(pa.date64())
    for unit, per in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        columns[f"timestamp_{unit}"] = pa.array(whole * per).cast(pa.timestamp(unit))
        columns[f"duration_{unit}"] = pa.array(whole * per).cast(pa.duration(unit))
    for dtype in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        columns[str(dtype)] = i.cast(pa.int32() if dtype.bit_width == 32 else pa.int64()).cast(dtype)
    columns |= {str(t): text.cast(t) for t in (pa.string(), pa.large_string(), pa.string_view())}
    columns["bool"] = pa.array(rng.random(n) < 0.2 + 0.5 * shifted)
    encoded = text.dictionary_encode()
    for index in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        indices = encoded.indices.cast(getattr(pa, index)())
        columns[f"dictionary_{index}"] = pa.DictionaryArray.from_arrays(indices, encoded.dictionary)
    columns["dictionary_of_whole"] = i.dictionary_encode()
    columns["nullable"] = pa.array(whole, mask=rng.random(n) < 0.1)  # Int64 of pandas
    geo = pa.StructArray.from_arrays([text, pa.array(x)], ["city", "x.y"], mask=pa.array(rng.random(n) < 0.1))
    columns["payload"] = pa.StructArray.from_arrays([i, geo], ["age", "geo"], mask=pa.array(rng.random(n) < 0.1))
    vectors = rng.normal(size=(n, 8)) + shifted
    for bits in (16, 32, 64):
        columns[f"list{bits}"] = pa.array(
            list(vectors.astype(f"f{bits // 8}")), pa.list_(getattr(pa, f"float{bits}")())
        )
    columns["large_list"] = pa.array(list(vectors), pa.large_list(pa.float64()))
    columns["fixed_list"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), 8)
    columns["json"] = pa.ExtensionArray.from_storage(pa.json_(), text)
    columns["null"] = pa.nulls(n)
    columns["binary"] = text.cast(pa.binary())
    columns["texts"] = pa.array([["a"]] * n)
    columns["map"] = pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64()))
    columns["structs"] = pa.array([[{"a": 1}]] * n)
    return pa.table(columns)


def check(folder: Path, *, window: Window | None = LIVE, **settings: Any) -> CheckResult:
    raw: dict[str, Any] = {
        "reference": str(folder / "training.parquet"),
        "source": {"path": str(folder / "live" / "*"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "window": {"length": "1d", "bucket": "1d"},
        "alarm": {"false_alerts_per_month": None},
    }
    monitor = Monitor.model_validate_json(json.dumps(raw | settings))
    return evaluate(CheckRequest(name="m", monitor=monitor, state=folder / "state", window=window))


UNWATCHED = ("binary", "texts", "map", "structs")


def test_every_type_is_watched_or_left_out_with_a_reason(tmp_path: Path) -> None:
    training = log(14, 1, START)
    pq.write_table(training, tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    pq.write_table(log(1, 2, LIVE.start), tmp_path / "live" / "a.parquet")
    same = check(tmp_path)
    assert (same.verdict, same.rows) == (Outcome.OK, 400), same.reason
    pq.write_table(log(1, 3, LIVE.start, shifted=True), tmp_path / "live" / "a.parquet")
    other = check(tmp_path, quality={"disable": ["unseen", "out_of_range", "constant"]})
    assert other.verdict is Outcome.DRIFT, other.reason
    (manifest,) = [read_manifest(path.parent) for path in (tmp_path / "state").rglob("manifest.json")]
    said = " | ".join(manifest.warnings)
    assert all(re.search(rf"column '{name}' is [a-z]+.*?, which cannot be watched", said) for name in UNWATCHED)
    assert "column 'null' has no value" in said
    watched = [name for name in Flat(training.schema).schema.names if name not in (*UNWATCHED, "null", "time")]
    assert sorted(feature.name for feature in same.features) == sorted(watched)
    # a direction may be nearly across that of the shift; lengths stay
    moved = {f.name for f in other.features if f.drifted}
    assert {name for name in watched if not name.endswith(".length") and ".p" not in name} <= moved
    for name in ("list16", "list32", "list64", "large_list", "fixed_list"):
        assert sum(f"{name}.p{k}" in moved for k in range(8)) >= 4
    kinds = manifest.kinds
    assert {kinds[n] for n in watched if n.startswith(("timestamp", "date"))} == {"datetime"}
    assert {kinds[n] for n in watched if n.startswith(("time32", "time64", "duration", "decimal"))} == {"numeric"}
    assert {kinds[n] for n in watched if "string" in n or n == "json"} == {"categorical"}
    assert kinds["bool"] == "boolean"
    assert manifest.stored["payload.geo.x.y"] == ("payload", "geo", "x.y")
    assert manifest.stored["list32.p7"] == ("list32",)


def test_vectors_of_another_length_are_broken_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def vectors(days: int, start: datetime, dimensions: int) -> pa.Table:
        times = [start + DAY * days * j / (days * 200) for j in range(days * 200)]
        return pa.table({"time": times, "emb": list(rng.normal(size=(days * 200, dimensions)))})

    pq.write_table(vectors(14, START, 16), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    pq.write_table(vectors(1, LIVE.start, 12), tmp_path / "live" / "a.parquet")
    result = check(tmp_path)
    assert result.verdict is Outcome.BROKEN
    assert result.reason.startswith(
        "emb.length: 100.00% of 200 rows are of a category new to the reference ('12')"
    )


# -- files -------------------------------------------------------------------------------------------------


def rows(n: int = 500, start: datetime = START) -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    return [
        {
            "id": f"r{k}",
            "payload": None
            if k % 10 == 9
            else {
                "age": int(rng.integers(18, 90)),
                "at": (start + timedelta(minutes=k)).isoformat(),
                "geo": {"city": f"c{rng.integers(0, 5)}", "hot": bool(rng.random() < 0.3)},
                "emb": rng.normal(size=5).round(3).tolist(),
            },
            "payload.real": k % 7 + 0.5,
        }
        for k in range(n)
    ]


def lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_table(records: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(records)


NAMES = [
    "id", "payload.age", "payload.geo.city", "payload.geo.hot",
    *(f"payload.emb.{part}" for part in PARTS), "payload.real",
]  # fmt: skip


def read(source: Files, names: list[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in names}
    for split in source.splits(None):
        for batch in source.batches(split, names):
            for name in names:
                found[name] += batch.column(name).to_pylist()
    return found


def test_json_lines_and_parquet_give_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(rows()))
    pq.write_table(as_table(rows()), tmp_path / "a.parquet")
    text, parquet = (
        open_files(FilesSource(path=str(tmp_path / f"a.{form}")), {"payload.at": "datetime"})
        for form in ("jsonl", "parquet")
    )
    assert set(text.columns().names) == {*NAMES, "payload.at"} == set(parquet.columns().names)
    assert read(text, NAMES) == read(parquet, NAMES)
    assert read(text, ["payload.at"])["payload.at"][0] == START


def test_only_the_needed_leaves_of_a_parquet_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(as_table(rows()), tmp_path / "a.parquet")
    asked: list[list[str]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: Any, **kwargs: Any) -> Any:
        for batch in original(self, *args, **kwargs):
            asked.append([f"{field.name}: {field.type}" for field in batch.schema])
            yield batch

    monkeypatch.setattr(parquet_files.pq.ParquetFile, "iter_batches", spy)
    read(open_files(FilesSource(path=str(tmp_path / "a.parquet")), {}), ["payload.geo.hot", "payload.real"])
    assert asked == [["payload: struct<geo: struct<hot: bool>>", "payload.real: double"]]


def test_row_groups_are_chosen_by_times_within_a_struct(tmp_path: Path) -> None:
    times = [START + timedelta(minutes=k) for k in range(300)]
    table = pa.table({"p": pa.array([{"at": t, "x": 1.0} for t in times])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    source = open_files(FilesSource(path=str(tmp_path / "a.parquet"), timestamp="p.at"), {})
    window = Window(start=times[100], end=times[150])
    (split,) = source.splits(window)
    assert split.row_groups == (1,)
    assert sum(batch.num_rows for batch in source.batches(split, ["p.x"])) == 50


def test_texts_in_structs_are_read_across_row_groups(tmp_path: Path) -> None:
    regions = [("eu", "us", None, "asia")[i % 4] if i < 150 else f"region {i}" for i in range(400)]
    payload = [{"region": region, "age": float(i)} for i, region in enumerate(regions)]
    pq.write_table(pa.table({"payload": payload, "c": regions}), tmp_path / "a.parquet", row_group_size=100)
    source = open_files(FilesSource(path=str(tmp_path / "a.parquet")), {})
    names = ["payload.region", "c", "payload.age"]
    found = [row for s in source.splits(None) for b in source.batches(s, names) for row in b.to_pylist()]
    assert found == [
        {"payload.region": region, "c": region, "payload.age": float(i)} for i, region in enumerate(regions)
    ]


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    inner = pa.StructArray.from_arrays([pa.array([1])], ["b"])
    column = pa.StructArray.from_arrays([pa.array([1]), inner], ["a.b", "a"])
    pq.write_table(pa.table({"p": column}), tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match=r"more than one column named 'p\.a\.b'"):
        open_files(FilesSource(path=str(tmp_path / "a.parquet")), {}).columns()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"payload": 5}, r"line 501, column 'payload': 5 is not an object"),
        ({"payload": {"geo": {"city": 3}}}, r"line 501, column 'payload\.geo\.city': 3 is not text"),
        ({"payload": {"emb": ["x"]}}, r"line 501, column 'payload\.emb': \['x'\] is not a list of numbers"),
    ],
)
def test_a_bad_nested_value_is_named(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    path = str(tmp_path / "a.jsonl")
    Path(path).write_bytes(lines(rows()))
    (settled,) = open_files(FilesSource(path=path), {}).flats()
    Path(path).write_bytes(lines([*rows(), bad]))
    source = open_files(FilesSource(path=path), {})
    source._flats[path] = settled  # as if it came far from the start, by which types are told
    with pytest.raises(SchemaError, match=said):
        read(source, NAMES)


# -- references and configurations ---------------------------------------------------------------------------


def build(folder: Path, columns: Columns, timestamp: str | None = "payload.at") -> Any:
    return build_reference(
        folder / "a.parquet",
        folder / "r",
        columns=columns,
        timestamp=timestamp,
        bucket=timedelta(hours=1),
        created=START,
    )


def test_a_configuration_names_what_lies_in_structs_and_all_of_a_struct(tmp_path: Path) -> None:
    pq.write_table(as_table(rows()), tmp_path / "a.parquet")
    found = build(tmp_path, Columns(id="id", ignore=("payload.emb",), kinds={"payload.age": "categorical"}))
    assert found.manifest.kinds == {
        "payload.age": "categorical",
        "payload.geo.city": "categorical",
        "payload.geo.hot": "boolean",
        "payload.real": "numeric",
    }
    assert (found.manifest.rows, found.manifest.invalid_rows) == (450, 50)
    only = build(tmp_path, Columns(features=("payload.geo", "payload.real"), prediction="payload.age"))
    assert list(only.manifest.kinds) == ["payload.age", "payload.geo.city", "payload.geo.hot", "payload.real"]
    with pytest.raises(
        BadReferenceError, match=r"columns\.features: the training data has no column 'payload\.gone'"
    ):
        build(tmp_path, Columns(features=("payload.gone",)))


def test_flat_data_has_the_manifest_that_it_had(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": np.arange(50) / 7}), tmp_path / "a.parquet")
    found = build(tmp_path, Columns(), None)
    assert "stored" not in json.loads(next(tmp_path.rglob("manifest.json")).read_text())
    assert found.manifest.stored == {}


def test_a_configuration_is_inferred_from_nested_training_data(tmp_path: Path) -> None:
    pq.write_table(as_table(rows()), tmp_path / "a.parquet")
    found = infer(tmp_path / "a.parquet")
    assert (found.timestamp.column, found.id.column) == ("payload.at", "id")
    assert found.features == (
        "payload.age",
        "payload.geo.city",
        "payload.geo.hot",
        "payload.real",
        "payload.emb (vectors)",
    )


def test_a_refreshed_training_set_keeps_its_columns_as_they_are_stored(tmp_path: Path) -> None:
    table = as_table(rows())
    pq.write_table(table, tmp_path / "a.parquet")
    _, files, schema = open_training(str(tmp_path / "a.parquet"), Columns(), "UTC", tmp_path, nested=False)
    assert schema.equals(table.schema)
    (split,) = files.splits(None)
    assert next(iter(files.batches(split, schema.names))).to_pylist() == table.to_pylist()


def test_a_number_written_as_a_float16_meets_its_edge() -> None:
    values = np.array([0.1, 0.2, 0.3])
    spec = NumericSpec.fit("x", np.tile(values, 50))
    batch = pa.RecordBatch.from_arrays([pa.array(values.astype(np.float16))], ["x"])
    (profile,) = profile_buckets([spec], [batch]).values()
    found = profile.features["x"]
    assert isinstance(found, NumericProfile)
    assert found.counts[1::2].tolist() == [1, 1, 1]


tree = st.recursive(
    st.integers(0, 99),
    lambda inside: st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a", "c"]), inside, min_size=1, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a.c", "c"]), tree, min_size=1, max_size=4))
def test_files_give_each_name_its_own_values_whatever_the_dots(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    def below(value: Any, path: str) -> list[tuple[str, int]]:
        if not isinstance(value, dict):
            return [(path, value)]
        return [pair for name, inner in value.items() for pair in below(inner, f"{path}.{name}")]

    own = {name: value for name, value in row.items() if not isinstance(value, dict)}
    nested = [pair for name, value in row.items() for pair in below(value, name) if isinstance(value, dict)]
    names = [name for name, _ in nested if name not in own]
    path = tmp_path_factory.mktemp("tree") / "a.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    source = open_files(FilesSource(path=str(path)), {})
    if len(names) > len(set(names)):
        with pytest.raises(SchemaError, match="more than one column"):
            source.columns()
        return
    expected = dict(nested) | own
    for asked in [[name] for name in expected] + [sorted(expected)]:
        assert read(source, asked) == {name: [expected[name]] for name in asked}
