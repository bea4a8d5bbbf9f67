"""A refreshed training set from files to a version on disk: types, hostile ids, broken windows, rebuilding."""

from __future__ import annotations

import doctest
import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.process import ProcessError
from drift_monitor.actions.refresh import (
    LabelsRequest,
    RefreshError,
    RefreshRequest,
    RefreshResult,
    run_labels,
    run_refresh,
)
from drift_monitor.actions.training_set import Inputs, Progress, Recipe
from drift_monitor.cli import main
from drift_monitor.cli.layers import examine_layers
from drift_monitor.config.intake import PushSource
from drift_monitor.config.loop import Refresh
from drift_monitor.config.models import Columns, Monitor
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import DriftMonitorError, SchemaError
from drift_monitor.core.types import Window
from drift_monitor.reference import build_reference
from drift_monitor.service import refreshing
from drift_monitor.service.labels import count_labels
from drift_monitor.service.live_windows import stretches, windows_of
from drift_monitor.service.refresh_manifest import LiveWindow, RefreshManifest, read_manifest
from drift_monitor.service.refreshing import rebuild, refresh
from drift_monitor.sources.spool import piece_name

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
UNTIL = START + 12 * DAY
PER_DAY = 300
MINUTE = timedelta(minutes=1)


def rows(first: int, days: int, seed: int, ids: str = "row") -> pa.Table:
    """Rows of some days: in the order of time, ids by day and number."""
    rng = np.random.default_rng(seed)
    n = days * PER_DAY
    return pa.table(
        {
            "time": pa.array(
                [START + first * DAY + DAY * (i / PER_DAY) for i in range(n)], pa.timestamp("us", "UTC")
            ),
            "id": [f"{ids}-{first + i // PER_DAY}-{i % PER_DAY}" for i in range(n)],
            "speed": rng.normal(100, 10, n),
            "carrier": rng.choice(["UA", "AA"], n),
            "late": rng.random(n) < 0.3,
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight days of training data and four live ones."""
    pq.write_table(rows(0, 8, seed=1), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    for day in range(8, 12):
        pq.write_table(rows(day, 1, seed=day), tmp_path / "live" / f"{day}.parquet")
    return tmp_path


def monitor(data: Path, **settings: Any) -> Monitor:
    raw: dict[str, Any] = {
        "reference": str(data / "training.parquet"),
        "source": {"path": str(data / "live" / "*"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "columns": {"id": "id", "label": "late"},
        "refresh": {"live": "4d"},
        "alarm": {"false_alerts_per_month": None},
    }
    for section, values in settings.items():
        raw[section] = raw.get(section, {}) | values if isinstance(values, dict) else values
    return Monitor.model_validate_json(json.dumps(raw))


def request(data: Path, until: datetime | None = UNTIL, **settings: Any) -> RefreshRequest:
    window = None if until is None else Window(start=until - DAY, end=until)
    return RefreshRequest(
        name="m", monitor=monitor(data, **settings), state=data / "state", window=window, output=data / "out"
    )


def made(data: Path, **settings: Any) -> tuple[RefreshResult, RefreshManifest, pa.Table]:
    """The result, its manifest, and the rows of all parts."""
    result = refresh(request(data, **settings))
    manifest = read_manifest(result.path)
    return result, manifest, pa.concat_tables([pq.read_table(result.path / p.file) for p in manifest.parts])


def replace(path: Path, column: str, values: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), path)


# -- the version ---------------------------------------------------------------------------------------


def test_old_and_live_rows_are_put_together_and_split(data: Path) -> None:
    result, manifest, table = made(data)
    assert table.num_rows == 12 * PER_DAY
    assert table.schema.equals(rows(0, 1, 0).schema)
    assert sum(result.rows.values()) == 12 * PER_DAY
    assert result.rows.keys() == {"train", "test"}
    assert result.train_rows == pq.read_metadata(result.train).num_rows
    assert result.path.parent == data / "out"
    assert result.path.name == f"2024-03-12-{result.sha256[:12]}" == manifest.version
    assert (result.labelled, result.left_out) == (1.0, ())
    assert (manifest.training.read, manifest.training.taken, manifest.live.read) == (2400, 2400, 1200)
    assert sorted(path.name for path in result.path.iterdir()) == [
        "manifest.json",
        "test.parquet",
        "train.parquet",
    ]
    assert all(window.taken for window in manifest.windows)
    assert {file.name for file in manifest.inputs.live} == {"8.parquet", "9.parquet", "10.parquet", "11.parquet"}
    assert not set(table["id"].to_pylist()) ^ {f"row-{d}-{i}" for d in range(12) for i in range(PER_DAY)}
    values = {row["id"]: row for row in table.to_pylist()}
    for row in rows(9, 1, seed=9).to_pylist():
        assert values[row["id"]] == row


def test_the_same_inputs_give_the_same_version_and_no_second_one(data: Path) -> None:
    first = refresh(request(data))
    before = (first.path / "manifest.json").stat().st_mtime_ns
    assert refresh(request(data)) == first
    assert refresh(request(data, refresh={"enabled": True})) == first
    assert (first.path / "manifest.json").stat().st_mtime_ns == before
    assert [path.name for path in (data / "out").iterdir() if not path.name.startswith(".")] == [first.path.name]


@pytest.mark.usefixtures("unjudged")
def test_the_train_part_builds_a_reference(data: Path) -> None:
    result, manifest, _ = made(data)
    reference = build_reference(
        result.train,
        data / "references",
        columns=monitor(data).columns,
        timestamp="time",
        bucket=timedelta(hours=1),
        created=UNTIL,
    )
    assert reference.manifest.rows == result.train_rows
    assert set(reference.manifest.kinds) == {"speed", "carrier"}
    assert list(reference.manifest.schema_) == list(manifest.schema_)


@pytest.mark.usefixtures("unjudged")
def test_a_version_is_training_data_for_the_next_and_rows_keep_their_parts(data: Path) -> None:
    first, _, _ = made(data)
    pq.write_table(rows(12, 1, seed=12), data / "live" / "12.parquet")
    pq.write_table(rows(0, 8, seed=1), data / "reference.parquet")
    settings = {"reference": str(data / "reference.parquet"), "training": str(first.path)}
    second = refresh(request(data, until=UNTIL + DAY, **settings))
    parts = [
        {
            each: part
            for part in ("train", "test")
            for each in pq.read_table(v.path / f"{part}.parquet")["id"].to_pylist()
        }
        for v in (first, second)
    ]
    assert parts[0].items() <= parts[1].items()
    assert len(parts[1]) == 13 * PER_DAY


@pytest.mark.usefixtures("unjudged")
def test_a_later_label_wins_and_duplicates_are_counted(data: Path) -> None:
    again = rows(7, 1, seed=99).set_column(4, "late", pa.array([True] * PER_DAY))
    later = again.set_column(
        0, "time", pa.array([START + 8 * DAY + i * MINUTE for i in range(PER_DAY)], pa.timestamp("us", "UTC"))
    )
    pq.write_table(later, data / "live" / "corrected.parquet")
    pq.write_table(later.slice(0, 10), data / "live" / "twice.parquet")
    _, manifest, table = made(data)
    assert (manifest.training.taken, manifest.training.dropped) == (7 * PER_DAY, {"replaced": PER_DAY})
    assert (manifest.live.taken, manifest.live.dropped) == (5 * PER_DAY, {"duplicate": 10})
    values = {row["id"]: row for row in table.to_pylist()}
    assert [values[f"row-7-{i}"] for i in range(PER_DAY)] == later.to_pylist()


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_live_rows_without_a_label_are_left_out(data: Path, missing: float | None) -> None:
    for path in [data / "training.parquet", *(data / "live").iterdir()]:
        replace(path, "late", pq.read_table(path)["late"].cast(pa.float64()))
    late = pq.read_table(data / "live" / "9.parquet")["late"].to_pylist()
    replace(data / "live" / "9.parquet", "late", pa.array([missing] * 100 + late[100:], pa.float64()))
    result, manifest, table = made(data)
    assert manifest.live.dropped == {"no_label": 100}
    assert result.labelled == 1 - 100 / 1200
    assert table.num_rows == 3500
    assert not {f"row-9-{i}" for i in range(100)} & set(table["id"].to_pylist())


@pytest.mark.usefixtures("unjudged")
def test_old_rows_without_a_label_stay(data: Path) -> None:
    late = pq.read_table(data / "training.parquet")["late"].to_pylist()
    replace(data / "training.parquet", "late", pa.array([None] * 100 + late[100:], pa.bool_()))
    assert made(data)[2]["late"].null_count == 100


@pytest.mark.usefixtures("unjudged")
def test_rows_without_a_time_or_an_id_are_left_out(data: Path) -> None:
    live = pq.read_table(data / "live" / "9.parquet")
    replace(data / "live" / "9.parquet", "id", pa.array([None] * 5 + live["id"].to_pylist()[5:]))
    replace(
        data / "live" / "9.parquet",
        "time",
        pa.array([*live["time"].to_pylist()[:-3], None, None, None], live.schema[0].type),
    )
    training = pq.read_table(data / "training.parquet")
    replace(data / "training.parquet", "id", pa.array([None] * 7 + training["id"].to_pylist()[7:]))
    _, manifest, _ = made(data)
    assert manifest.live.dropped == {"no_id": 5, "no_time": 3}
    assert manifest.training.dropped == {"no_id": 7}


@pytest.mark.usefixtures("unjudged")
def test_sliding_keeps_the_newest_rows_of_both_sides(data: Path) -> None:
    _, manifest, table = made(data, refresh={"policy": "sliding", "span": "6d"})
    newest = START + 12 * DAY - DAY / PER_DAY
    assert min(table["time"].to_pylist()) > newest - 6 * DAY
    assert table.num_rows == 6 * PER_DAY
    assert manifest.training.dropped == {"before_span": 6 * PER_DAY}


@pytest.mark.usefixtures("unjudged")
def test_stratified_shares_the_cap_out(data: Path) -> None:
    carrier = pa.array((["DL"] * 10 + ["UA"] * 145 + ["AA"] * 145) * 8)
    replace(data / "training.parquet", "carrier", carrier)
    _, manifest, table = made(
        data, refresh={"policy": "stratified", "by": ["carrier"], "max_rows": 500, "live": "1d"}
    )
    counts = {group.values[0]: group.taken for group in manifest.groups}
    assert counts["DL"] == 80  # all there are
    assert counts["AA"] == counts["UA"] == 210
    assert table["carrier"].to_pylist().count("UA") == 210
    assert {g.values[0]: g.rows for g in manifest.groups}["DL"] == 80


@pytest.mark.usefixtures("unjudged")
def test_stratified_by_time_takes_as_much_of_each_window(data: Path) -> None:
    _, manifest, table = made(data, refresh={"policy": "stratified", "by": ["time"], "max_rows": 600})
    days = [time.date() for time in table["time"].to_pylist()]
    assert {days.count(day) for day in set(days)} == {50}
    assert manifest.groups[0].values == ("2024-03-01T00:00Z",)


def test_a_source_without_times_is_taken_whole(data: Path) -> None:
    settings = {"source": {"path": str(data / "live" / "*"), "timestamp": None}}
    result = refresh(request(data, until=None, **settings))
    assert sum(result.rows.values()) == 12 * PER_DAY
    assert result.path.name.startswith("undated-")
    manifest = read_manifest(result.path)
    assert [(window.window, window.taken) for window in manifest.windows] == [(None, True)]
    assert rebuild(result.path) == result


# -- quality -------------------------------------------------------------------------------------------


def test_windows_with_broken_data_are_left_out_and_named(data: Path) -> None:
    replace(data / "live" / "9.parquet", "speed", pa.nulls(PER_DAY, pa.float64()))
    result, manifest, table = made(data)
    assert len(result.left_out) == 1
    assert result.left_out[0].startswith("2024-03-10T00:00Z .. 2024-03-11T00:00Z: broken: speed: ")
    assert table.num_rows == 11 * PER_DAY
    assert table["speed"].null_count == 0
    assert [window.taken for window in manifest.windows] == [True, False, True, True]
    assert "9.parquet" not in {file.name for file in manifest.inputs.live}
    assert rebuild(result.path) == result


def test_a_file_that_cannot_be_read_costs_its_window_only(data: Path) -> None:
    path = data / "live" / "9.parquet"
    raw = bytearray(path.read_bytes())
    raw[4:600] = bytes(596)
    path.write_bytes(raw)
    result, _, table = made(data)
    assert table.num_rows == 11 * PER_DAY
    assert [text.partition(": ")[2].partition(":")[0] for text in result.left_out] == ["cannot_judge"]


def test_a_window_without_rows_is_named(data: Path) -> None:
    (data / "live" / "9.parquet").unlink()
    assert [text.split(": ", 1)[1] for text in made(data)[0].left_out] == ["no_data: the window has no rows"]


def test_nothing_usable_is_an_error(data: Path) -> None:
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", "speed", pa.nulls(PER_DAY, pa.float64()))
    with pytest.raises(RefreshError, match=r"none of the 4 live windows can be used, such as .*: broken: speed"):
        refresh(request(data))


@pytest.mark.usefixtures("unjudged")
def test_no_labelled_live_row_is_an_error(data: Path) -> None:
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", "late", pa.nulls(PER_DAY, pa.bool_()))
    with pytest.raises(RefreshError, match=r"of 1,200 live rows none can be taken \(1,200 no label\)"):
        refresh(request(data))
    assert not [path for path in (data / "out").iterdir() if path.name != ".lock"]


def live_windows(*taken: bool) -> list[LiveWindow]:
    return [
        LiveWindow(window=window, rows=1, verdict="ok" if kept else "broken", taken=kept, reason="")
        for window, kept in zip(
            windows_of(Window(start=UNTIL - len(taken) * DAY, end=UNTIL), DAY), taken, strict=True
        )
    ]


def test_the_oldest_window_may_begin_before_the_stretch() -> None:
    stretch = Window(start=UNTIL - 2.5 * DAY, end=UNTIL)
    windows = windows_of(stretch, DAY)
    assert [(w.start, w.end) for w in windows] == [(UNTIL - k * DAY, UNTIL - (k - 1) * DAY) for k in (3, 2, 1)]
    assert stretches(live_windows(True, True, True), stretch) == [stretch]


def test_windows_that_follow_each_other_are_read_together() -> None:
    whole = Window(start=UNTIL - 5 * DAY, end=UNTIL)
    found = stretches(live_windows(True, True, False, True, False), whole)
    assert found == [
        Window(start=UNTIL - 5 * DAY, end=UNTIL - 3 * DAY),
        Window(start=UNTIL - 2 * DAY, end=UNTIL - DAY),
    ]


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every window: what is tested is what happens to its rows."""

    def judge(_check: Any, windows: Any, _judged: Any) -> tuple[LiveWindow, ...]:
        return tuple(LiveWindow(window=w, rows=PER_DAY, verdict="ok", taken=True, reason="") for w in windows)

    monkeypatch.setattr(refreshing, "judge", judge)


# -- types ---------------------------------------------------------------------------------------------


def as_text(table: pa.Table, path: Path) -> None:
    lines = [json.dumps(row, default=str) for row in table.to_pylist()]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.usefixtures("unjudged")
def test_live_text_becomes_what_the_training_file_has(data: Path) -> None:
    table = pq.read_table(data / "training.parquet")
    ids = pa.array(np.arange(table.num_rows))
    pq.write_table(table.set_column(1, "id", ids), data / "training.parquet")
    for day in range(8, 12):
        live = rows(day, 1, seed=day)
        as_text(
            live.set_column(1, "id", pa.array([str(10_000 * day + i) for i in range(PER_DAY)])),
            data / "live" / f"{day}.jsonl",
        )
        (data / "live" / f"{day}.parquet").unlink()
    _, manifest, found = made(data)
    assert manifest.schema_["id"] == "int64"
    assert found.num_rows == 12 * PER_DAY
    assert 90_299 in found["id"].to_pylist()


@pytest.mark.usefixtures("unjudged")
def test_training_text_is_read_by_its_values(data: Path) -> None:
    table = pq.read_table(data / "training.parquet")
    table = table.set_column(1, "id", pa.array([f"{i:05d}" for i in range(table.num_rows)]))
    as_text(table, data / "training.jsonl")
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", "id", pa.array([f"{day}{i:05d}" for i in range(PER_DAY)]))
    result, manifest, found = made(data, reference=str(data / "training.jsonl"))
    assert manifest.schema_ == {
        "time": "timestamp[us, tz=UTC]",
        "id": "string",
        "speed": "double",
        "carrier": "string",
        "late": "bool",
    }
    assert {"00007", "800007"} <= set(found["id"].to_pylist())
    assert rebuild(result.path) == result


ZONE = "America/New_York"
EST = ZoneInfo(ZONE)


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (lambda t: t.cast(pa.timestamp("ns", ZONE)), datetime(2024, 3, 9, 0, 4, 48, tzinfo=UTC)),
        (
            lambda t: pa.array([v.astimezone(EST).replace(tzinfo=None) for v in t.to_pylist()]),
            datetime(2024, 3, 8, 19, 4, 48),
        ),
        (lambda t: pa.array([v.astimezone(EST).date() for v in t.to_pylist()]), date(2024, 3, 8)),
        (lambda t: pa.array([v.isoformat() for v in t.to_pylist()]), "2024-03-09T00:04:48.000000Z"),
    ],
    ids=["other zone", "no zone", "day", "text"],
)
def test_event_times_are_written_as_the_training_file_writes_them(data: Path, times: Any, expected: Any) -> None:
    table = pq.read_table(data / "training.parquet")
    wanted = times(table["time"])
    pq.write_table(table.set_column(0, "time", wanted), data / "training.parquet")
    _, _, found = made(data, source={"timezone": ZONE})
    assert found.schema.field("time").type == wanted.type
    second = found.filter(pa.compute.equal(found["id"], "row-8-1"))
    assert second["time"].to_pylist() == [expected]


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    ("column", "training", "live", "expected"),
    [
        ("late", pa.array([0, 1] * 1200), pa.array([True, False] * 150), [1, 0]),
        ("late", pa.array([True, False] * 1200), pa.array([0, 1] * 150), [False, True]),
        ("late", pa.array([True, False] * 1200), pa.array([0.0, 1.0] * 150), [False, True]),
        ("speed", pa.array([1.0] * 2400), pa.array([Decimal("0.3"), None] * 150), [0.3, None]),
        ("speed", pa.array([1.0] * 2400, pa.float32()), pa.array([2, 3] * 150), [2.0, 3.0]),
        ("carrier", pa.array(["1"] * 2400), pa.array([7, None] * 150), ["7", None]),
        (
            "carrier",
            pa.array(["a"] * 2400, pa.large_string()),
            pa.array(["b", "c"] * 150).dictionary_encode(),
            ["b", "c"],
        ),
        ("carrier", pa.array(["a", None] * 1200).dictionary_encode(), pa.array(["b", "c"] * 150), ["b", "c"]),
    ],
)
def test_live_values_become_the_training_files_type(
    data: Path, column: str, training: pa.Array, live: pa.Array, expected: list[Any]
) -> None:
    replace(data / "training.parquet", column, training)
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", column, live)
    _, _, found = made(data)
    target = training.type.value_type if isinstance(training.type, pa.DictionaryType) else training.type
    assert found.schema.field(column).type == target
    values = dict(zip(found["id"].to_pylist(), found[column].to_pylist(), strict=True))
    assert [values["row-9-0"], values["row-9-1"]] == expected


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    ("column", "live", "message"),
    [
        ("late", pa.array([0, 2] * 150), r"column 'late' of the live data is int64, which cannot become the bool"),
        ("speed", pa.array(["fast", "1"] * 150), r"'speed' .* string, which cannot become the double .*'fast'"),
        (
            "speed",
            pa.array([[1.0]] * 300),
            r"'speed' of the live data is list<.*>, which cannot become the double",
        ),
        (
            "carrier",
            pa.array([1.5, 2.5] * 150),
            r"'carrier' of the live data is double, which cannot become the string of the training file: double",
        ),
    ],
)
def test_values_that_do_not_fit_are_an_error(data: Path, column: str, live: pa.Array, message: str) -> None:
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", column, live)
    with pytest.raises(SchemaError, match=message):
        refresh(request(data))


