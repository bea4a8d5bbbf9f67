"""Rows that are sent with objects and lists in them."""

import json
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.intake import PushSource
from drift_monitor.config.models import Columns
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.columns import Flat
from drift_monitor.core.vectors import PARTS, vector_parts
from drift_monitor.intake.kserve import inputs_of
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.refused import RefusedError
from drift_monitor.intake.rows import from_arrow_stream, from_json_lines, from_records
from drift_monitor.reference import build_reference
from drift_monitor.service.live_columns import live_columns
from drift_monitor.sources.files import open_files

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = "2026-03-01T11:00:00Z"


def inner(name, kind, *path):
    return LiveColumn(name=name, kind=kind, feature=True, path=path)


COLUMNS = (
    inner("p.age", "numeric", "p", "age"),
    inner("p.geo.city", "categorical", "p", "geo", "city"),
    inner("p.geo.a.b", "boolean", "p", "geo", "a.b"),
    LiveColumn(name="p.real", kind="numeric", feature=True),
    *(inner(f"p.emb.{part}", "categorical" if part == "length" else "numeric", "p", "emb") for part in PARTS),
    *(inner(f"e.{part}", "numeric", "e") for part in ("norm", "p0")),
)
LAYOUT = Layout(COLUMNS, "t")
NAMES = [column.name for column in COLUMNS]
RECORDS = [
    {
        "t": TIME,
        "p": {"age": 41, "geo": {"city": "a", "a.b": True}, "emb": [1, 2.5]},
        "p.real": 1.5,
        "e": [3, 4.0],
    },
    {"t": TIME, "p": None, "p.real": 2, "e": None},
    {"t": TIME, "p": {"age": None, "geo": None, "emb": [0.5, None]}, "other": [1]},
    {"t": TIME, "p": {"geo": {"city": 7}}, "p.geo.city": "by name", "p.emb.norm": 9.0, "e": []},
]


def lines(records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_row_of_each_record_is_what_lies_at_the_paths():
    batch = from_records(RECORDS, LAYOUT, NOW).batch
    found = {name: batch.column(name).to_pylist() for name in NAMES}
    vectors = vector_parts(pa.array([[1, 2.5], None, [0.5, None], None]), PARTS)
    assert found["p.age"] == [41.0, None, None, None]
    assert found["p.geo.city"] == ["a", None, None, "by name"]
    assert found["p.geo.a.b"] == [True, None, None, None]
    assert found["p.real"] == [1.5, 2.0, None, None]
    assert found["p.emb.norm"] == [*vectors["norm"].to_pylist()[:3], 9.0]
    assert found["p.emb.length"] == ["2", None, "2", None]
    assert found["p.emb.p7"] == vectors["p7"].to_pylist()
    assert found["e.norm"] == [5.0, None, None, None]
    assert found["e.p0"][0] == vector_parts(pa.array([[3.0, 4.0]]), ["p0"])["p0"][0].as_py()


def test_many_lines_give_the_rows_that_single_ones_give():
    records = RECORDS[:3] * 200
    assert len(lines(records)) > 8192
    quick, slow = from_json_lines(lines(records), LAYOUT, NOW), from_records(records, LAYOUT, NOW)
    assert quick.batch.equals(slow.batch)
    assert (quick.ignored, from_records(RECORDS[2:], LAYOUT, NOW).ignored) == ((), ("other",))


def test_an_arrow_stream_gives_the_same_rows():
    records = [record | {"p.real": Decimal("1.5")} for record in RECORDS[:3]]
    schema = pa.schema(
        {
            "t": pa.string(),
            "p": pa.struct(
                {
                    "age": pa.int16(),
                    "geo": pa.struct({"city": pa.string_view(), "a.b": pa.bool_()}),
                    "emb": pa.large_list(pa.float32()),
                }
            ),
            "p.real": pa.decimal128(5, 2),
            "e": pa.list_(pa.float16()),
        }
    )
    found = from_arrow_stream(stream(pa.Table.from_pylist(records, schema)), LAYOUT, NOW).batch
    assert found.equals(from_records(records, LAYOUT, NOW).batch)


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        ({"p": 5}, "p", "5 is not an object"),
        ({"p": {"geo": [1]}}, "p.geo", "[1] is not an object"),
        ({"p": {"age": "x"}}, "p.age", "'x' is not a number"),
        ({"p": {"emb": "x"}}, "p.emb", "'x' is not a list of numbers"),
        ({"e": [1, "x"]}, "e", "[1, 'x'] is not a list of numbers"),
    ],
)
@pytest.mark.parametrize("before", [1, 200])
def test_what_does_not_fit_is_named(record, field, said, before):
    with pytest.raises(RefusedError) as caught:
        from_json_lines(lines([RECORDS[0]] * before + [{"t": TIME, **record}]), LAYOUT, NOW)
    assert (caught.value.row, caught.value.field) == (before + 1, field)
    assert said in str(caught.value)


