"""What a SageMaker endpoint captures, as rows."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.models import Monitor
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Window
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.sources.files import Files, open_files

START = datetime(2024, 3, 1, tzinfo=UTC)


def part(data, encoding="CSV", content="text/csv", mode="INPUT"):
    return {"observedContentType": content, "mode": mode, "data": data, "encoding": encoding}


def capture(minute, given, answer=None, **metadata):
    sides = {"endpointInput": given} | ({} if answer is None else {"endpointOutput": answer})
    event = {
        "eventId": f"e{minute}",
        "inferenceTime": (START + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"captureData": sides, "eventMetadata": event | metadata, "eventVersion": "0"}


def source(folder: Path, lines, *, inputs=("x", "c"), outputs=("p",), kinds=None, name="a.jsonl") -> Files:
    text = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    config = FilesSource(
        path=str(folder / name), format="sagemaker", inputs=inputs, outputs=outputs, timestamp="at"
    )
    return open_files(config, kinds or {})


def rows(files: Files, window=None, names=None):
    names = names or files.columns().names
    return [r for s in files.splits(window) for b in files.batches(s, names) for r in b.select(names).to_pylist()]


def at(minute):
    return START + timedelta(minutes=minute)


EXPECTED = [
    {"at": at(0), "eventId": "e0", "x": 1.5, "c": "a", "p": 0.25},
    {"at": at(1), "eventId": "e1-0", "x": 2.0, "c": "b,b", "p": 0.5},
    {"at": at(1), "eventId": "e1-1", "x": None, "c": "NA", "p": 0.75},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_csv_takes_its_names_from_the_configuration(tmp_path, name):
    lines = [
        capture(0, part("1.5,a\n"), part("0.25")),
        capture(1, part('2,"b,b"\r\n,NA'), part("0.5\n0.75\n")),
    ]
    assert rows(source(tmp_path, lines, name=name)) == EXPECTED


def test_all_answers_may_stand_on_one_line(tmp_path):
    files = source(
        tmp_path, [capture(0, part("1.5,a"), part("0.25")), capture(1, part('2,"b,b"\n,NA'), part("0.5,0.75"))]
    )
    assert rows(files) == EXPECTED


JSON_GIVEN = [
    '{"x": 1.5, "c": "a"}',
    '[1.5, "a"]',
    '[[1.5, "a"]]',
    '{"instances": [{"x": 1.5, "c": "a"}]}',
    '{"instances": [[1.5, "a"]]}',
    '{"signature_name": "serve", "id": 7, "instances": [{"x": 1.5, "c": "a"}]}',  # of the request, and no columns
]
JSON_ANSWERS = [
    "0.25",
    "[0.25]",
    '{"predictions": [{"p": 0.25}]}',
    '{"predictions": [0.25]}',
    '{"p": 0.25}',
    "[[0.25]]",
]


@pytest.mark.parametrize("given", JSON_GIVEN)
@pytest.mark.parametrize("answer", JSON_ANSWERS)
def test_json_comes_in_many_forms(tmp_path, given, answer):
    line = capture(0, part(given, "JSON", "application/json"), part(answer, "JSON", "application/json"))
    assert rows(source(tmp_path, [line])) == EXPECTED[:1]


def test_json_lines_and_base64_are_read_by_their_content_type(tmp_path):
    def encoded(text, content):
        return part(base64.b64encode(text.encode()).decode(), "BASE64", content)

    lines = [
        capture(0, encoded("1.5,a", "text/csv; charset=utf-8"), encoded('{"p": 0.25}', "application/json")),
        capture(1, part('{"x": 2, "c": "b,b"}\n{"c": "NA"}', "JSON", "application/jsonlines"), part("0.5\n0.75")),
    ]
    assert rows(source(tmp_path, lines)) == EXPECTED


def test_a_payload_has_structs_and_vectors_as_other_files_have(tmp_path):
    body = json.dumps({"u": {"age": 3, "at": "2024-03-01T05:00:00Z"}, "features": [3, 4]})
    files = source(
        tmp_path,
        [capture(0, part(body, "JSON", "application/json"))],
        inputs=(),
        outputs=(),
        kinds={"u.at": "datetime"},
    )
    assert rows(files, names=["at", "u.age", "u.at", "features.norm"]) == [
        {"at": at(0), "u.age": 3.0, "u.at": START + timedelta(hours=5), "features.norm": 5.0}
    ]


def test_a_window_takes_the_rows_of_its_time(tmp_path):
    files = source(tmp_path, [capture(k, part(f"{k},a"), part("1")) for k in range(10)])
    assert [row["x"] for row in rows(files, Window(start=at(3), end=at(5)))] == [3.0, 4.0]


def test_kinds_say_how_csv_is_read_and_where_they_are_not_known_all_values_do(tmp_path):
    lines = [capture(k, part(f"{k},{k % 2},true"), part("1")) for k in range(3)]
    inputs = ("x", "c", "b")
    found = source(tmp_path, lines, inputs=inputs).columns()
    assert [found.field(n).type for n in inputs] == [pa.float64(), pa.float64(), pa.bool_()]
    files = source(tmp_path, lines, inputs=inputs, kinds={"c": "categorical", "x": "categorical"})
    assert [files.columns().field(n).type for n in inputs] == [pa.string(), pa.string(), pa.bool_()]
    assert rows(files, names=["c"])[1] == {"c": "1"}


GOOD = capture(0, part("1.5,a"), part("0.25"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "Expecting property name"),
        (b"[1]", "no JSON object"),
        (b'{"x": 1}', "no capture of SageMaker's: 'captureData' is missing"),
        ({"captureData": {}, "eventMetadata": {}}, "neither endpointInput nor endpointOutput"),
        (capture(1, part("1.5")), "endpointInput has a row of 1 values without names, but the source's `inputs`"),
        (capture(1, part("1,a\n2,b"), part("0.5")), "2 rows went in, and 1 came out"),
        (capture(1, part('1,"a'), part("0.5")), "endpointInput.data is no CSV"),
        (capture(1, part("{", "JSON"), part("0.5")), "Expecting property name"),
        (capture(1, part("xx!", "BASE64"), part("0.5")), "no text in BASE64"),
        (capture(1, part("AAAA", "BASE64", "application/x-protobuf")), "x-protobuf', which is not read"),
        (capture(1, part(5)), "endpointInput.data is no text"),
        (capture(1, part('{"x": 1, "x": 2}', "JSON")), "the key 'x' stands there twice"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line, said):
    with pytest.raises(SourceError) as caught:
        rows(source(tmp_path, [GOOD, line]))
    assert "a.jsonl', line 2: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (capture(1, part("1_0,a"), part("0.25")), "line 3, column 'x': '1_0' is not a number"),
        (capture(1, part('{"x": "y", "c": "a"}', "JSON"), part("1")), "line 3, column 'x': 'y' is not a number"),
        (
            capture(1, part('{"x": true, "c": "a"}', "JSON"), part("1")),
            "line 3, column 'x': 'True' is not a number",
        ),
        (capture(1, part('{"x": 1, "c": 5}', "JSON"), part("1")), "line 3, column 'c': 5 is not text"),
        (capture(1, part('{"x": 1, "c": "\\ud800"}', "JSON"), part("1")), "line 3, column 'c': "),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path, line, said):
    settled = source(tmp_path, [GOOD])
    settled.columns()
    files = source(tmp_path, [GOOD, b"", line], kinds={"x": "numeric", "c": "categorical", "p": "numeric"})
    files._flats[files.paths[0]] = settled.flats()[0]
    with pytest.raises(SchemaError) as caught:
        rows(files)
    assert said in str(caught.value)


def test_a_value_after_many_rows_is_named_by_its_own_line(tmp_path):
    lines = [capture(0, part("1\n" * 9000)), capture(1, part("1")), capture(2, part("1_0"))]
    with pytest.raises(SchemaError, match="line 3, column 'x': '1_0' is not a number"):
        rows(source(tmp_path, lines, inputs=("x",), kinds={"x": "numeric"}))


def test_a_fraction_in_a_column_of_whole_numbers_is_not_cut(tmp_path):
    def of(value, **metadata):
        return capture(0, part(json.dumps({"x": 1.5, "c": value}), "JSON", "application/json"), **metadata)

    head = [of(1, note="." * (1 << 21))] * 2  # so long that the columns are told by these alone
    kinds = {"c": "categorical"}
    assert [row["c"] for row in rows(source(tmp_path, [*head, of(2)], kinds=kinds), names=["c"])] == [1, 1, 2]
    with pytest.raises(SchemaError, match=r"line 3, column 'c': '?1\.5'? is not"):
        rows(source(tmp_path, [*head, of(1.5)], kinds=kinds))


def test_a_line_that_is_being_written_is_one_row_that_cannot_be_read(tmp_path):
    files = source(tmp_path, [GOOD])
    with Path(files.paths[0]).open("ab") as file:
        file.write(b'{"captureData": {"endpoint')
    found = rows(open_files(files._config, {}), names=["at", "x"])
    assert found == [{"at": at(0), "x": 1.5}, {"at": None, "x": None}]


def test_a_time_of_the_payload_is_used_where_it_has_the_name(tmp_path):
    files = source(tmp_path, [capture(0, part("1.5,2024-03-01T09:00:00+01:00"))], inputs=("x", "at"), outputs=())
    assert rows(files, names=["at"]) == [{"at": START + timedelta(hours=8)}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inputs": ["x"]}, "go with `format: sagemaker`"),
        ({"format": "sagemaker", "inputs": ["x"], "outputs": ["x"]}, "'x' is named twice"),
    ],
)
def test_names_go_with_captures(settings, said):
    with pytest.raises(ValueError, match=said):
        FilesSource.model_validate_json(json.dumps({"path": "a", **settings}))


def test_other_names_are_other_columns_also_of_files_that_were_read(tmp_path):
    rng = np.random.default_rng(5)
    times = [START - timedelta(days=3) + timedelta(minutes=10 * i) for i in range(432)]
    training = {"at": times, "x": rng.normal(0, 1, 432), "y": rng.normal(50, 1, 432)}
    pq.write_table(pa.table(training), tmp_path / "training.parquet")
    lines = [json.dumps(capture(i, part(f"{rng.normal(0, 1)},{rng.normal(50, 1)}"))) for i in range(1440)]
    (tmp_path / "live.jsonl").write_text("\n".join(lines) + "\n")

    def effects(names):
        monitor = {
            "reference": str(tmp_path / "training.parquet"),
            "source": {"path": str(tmp_path / "live.jsonl"), "format": "sagemaker", "timestamp": "at"}
            | {"inputs": names},
            "schedule": {"every": "1d"},
            "alarm": {"false_alerts_per_month": None},
        }
        result = evaluate(
            CheckRequest(
                name="m",
                monitor=Monitor.model_validate_json(json.dumps(monitor)),
                state=tmp_path / "state",
                window=Window(start=START, end=START + timedelta(days=1)),
            )
        )
        return {feature.name: feature.effect for feature in result.features}

    right, swapped = effects(["x", "y"]), effects(["y", "x"])
    assert right != swapped
    assert effects(["x", "y"]) == right