@pytest.mark.usefixtures("unjudged")
def test_columns_that_the_live_rows_lack_are_named_and_others_dropped(data: Path) -> None:
    for day in range(8, 12):
        path = data / "live" / f"{day}.parquet"
        table = pq.read_table(path).append_column("debug", pa.array(["x"] * PER_DAY))
        pq.write_table(table, path)
    _, manifest, found = made(data)
    assert manifest.dropped_columns == ("debug",)
    assert "debug" not in found.schema.names
    table = pq.read_table(data / "training.parquet")
    pq.write_table(table.append_column("aged", pa.array([1.0] * 2400)), data / "training.parquet")
    with pytest.raises(SchemaError, match=r"the live data lacks 'aged', which the training file has: log it"):
        refresh(request(data))


@pytest.mark.usefixtures("unjudged")
def test_ids_may_be_of_another_type_every_day(data: Path) -> None:
    replace(data / "live" / "9.parquet", "id", pa.array(np.arange(PER_DAY)))
    replace(data / "live" / "10.parquet", "id", pa.array([f"{i:03d}" for i in range(PER_DAY)]))
    _, manifest, found = made(data)
    assert manifest.live.taken == 4 * PER_DAY - 200
    assert {"7", "007", "299"} <= set(found["id"].to_pylist())