def test_names_of_an_arrow_stream_that_cannot_be_told_apart_are_refused():
    column = pa.StructArray.from_arrays(
        [pa.array([1]), pa.StructArray.from_arrays([pa.array([1])], ["b"])], ["a.b", "a"]
    )
    table = pa.table({"t": [TIME], "p": column})
    assert Flat(table.schema).schema.names == ["t", "p.a.b", "p.a.b"]
    with pytest.raises(RefusedError, match="more than one column"):
        from_arrow_stream(stream(table), LAYOUT, NOW)


def test_a_tensor_of_a_vector_has_a_list_for_each_row():
    data = {
        "inputs": [
            {"name": "e", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]},
            {"name": "p.real", "shape": [2], "datatype": "FP32", "data": [7, 8]},
        ]
    }
    assert inputs_of(data, (), LAYOUT.vectors) == [
        {"e": [1, 2, 3], "p.real": 7},
        {"e": [4, 5, 6], "p.real": 8},
    ]
    assert Layout(COLUMNS, "t").vectors == {"e", "p.emb"}
    found = from_records([{"t": TIME, "p.emb": [1.0, 2.0]}], LAYOUT, NOW).batch
    assert found.column("p.emb.norm")[0].as_py() == float(np.sqrt(5.0))


def test_values_of_avro_are_numbers():
    record = {"t": NOW, "p": {"age": Decimal("0.3")}, "p.real": time(1, 2, 3, 500_000), "e": [Decimal(3), 4]}
    found = from_records([record], LAYOUT, NOW).batch
    assert [found.column(name)[0].as_py() for name in ("p.age", "p.real", "e.norm")] == [0.3, 3723.5, 5.0]


def test_rows_that_were_sent_are_those_of_the_same_rows_in_files(tmp_path):
    rng = np.random.default_rng(7)
    rows = [
        {
            "t": (NOW + timedelta(minutes=k)).isoformat(),
            "p": None
            if k % 9 == 4
            else {"x": float(rng.normal()), "c": f"c{k % 3}", "emb": rng.normal(size=3).tolist()},
            "p.y": k / 7,
        }
        for k in range(300)
    ]
    table = pa.Table.from_pylist([row | {"t": datetime.fromisoformat(row["t"])} for row in rows])
    pq.write_table(table, tmp_path / "training.parquet")
    source = {"folder": tmp_path / "r", "timestamp": "t", "bucket": timedelta(hours=1), "created": NOW}
    manifest = build_reference(tmp_path / "training.parquet", columns=Columns(), **source).manifest
    layout = Layout.of(PushSource(type="push", timestamp="t"), live_columns(manifest, Columns()))
    names = [feature.name for feature in manifest.features]
    assert names == ["p.x", "p.c", *(f"p.emb.{part}" for part in PARTS), "p.y"]
    both = from_json_lines(lines(rows), layout, NOW), from_arrow_stream(stream(table), layout, NOW)
    for n, sent in enumerate(both):
        pq.write_table(pa.Table.from_batches([sent.batch]), tmp_path / f"spool{n}.parquet")
        found = []
        for name in (f"spool{n}", "training"):
            files = open_files(FilesSource(path=str(tmp_path / f"{name}.parquet"), timestamp="t"), {})
            batches = [b for split in files.splits(None) for b in files.batches(split, names)]
            found.append({name: [v for b in batches for v in b.column(name).to_pylist()] for name in names})
        assert found[0] == found[1]
