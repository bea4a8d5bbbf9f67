"""Bytes -> rows of a spool, and what is said of those that do not fit."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from math import inf

import pyarrow as pa
import pytest

from drift_monitor.intake import rows as module
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.refused import RefusedError, TooLargeError
from drift_monitor.intake.rows import from_arrow_stream, from_json_lines, from_records

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = (
    LiveColumn(name="x", kind="numeric", feature=True),
    LiveColumn(name="c", kind="categorical", feature=True),
    LiveColumn(name="b", kind="boolean", feature=True),
    LiveColumn(name="d", kind="datetime"),
)
LAYOUT = Layout(COLUMNS, "t")
BIG = 400  # rows of a body that Arrow's parser reads
TIME = "2026-03-01T00:00:00+00:00"


def jsonl(*records, repeat=1):
    return b"".join(json.dumps(r).encode() + b"\n" for r in records) * repeat


def stream(table, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def refusal(read, *arguments):
    with pytest.raises(RefusedError) as caught:
        read(*arguments, LAYOUT, NOW)
    return caught.value


RECORD = {"t": TIME, "x": 1.5, "c": "a", "b": True, "d": "2026-02-01T01:00:00+01:00"}


@pytest.mark.parametrize("repeat", [1, BIG])
def test_json_lines_have_the_types_of_the_layout(repeat):
    batch = from_json_lines(jsonl(RECORD, repeat=repeat), LAYOUT, NOW).batch
    assert batch.schema == LAYOUT.schema
    assert batch.num_rows == repeat
    assert batch.to_pylist()[-1] == {
        "t": datetime(2026, 3, 1, tzinfo=UTC),
        "x": 1.5,
        "c": "a",
        "b": True,
        "d": datetime(2026, 2, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize("repeat", [1, BIG])
@pytest.mark.parametrize(
    ("field", "sent", "kept"),
    [
        ("x", 3, 3.0),
        ("x", None, None),
        ("x", True, 1.0),
        ("x", -(10**400), -inf),
        ("c", 7, "7"),
        ("c", False, "false"),
        ("c", "", ""),
    ],
)
def test_both_ways_of_reading_lines_keep_the_same(repeat, field, sent, kept):
    body = jsonl(RECORD | {field: sent}, RECORD, repeat=repeat)
    found = from_json_lines(body, LAYOUT, NOW).batch.column(field).to_pylist()
    assert found[0] == kept
    assert found[1] == RECORD[field]


def test_not_a_number_and_infinity_are_numbers():
    found = from_json_lines(jsonl(RECORD | {"x": float("nan")}, RECORD | {"x": float("-inf")}), LAYOUT, NOW).batch
    assert str(found.column("x").to_pylist()) == "[nan, -inf]"


def test_what_a_row_lacks_is_null_and_what_it_has_more_is_named():
    rows = from_json_lines(jsonl({"t": TIME, "more": {"deep": [1]}}), LAYOUT, NOW)
    assert rows.batch.to_pylist() == [
        {"t": datetime(2026, 3, 1, tzinfo=UTC), "x": None, "c": None, "b": None, "d": None}
    ]
    assert rows.ignored == ("more",)


def test_blank_lines_are_no_rows_but_are_counted():
    assert from_json_lines(b"\n \n" + jsonl(RECORD) + b"\n", LAYOUT, NOW).batch.num_rows == 1
    assert from_json_lines(b"\n\n", LAYOUT, NOW).batch.num_rows == 0
    assert refusal(from_json_lines, b"\n\n" + jsonl(RECORD | {"x": "y"})).row == 3


@pytest.mark.parametrize("before", [0, BIG])
@pytest.mark.parametrize(
    ("changed", "field", "value", "said"),
    [
        ({"x": "abc"}, "x", "abc", "'abc' is not a number"),
        ({"x": [1]}, "x", "[1]", "[1] is not a number"),
        ({"c": 1.5}, "c", "1.5", "is not text, a whole number, true or false"),
        ({"c": {"k": 1}}, "c", "{'k': 1}", "is not text"),
        ({"c": "\ud800"}, "c", "\\ud800", "is not text"),
        ({"b": "yes"}, "b", "yes", "'yes' is not true or false"),
        ({"b": 1}, "b", "1", "is not true or false"),
        ({"t": 1772323200}, "t", "1772323200", "seconds or milliseconds"),
        ({"t": "soon"}, "t", "soon", "is no time in the years 1970 to 2199"),
        ({"t": "2300-01-01"}, "t", "2300-01-01", "is no time in the years 1970 to 2199"),
        ({"t": None}, "t", None, "the row has no event time"),
        ({"d": "never"}, "d", "never", "is no time"),
        ({"x": "y" * 10_000}, "x", "y" * 100 + "...", "is not a number"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row_and_field(before, changed, field, value, said):
    body = jsonl(RECORD, repeat=before) + jsonl(RECORD | changed)
    error = refusal(from_json_lines, body)
    assert (error.row, error.field) == (before + 1, field)
    assert value is None or error.value == value
    assert said in str(error)
    assert len(json.dumps(error.told())) < 1000


@pytest.mark.parametrize("before", [0, BIG])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[1]", "no object"),
        (b"{", "not JSON"),
        (b'{"x": 1, "x": 2}', "the key 'x' stands there twice"),
        (b'{"c": "\xff"}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_object_is_named(before, line, said):
    error = refusal(from_json_lines, jsonl(RECORD, repeat=before) + line)
    assert error.row == before + 1
    assert said in str(error)


def test_deep_nesting_in_a_column_that_nobody_keeps_breaks_nothing():
    line = jsonl(RECORD) + b'{"t": "2026-03-01", "zz": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert from_json_lines(line, LAYOUT, NOW).batch.num_rows == 2


def test_an_arrow_stream_is_cast_to_the_layout():
    table = pa.table(
        {
            "c": pa.array(["a", None], pa.large_string()).dictionary_encode(),
            "x": pa.array([Decimal("1.25"), None]),
            "d": [date(2026, 2, 1), None],
            "t": pa.array([datetime(2026, 3, 1), datetime(2026, 3, 2)], pa.timestamp("ns")),
            "more": [1, 2],
        }
    )
    rows = from_arrow_stream(stream(table), LAYOUT, NOW)
    assert rows.batch.schema == LAYOUT.schema
    assert rows.batch.to_pylist()[0] == {
        "t": datetime(2026, 3, 1, tzinfo=UTC),
        "x": 1.25,
        "c": "a",
        "b": None,
        "d": datetime(2026, 2, 1, tzinfo=UTC),
    }
    assert rows.ignored == ("more",)


@pytest.mark.parametrize("dtype", [pa.int8(), pa.uint64(), pa.float32(), pa.float16(), pa.bool_()])
def test_every_number_is_a_number(dtype):
    table = pa.table({"t": pa.array([NOW]), "x": pa.array([1]).cast(dtype)})
    assert from_arrow_stream(stream(table), LAYOUT, NOW).batch.column("x").to_pylist() == [1.0]


def test_times_of_an_arrow_stream_are_those_of_the_zone():
    layout = Layout(COLUMNS, "t", timezone="Europe/Berlin")
    table = pa.table({"t": pa.array([datetime(2026, 7, 1, 2)], pa.timestamp("us"))})
    assert from_arrow_stream(stream(table), layout, NOW).batch.column("t").to_pylist() == [
        datetime(2026, 7, 1, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    ("columns", "field", "said"),
    [
        ({"x": ["1"]}, "x", "the column is string, which is not a number"),
        ({"c": [1.5]}, "c", "the column is double, which is not text"),
        ({"c": pa.array([["a"]])}, "c", "list"),
        ({"t": [1]}, "t", "seconds or milliseconds"),
        ({"t": pa.array(["x"])}, "t", "is no time"),
        ({"t": pa.array([None], pa.timestamp("us"))}, "t", "no event time"),
    ],
)
def test_a_column_that_does_not_fit_is_named(columns, field, said):
    table = pa.table({"t": pa.array([NOW]), **columns})
    error = refusal(from_arrow_stream, stream(table))
    assert error.field == field
    assert said in str(error)


def test_the_row_of_an_arrow_stream_is_counted_over_its_batches():
    good, bad = pa.table({"t": pa.array([TIME] * 3)}), pa.table({"t": pa.array([TIME, "x"])})
    error = refusal(from_arrow_stream, stream(pa.concat_tables([good, bad])))
    assert (error.row, error.field, error.value) == (5, "t", "x")


def test_what_is_no_arrow_stream_is_refused():
    whole = stream(pa.table({"t": pa.array([NOW] * 100), "c": ["text"] * 100}))
    for body in (b"", b"{}", b"\xff" * 100, whole[:-200]):
        assert "Arrow stream" in str(refusal(from_arrow_stream, body))


def test_hostile_offsets_are_refused_before_anything_reads_them():
    offsets = pa.array([0, 2**30, 4], pa.int32()).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"text")])
    batch = pa.record_batch({"t": pa.array([NOW, NOW]), "c": column})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert "damaged" in str(refusal(from_arrow_stream, sink.getvalue()))


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array([NOW]), pa.array([1]), pa.array([2])], names=["t", "x", "x"])
    assert refusal(from_arrow_stream, stream(table)).field == "x"


def test_more_rows_than_a_request_may_have_are_too_large():
    """A column of nulls has no bytes, whatever its length."""
    table = pa.table({"t": pa.nulls(module.MOST_ROWS + 1)})
    body = stream(table)
    assert len(body) < 1000
    assert isinstance(refusal(from_arrow_stream, body), TooLargeError)


def test_a_dictionary_that_stands_for_too_much_is_too_large():
    codes = pa.array([0] * 1000, pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 2**20]))
    body = stream(pa.table({"t": pa.array([NOW] * 1000), "c": column}))
    assert len(body) < 2**21
    error = refusal(from_arrow_stream, body)
    assert isinstance(error, TooLargeError)
    assert error.field == "c"


def test_the_time_of_arrival_takes_the_place_of_a_time_where_that_is_configured():
    layout = Layout(COLUMNS, "t", arrival=True)
    for repeat in (1, BIG):
        found = from_json_lines(jsonl({"x": 1.0}, {"t": TIME, "x": 2.0}, repeat=repeat), layout, NOW).batch
        assert found.column("t").to_pylist()[:2] == [NOW, datetime(2026, 3, 1, tzinfo=UTC)]
    table = pa.table({"x": [1.0]})
    assert from_arrow_stream(stream(table), layout, NOW).batch.column("t").to_pylist() == [NOW]
    with pytest.raises(RefusedError, match="is no time"):  # a wrong time is not a missing one
        from_json_lines(jsonl({"t": "x"}), layout, NOW)


def test_no_records_are_no_rows():
    assert from_records([], LAYOUT, NOW).batch.num_rows == 0