def test_a_day_of_another_type_costs_itself_only(data: Path) -> None:
    replace(data / "live" / "9.parquet", "speed", pa.array(["fast"] * PER_DAY))
    result, _, table = made(data)
    assert table.num_rows == 11 * PER_DAY
    assert len(result.left_out) == 1
    assert "speed" in result.left_out[0]


# -- hostile ids ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unjudged")
def test_long_strange_and_broken_ids(data: Path) -> None:
    strange = ["x" * 1_000_000 + str(i) for i in range(5)] + [
        "",
        " ",
        "\0",
        "é",
        "e\u0301",
        "\u202e",
        "🛬",
        "'; --",
    ]
    ids = rows(8, 1, seed=8)["id"].to_pylist()
    raw = [each.encode() for each in [*strange, *ids[len(strange) :]]]
    raw[50] = b"\xff\xfe"
    column = pa.Array.from_buffers(pa.string(), PER_DAY, pa.array(raw, pa.binary()).buffers())
    replace(data / "live" / "8.parquet", "id", column)
    result, _, found = made(data)
    texts = found["id"].cast(pa.large_string()).combine_chunks().cast(pa.large_binary()).to_pylist()
    assert set(raw) <= set(texts)
    assert len(set(texts)) == 12 * PER_DAY
    assert rebuild(result.path) == result


