"""A configuration inferred from a training file says what a person would have said, and can be used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drift_monitor.config.file import parse
from drift_monitor.config.infer import infer, scalar, write_config
from drift_monitor.core.errors import BadReferenceError

ROWS = 2000
START = datetime(2013, 1, 1, tzinfo=UTC)


def flights() -> pa.Table:
    return pa.table(
        {
            "scheduled_departure": [START + timedelta(minutes=i) for i in range(ROWS)],
            "flight_id": [f"UA{i}" for i in range(ROWS)],
            "tail_number": [f"N{i % 1500}" for i in range(ROWS)],
            "carrier": [("UA", "AA", "DL")[i % 3] for i in range(ROWS)],
            "weekday": [i % 7 for i in range(ROWS)],
            "distance": [float(i % 400) for i in range(ROWS)],
            "p_late": [(i % 100) / 100 for i in range(ROWS)],
            "is_late": [i % 5 == 0 for i in range(ROWS)],
            "is_weekend": [i % 7 > 4 for i in range(ROWS)],
            "tags": [["a"]] * ROWS,
            "nothing": pa.nulls(ROWS, pa.string()),
        }
    )


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "flights 2013.parquet"
    pq.write_table(flights(), path)
    return path


def test_columns_are_guessed_by_name_and_content(training: Path) -> None:
    found = infer(training)
    assert found.timestamp.column == "scheduled_departure"
    assert found.prediction.column == "p_late"
    assert found.label.column == "is_late"
    assert found.id.column == "flight_id"
    assert set(found.ignore) == {"tail_number", "tags", "nothing"}
    assert set(found.kinds) == {"weekday"}
    assert found.features == ("carrier", "weekday", "distance", "is_weekend")


def test_the_window_holds_enough_rows(training: Path) -> None:
    assert infer(training).every == timedelta(days=1)  # 1440 rows a day, and 60 an hour are too few


def test_what_is_written_can_be_read_and_says_the_same(training: Path, tmp_path: Path) -> None:
    target = tmp_path / "drift-monitor.yaml"
    config = parse(write_config(infer(training), training, target), target)
    monitor = config.monitors["flights-2013"]
    assert monitor.reference == training
    assert monitor.source.timestamp == "scheduled_departure"
    assert (monitor.columns.prediction, monitor.columns.label, monitor.columns.id) == (
        "p_late",
        "is_late",
        "flight_id",
    )
    assert monitor.columns.ignore == ("tags", "nothing", "tail_number")
    assert monitor.columns.kinds == {"weekday": "categorical"}


def test_every_guess_has_a_comment_that_says_why(training: Path, tmp_path: Path) -> None:
    text = write_config(infer(training), training, tmp_path / "c.yaml")
    lines = text.splitlines()
    for key in ("timestamp: scheduled_departure", "prediction: p_late", "label: is_late", "id: flight_id"):
        line = next(i for i, line in enumerate(lines) if line.strip() == key)
        assert lines[line - 1].strip().startswith("#"), key
    assert all(
        "  # " in line for line in lines if line.strip().startswith(("- tags", "- tail_number", "weekday:"))
    )


def test_nothing_is_guessed_where_nothing_speaks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1.5, 2.5, 2.5], "b": [3.0, 4.0, 5.0]}), path)
    found = infer(path)
    assert (found.timestamp.column, found.prediction.column, found.label.column, found.id.column) == (None,) * 4
    assert (
        parse(write_config(found, path, tmp_path / "c.yaml"), tmp_path / "c.yaml").monitors["t"].columns.id is None
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_files_are_inferred_alike(tmp_path: Path, suffix: str) -> None:
    table = flights().drop_columns(["tags", "nothing"])
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text(
            "".join(
                f"{line}\n"
                for line in table.to_pandas().to_json(orient="records", lines=True, date_format="iso").splitlines()
            )
        )
    found = infer(path)
    assert (found.timestamp.column, found.prediction.column) == ("scheduled_departure", "p_late")
    assert (found.label.column, found.id.column) == ("is_late", "flight_id")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"x", r"a training file ends in \.parquet"),
        ("t.parquet", None, "no such file"),
        ("t.parquet", b"PAR1 but cut short", "cannot be read as parquet"),
        ("t.csv", b"a,b\n", "has no rows"),
        ("t.jsonl", b'{"a": 1}\n{"a": [}\n', "cannot be read as json"),
    ],
)
def test_a_file_that_is_no_training_file_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadReferenceError, match=message):
        infer(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5, unique=True
    )
)
def test_any_column_names_survive_the_round_trip(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table([pa.array([["x"]] * 3) for _ in names], names=names)  # lists: every column is ignored by name
    pq.write_table(table, path)
    config = parse(write_config(infer(path), path, tmp_path / "c.yaml"), tmp_path / "c.yaml")
    assert sorted(config.monitors["t"].columns.ignore) == sorted(names)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_scalar_is_read_as_it_was_written(text: str) -> None:
    monitor = f"reference: r, source: {{path: p}}, schedule: {{every: 1h}}, model: {{name: {scalar(text)}}}"
    config = parse(f"monitors: {{m: {{{monitor}}}}}\n", Path("/c.yaml"))
    assert config.monitors["m"].model.name == text


@pytest.mark.parametrize("name", ["Order No", "orderId", "order_id", "UUID", "request.key", "Nr"])
def test_an_id_is_known_by_its_name_and_its_values(tmp_path: Path, name: str) -> None:
    path = tmp_path / "orders.parquet"
    pq.write_table(pa.table({name: range(50), "piano": range(50), "x": [1, 2] * 25}), path)
    assert infer(path).id.column == name


def test_a_column_of_different_numbers_is_no_id_without_the_name(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    pq.write_table(pa.table({"piano": range(50), "valid": range(50)}), path)
    assert infer(path).id.column is None


@pytest.mark.parametrize(
    ("file", "expected"),
    [("flight-delay/training.parquet", "flight-delay"), ("flight-delay/orders.parquet", "orders")],
)
def test_a_monitor_is_named_by_the_file_or_by_its_folder(tmp_path: Path, file: str, expected: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), path)
    assert infer(path).name == expected