@pytest.mark.usefixtures("unjudged")
def test_one_long_id_on_every_row_is_one_row(data: Path) -> None:
    replace(data / "live" / "8.parquet", "id", pa.array(["x" * 100_000] * PER_DAY))
    _, manifest, _ = made(data)
    assert manifest.live.dropped == {"duplicate": PER_DAY - 1}


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    "live", [pa.array([str(i) for i in range(300)]), pa.array([Decimal(i) for i in range(300)])]
)
def test_numbers_texts_and_decimals_are_the_same_id(data: Path, live: pa.Array) -> None:
    replace(data / "training.parquet", "id", pa.array(np.arange(2400)))
    for day in range(8, 12):
        replace(data / "live" / f"{day}.parquet", "id", live)
    _, manifest, found = made(data)
    assert manifest.training.dropped == {"replaced": 300}
    assert manifest.live.dropped == {"duplicate": 900}
    assert sorted(found["id"].to_pylist()) == list(range(2400))


# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"id": None}}, "columns.id is not set"),
        ({"columns": {"label": None}}, "columns.label is not set"),
        ({"columns": {"label": "truth"}}, r"has no column 'truth' \(columns.label\)"),
        ({"refresh": {"policy": "stratified", "by": ["tail"], "max_rows": 5}}, r"no column 'tail' \(refresh.by\)"),
        ({"training": "/nowhere.parquet"}, "'/nowhere.parquet' cannot be read"),
        (
            {"source": {"timestamp": None}, "refresh": {"policy": "sliding", "span": "3d"}},
            "policy sliding needs event times",
        ),
    ],
)
def test_what_is_missing_is_said(data: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DriftMonitorError, match=message):
        refresh(request(data, **settings))


def test_a_reference_folder_keeps_no_rows(data: Path) -> None:
    (data / "reference").mkdir()
    with pytest.raises(RefreshError, match=r"keeps no rows: set monitors\.m\.training to the file"):
        refresh(request(data, reference=str(data / "reference")))


# -- rebuilding ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unjudged")
def test_a_version_that_lost_files_is_made_again(data: Path) -> None:
    result = refresh(request(data))
    train = result.train.read_bytes()
    result.train.unlink()
    (result.path / "test.parquet").write_bytes(b"damaged")
    assert rebuild(result.path / "manifest.json") == result
    assert result.train.read_bytes() == train
    elsewhere = rebuild(result.path, data / "elsewhere")
    assert elsewhere.train.read_bytes() == train
    assert elsewhere.path.name == result.path.name


@pytest.mark.usefixtures("unjudged")
def test_a_rebuild_reads_the_files_of_then(data: Path) -> None:
    for day in range(8, 12):
        as_text(rows(day, 1, seed=day), data / "live" / f"{day}.jsonl")
        (data / "live" / f"{day}.parquet").unlink()
    result = refresh(request(data))
    as_text(rows(9, 1, seed=3, ids="late"), data / "live" / "late.jsonl")
    with (data / "live" / "11.jsonl").open("a") as log:
        log.write(json.dumps(rows(11, 1, seed=4, ids="more").to_pylist()[0], default=str) + "\n")
    assert rebuild(result.path) == result
    assert refresh(request(data)).sha256 != result.sha256


@pytest.mark.usefixtures("unjudged")
def test_files_of_a_spool_that_were_put_together_since(data: Path) -> None:
    spool = data / "spool"
    spool.mkdir()
    for number in range(1, 5):
        pq.write_table(rows(7 + number, 1, seed=number), spool / piece_name(number, number, START))
    source = PushSource(type="push", spool=spool, timestamp="time")
    plain = request(data)
    result = refresh(plain.model_copy(update={"monitor": plain.monitor.model_copy(update={"source": source})}))
    assert len(read_manifest(result.path).inputs.live) == 4

    def together(first: int, last: int, *more: pa.Table) -> None:
        pieces = [path for n in range(first, last + 1) for path in spool.glob(f"*-{n:012d}-{n:012d}.parquet")]
        pq.write_table(
            pa.concat_tables([*map(pq.read_table, pieces), *more]), spool / piece_name(first, last, START)
        )
        for path in pieces[1:]:  # the first one is still there, and counts no more
            path.unlink()

    together(1, 3)
    assert rebuild(result.path) == result
    late = rows(30, 1, seed=9)
    pq.write_table(late, spool / piece_name(5, 5, START))
    together(4, 5)
    assert rebuild(result.path) == result  # what came later lies outside the stretch
    (spool / piece_name(4, 5, START)).unlink()
    pq.write_table(
        pa.concat_tables([rows(11, 1, seed=4), rows(11, 1, seed=5, ids="late")]), spool / piece_name(4, 6, START)
    )
    with pytest.raises(RefreshError, match=r"put together since, maybe with rows that came later: train\.parquet"):
        rebuild(result.path)
    for last in (4, 6):
        (spool / piece_name(4, last, START)).unlink()
    with pytest.raises(RefreshError, match=r"0004\.parquet cannot be read \(No such file"):
        rebuild(result.path)


@pytest.mark.usefixtures("unjudged")
def test_an_input_that_changed_is_named(data: Path) -> None:
    result = refresh(request(data))
    replace(data / "live" / "9.parquet", "speed", pa.array([1.0] * PER_DAY))
    with pytest.raises(RefreshError, match=r"the live rows are not the same as then: .*9\.parquet has changed"):
        rebuild(result.path)
    (data / "live" / "9.parquet").unlink()
    with pytest.raises(RefreshError, match=r"9\.parquet cannot be read \(No such file or directory\)"):
        rebuild(result.path)


@pytest.mark.usefixtures("unjudged")
def test_other_bytes_are_told_with_the_packages_that_changed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = refresh(request(data))
    versions = {**refreshing.versions(), "pyarrow": "999"}
    monkeypatch.setattr(refreshing, "versions", lambda: versions)
    assert rebuild(result.path) == result  # the bytes are the same
    monkeypatch.setattr("drift_monitor.actions.sorted_files.GROUP_ROWS", 100)
    with pytest.raises(
        RefreshError, match=r"train\.parquet, test\.parquet .* other bytes: pyarrow .* then, 999 now"
    ):
        rebuild(result.path)


@pytest.mark.usefixtures("unjudged")
def test_a_manifest_that_was_edited_is_refused(data: Path) -> None:
    result = refresh(request(data))
    path = result.path / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RefreshError, match="was changed after it was written"):
        rebuild(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "is not JSON"), ('{"format": 1}', "is no manifest of")],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RefreshError, match=message):
        rebuild(tmp_path / "manifest.json")


# -- the process and the command -----------------------------------------------------------------------


def test_the_child_gives_the_same_version_and_says_what_went_wrong(data: Path) -> None:
    assert run_refresh(request(data), timedelta(minutes=2)) == refresh(request(data))
    with pytest.raises(ProcessError, match=r"the training set of m failed: columns\.id is not set"):
        run_refresh(request(data, columns={"id": None}), timedelta(minutes=2))


def test_labels_are_counted(data: Path) -> None:
    late = pq.read_table(data / "live" / "9.parquet")["late"].to_pylist()
    replace(data / "live" / "9.parquet", "late", pa.array([None] * 75 + late[75:], pa.bool_()))
    window = Window(start=START + 9 * DAY, end=START + 10 * DAY)
    asked = LabelsRequest(name="m", monitor=monitor(data), state=data / "state", window=window)
    found = run_labels(asked, timedelta(minutes=2))
    assert (found.rows, found.labelled, found.share) == (300, 225, 0.75)
    empty = count_labels(asked.model_copy(update={"window": Window(start=UNTIL, end=UNTIL + DAY)}))
    assert (empty.rows, empty.share) == (0, 0.0)
    with pytest.raises(SchemaError, match=r"no column 'truth' \(columns.label\); it has 'time', 'id'"):
        count_labels(asked.model_copy(update={"monitor": monitor(data, columns={"label": "truth"})}))


@pytest.fixture
def config(data: Path) -> Path:
    path = data / "drift-monitor.yaml"
    path.write_text(
        json.dumps(
            {"state": "state", "monitors": {"m": json.loads(monitor(data).model_dump_json(exclude_none=True))}}
        )
    )
    return path


def test_the_command_makes_a_version_and_tells_of_it(
    data: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(data / "live" / "9.parquet", "speed", pa.nulls(PER_DAY, pa.float64()))
    arguments = ["refresh", "--config", str(config), "--until", UNTIL.isoformat()]
    assert main([*arguments, "--max-rows", "1000"]) == 0
    text = capsys.readouterr().out
    assert "1 of 4 live windows are left out" in text
    assert "are over the cap" in text
    version = Path(text.splitlines()[-1])
    assert version.parent == data / "state" / "training" / "m"
    assert sum(part.rows for part in read_manifest(version).parts) == 1000
    assert main([*arguments, "--policy", "sliding", "--span", "2d", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["span"] == "2d"
    assert main(["refresh", "--rebuild", printed["path"]]) == 0
    assert capsys.readouterr().out.splitlines() == ["the same bytes as before", printed["path"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "sliding"], "`span` goes with"),
        (["--policy", "stratified"], "needs `by` and `max_rows`"),
        (["--live", "soon"], "live: a duration needs"),
        (["--rebuild", "x", "--live", "3d"], "takes everything but --output"),
    ],
)
def test_wrong_usage(config: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refresh", "--config", str(config), *options]) == 64
    assert message in capsys.readouterr().err


def test_check_config_tells_what_a_refresh_lacks(data: Path) -> None:
    build_reference(
        data / "training.parquet",
        data / "reference",
        columns=Columns(),
        timestamp="time",
        bucket=timedelta(hours=1),
        created=UNTIL,
    )
    text = """\
monitors:
  m:
    reference: reference
    source: {path: live/*, timestamp: %s}
    schedule: {every: 1d}
    columns: {id: id, label: late}
    refresh: %s
"""
    settings = "{enabled: true, policy: stratified, by: [carier], max_rows: 5}"
    found = examine_layers(text % ("time", settings), data / "c.yaml").problems
    said = [(p.line, p.path.removeprefix("monitors.m."), p.message) for p in found if "refresh" in p.path]
    assert said == [
        (7, "refresh.enabled", "`reference` is a folder, which keeps no rows: set `training` too"),
        (7, "refresh.by[0]", "unknown column in the reference, did you mean `carrier`?"),
    ]
    found = examine_layers(text % ("null", "{enabled: true, policy: sliding, span: 3d}"), data / "c.yaml").problems
    assert "sliding needs event times: set source.timestamp" in [p.message for p in found]
    off = examine_layers(text % ("time", settings.replace("true", "false")), data / "c.yaml").problems
    assert not [p for p in off if "refresh" in p.path]
    with_rows = text % ("time", settings.replace("carier", "carrier")) + "    training: training.parquet\n"
    assert not [p for p in examine_layers(with_rows, data / "c.yaml").problems if not p.warning]


@pytest.mark.usefixtures("unjudged")
def test_what_a_killed_process_left_is_removed(data: Path) -> None:
    left = data / "out" / ".building-abc"
    (left / "version").mkdir(parents=True)
    (left / "version" / "train.parquet").write_bytes(b"half")
    result = refresh(request(data))
    assert {path.name for path in (data / "out").iterdir()} == {".lock", result.path.name}


def test_a_folder_with_odd_bytes_in_its_name(data: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(data) + b"/\xff"))
    odd.mkdir()
    for path in (data / "training.parquet", data / "live"):
        path.rename(odd / path.name)
    (data / "plain").symlink_to(odd)
    asked = request(data / "plain").model_copy(update={"output": odd / "out"})
    assert sum(refresh(asked).rows.values()) == 12 * PER_DAY


# -- docs/refresh.md -----------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "refresh.md"


def test_the_formula_in_the_documentation_is_right() -> None:
    found = doctest.testfile(str(DOCS), module_relative=False)
    assert found.failed == 0
    assert found.attempted >= 4


@pytest.mark.parametrize(
    ("column", "settings"),
    [
        (6, {}),
        (7, {"max_rows": 4}),
        (8, {"policy": "sliding", "span": "6d"}),
        (9, {"policy": "stratified", "by": ["carrier"], "max_rows": 4}),
    ],
)
def test_the_example_in_the_documentation_is_right(tmp_path: Path, column: int, settings: dict[str, Any]) -> None:
    lines = [line for line in DOCS.read_text().splitlines() if re.match(r"\| F\d", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) == 9
    for side in ("training", "live"):
        mine = [each for each in cells if each[1] == side]
        table = pa.table(
            {
                "time": pa.array([datetime.fromisoformat(f"2024-{each[2]}T12:00Z") for each in mine]),
                "id": [each[0] for each in mine],
                "carrier": [each[3] for each in mine],
                "late": pa.array([None if each[0] == "F6" else True for each in mine]),
            }
        )
        pq.write_table(table, tmp_path / f"{side}.parquet")
    recipe = Recipe(
        training=str(tmp_path / "training.parquet"),
        source=FilesSource(path=str(tmp_path / "live.parquet"), timestamp="time"),
        columns=Columns(id="id", label="late"),
        settings=Refresh.model_validate(settings, strict=False),
        window=DAY,
    )
    Inputs(recipe, tmp_path).write([Window(start=START, end=START + 10 * DAY)], tmp_path, Progress(None))
    found = {
        (row["id"], row["time"].strftime("%m-%d")): part
        for part in ("train", "test")
        for row in pq.read_table(tmp_path / f"{part}.parquet").to_pylist()
    }
    expected = {(each[0], each[2]): each[column] for each in cells if each[column] in ("train", "test")}
    assert found == expected
    for each in cells:
        digest = blake2b(f"0:{each[0]}".encode(), digest_size=24).digest()
        shown = [f"{int.from_bytes(digest[i : i + 8], 'big') / 2**64:.3f}".lstrip("0") for i in (8, 16)]
        assert each[4:6] == shown
