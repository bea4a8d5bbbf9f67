"""Bad data, each kind from a configuration file on: the right verdict, a sentence that names what and where."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.file import load
from drift_monitor.core.types import Window
from drift_monitor.service.evaluate import CheckRequest, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PER_DAY = 1500
LIVE = START + 14 * DAY
CONFIG = """\
state: state
monitors:
  m:
    reference: training.parquet
    source: {{path: "{path}", timestamp: time}}
    schedule: {{every: 1d}}
    columns: {{prediction: score, id: id}}
"""


def rows(days: int, seed: int, start: datetime) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * PER_DAY
    return pa.table(
        {
            "time": pa.array([start + DAY * (i / PER_DAY) for i in range(n)], pa.timestamp("us", "UTC")),
            "id": [f"{seed}-{i}" for i in range(n)],
            "speed": rng.normal(100, 10, n),
            "carrier": rng.choice(["UA", "AA", "DL"], n, p=[0.5, 0.3, 0.2]),
            "late": rng.random(n) < 0.3,
            "score": rng.random(n),
        }
    )


def live() -> pa.Table:
    return rows(1, 2, LIVE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad-input")
    pq.write_table(rows(14, 1, START), folder / "training.parquet")
    (folder / "live").mkdir()
    return folder


@pytest.fixture(autouse=True)
def clean(folder: Path) -> None:
    for path in (folder / "live").iterdir():
        path.unlink()


def configured(folder: Path, path: str = "live/*") -> Path:
    (folder / "config.yaml").write_text(CONFIG.format(path=path))
    return folder / "config.yaml"


def check(folder: Path, path: str = "live/*") -> dict[str, Any]:
    """What a worker makes of the live day, as JSON."""
    config = load(configured(folder, path))
    window = Window(start=LIVE, end=LIVE + DAY)
    result = evaluate(CheckRequest(name="m", monitor=config.monitors["m"], state=config.state, window=window))
    parsed: dict[str, Any] = json.loads(result.model_dump_json())
    return parsed


def command(folder: Path, limit: str = "") -> dict[str, Any]:
    """The same by `drift-monitor check --json`, in a process of its own with limits."""
    window = f"{LIVE:%Y-%m-%d}/{LIVE + DAY:%Y-%m-%d}"
    line = (
        f'{limit} exec "{sys.executable}" -m drift_monitor check m --config config.yaml --window {window} --json'
    )
    configured(folder)
    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (3 if result["verdict"] in {"no_data", "cannot_judge"} else 0), done.stderr
    return result


def write(folder: Path, table: pa.Table, name: str = "a.parquet") -> None:
    # without the Arrow schema, as others write it: nothing tells the reader that a column was a dictionary
    pq.write_table(table, folder / "live" / name, store_schema=False)


def replaced(name: str, column: Any) -> pa.Table:
    table = live()
    return table.set_column(table.schema.get_field_index(name), name, column)


def test_good_data_is_ok(folder: Path) -> None:
    write(folder, live())
    for result in (check(folder), command(folder)):
        assert (result["verdict"], result["rows"]) == ("ok", PER_DAY)


# -- cannot be read --------------------------------------------------------------------------------------


def truncated(folder: Path) -> None:
    write(folder, live())
    path = folder / "live" / "a.parquet"
    path.write_bytes(path.read_bytes()[:-1000])


def two_schemas(folder: Path) -> None:
    write(folder, live().slice(0, 700), "a.parquet")
    write(folder, replaced("speed", pa.array(["fast"] * PER_DAY)).slice(700), "b.parquet")


def bad_json(folder: Path) -> None:
    lines = [json.dumps(row, default=lambda t: t.isoformat()) for row in live().to_pylist()]
    lines[900] = lines[900][:40]
    (folder / "live" / "a.jsonl").write_text("\n".join(lines) + "\n")


def bad_csv(folder: Path) -> None:
    rest = "x" * 3000  # long rows: the bad one is far behind the rows that settle the types
    lines = [f"{r['time'].isoformat()},{r['id']},{r['speed']},UA,true,0.5,{rest}" for r in live().to_pylist()]
    lines[1450] = lines[1450].replace(",UA", "fast,UA")
    (folder / "live" / "a.csv").write_text("time,id,speed,carrier,late,score,rest\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("damage", "failure", "message"),
    [
        (lambda folder: None, "source", r"no file matches '.*live/\*'"),
        (truncated, "source", r"live/a\.parquet' is not a whole Parquet file"),
        (lambda f: (f / "live" / "a.parquet").touch(), "source", r"a\.parquet' is empty \(0 bytes\)"),
        (lambda f: (f / "live" / "a.parquet").mkdir(), "source", r"no file matches"),
        (lambda f: (f / "live" / "a.txt").write_text("x"), "source", r"cannot tell the format of '.*a\.txt'"),
        (two_schemas, "schema", r"column 'speed' is string in '.*b\.parquet' but double in '.*a\.parquet'"),
        (bad_json, "source", r"a\.jsonl', line 901 is not a JSON object"),
        (bad_csv, "schema", r"a\.csv', row 1452 \(the header is row 1\), column 'speed': .*fast'"),
        (lambda f: write(f, live().drop_columns(["time"])), "schema", r"no column 'time' \(source\.timestamp\)"),
        (
            lambda f: write(f, live().drop_columns(["id"])),
            "schema",
            r"no column 'id' \(columns\.id\); it has 'time'",
        ),
        (
            lambda f: write(f, replaced("time", live()["time"].cast(pa.int64()))),
            "schema",
            r"timestamp column 'time' holds int64: write event times as Parquet timestamps or as ISO 8601 text",
        ),
        (
            lambda f: write(f, replaced("time", pa.nulls(PER_DAY, pa.timestamp("us", "UTC")))),
            "schema",
            r"1500 of 1500 rows have no usable time in the timestamp column 'time'",
        ),
        (
            lambda f: write(
                f,
                pa.concat_tables(
                    [live(), live().append_column("x", live()["id"])], promote_options="default"
                ).append_column("speed", pa.nulls(2 * PER_DAY)),
            ),
            "schema",
            r"a\.parquet' has more than one column named 'speed'",
        ),
    ],
)
def test_what_cannot_be_read_cannot_be_judged(
    folder: Path, damage: Callable[[Path], object], failure: str, message: str
) -> None:
    damage(folder)
    try:
        result = check(folder)
    finally:
        if (folder / "live" / "a.parquet").is_dir():
            (folder / "live" / "a.parquet").rmdir()
    assert (result["verdict"], result["failure"]) == ("cannot_judge", failure), result["reason"]
    assert re.search(message, result["reason"]), result["reason"]


def test_a_missing_file_is_not_no_data(folder: Path) -> None:
    result = check(folder, path="live/gone.parquet")
    assert (result["verdict"], result["failure"]) == ("cannot_judge", "source")
    assert "live/gone.parquet' cannot be read: No such file" in result["reason"]


# -- is broken -------------------------------------------------------------------------------------------


def failed(result: dict[str, Any]) -> dict[tuple[str, str | None], str]:
    return {(q["check"], q["feature"]): q["message"] for q in result["quality"] if q["failed"]}


NUMBERS = np.array(live()["speed"])


@pytest.mark.parametrize(
    ("table", "check_name", "feature", "message"),
    [
        (lambda: live().drop_columns(["speed"]), "schema", "speed", "speed"),
        (lambda: live().drop_columns(["score"]), "schema", "score", "score"),
        (
            lambda: live().rename_columns(["time", "id", "sped", "carrier", "late", "score"]),
            "schema",
            "speed",
            "sped",
        ),
        (lambda: replaced("speed", pa.array([str(x) for x in NUMBERS])), "schema", "speed", "string"),
        (lambda: replaced("carrier", pa.array(NUMBERS)), "schema", "carrier", "double"),
        (lambda: replaced("late", pa.array(["yes"] * PER_DAY)), "schema", "late", "string"),
        (lambda: replaced("speed", pa.nulls(PER_DAY, pa.float64())), "null_rate", "speed", "100"),
        (lambda: replaced("speed", pa.nulls(PER_DAY)), "null_rate", "speed", "100"),
        (lambda: replaced("speed", pa.array(np.full(PER_DAY, np.nan))), "null_rate", "speed", "100"),
        (lambda: replaced("carrier", pa.nulls(PER_DAY, pa.string())), "null_rate", "carrier", "100"),
        (
            lambda: replaced("speed", pa.array(np.where(np.arange(PER_DAY) % 3 == 0, np.inf, NUMBERS))),
            "null_rate",
            "speed",
            "33",
        ),
        (
            lambda: replaced("speed", pa.array(np.where(np.arange(PER_DAY) % 3 == 0, -np.inf, NUMBERS))),
            "null_rate",
            "speed",
            "33",
        ),
        (lambda: replaced("speed", pa.array(np.full(PER_DAY, 99.0))), "constant", "speed", "99"),
        (lambda: replaced("speed", pa.array(NUMBERS * 1e300)), "out_of_range", "speed", "speed"),
        (lambda: replaced("id", pa.array(["same"] * PER_DAY)), "duplicates", None, "id"),
        (
            lambda: replaced("carrier", pa.array([f"c{i % 100_000}" for i in range(PER_DAY)])),
            "unseen",
            "carrier",
            "carrier",
        ),
    ],
)
def test_what_is_not_as_in_training_is_broken(
    folder: Path, table: Callable[[], pa.Table], check_name: str, feature: str | None, message: str
) -> None:
    write(folder, table())
    result = check(folder)
    assert result["verdict"] == "broken", result["reason"]
    found = failed(result)
    assert (check_name, feature) in found, found
    assert message in found[check_name, feature]
    assert result["reason"]


HOSTILE = [
    "\ud800",
    '"quoted"',
    "'); DROP TABLE runs;--",
    "new\nline",
    "</script><script>alert(1)</script>",
    "\0",
    "",
    "💥",
]


def hostile_parquet(folder: Path) -> None:
    texts = [(HOSTILE[i % len(HOSTILE)]).encode("utf-8", "surrogatepass") for i in range(PER_DAY)]
    # Parquet itself does not look whether text is UTF-8
    column = pa.array(texts, pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    write(folder, replaced("carrier", column))


def hostile_csv(folder: Path) -> None:
    lines = ["time,id,speed,carrier,late,score"]
    for i, row in enumerate(live().to_pylist()):
        text = HOSTILE[i % len(HOSTILE)].replace('"', '""')
        lines.append(
            f'{row["time"].isoformat()},{row["id"]},{row["speed"]},"{text}",{row["late"]},{row["score"]}'.lower()
        )
    (folder / "live" / "a.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("hostile", [hostile_parquet, hostile_csv])
def test_hostile_categories_are_data(folder: Path, hostile: Callable[[Path], None]) -> None:
    hostile(folder)
    result = check(folder)
    assert result["verdict"] == "broken", result["reason"]
    assert ("unseen", "carrier") in failed(result)
    said = json.dumps(result)
    assert json.loads(said) == result
    said.encode("utf-8")  # no lone surrogate is left to break a scrape or a page
    said = json.dumps(result, ensure_ascii=False)
    said.encode("utf-8")


def test_a_hundred_thousand_categories(folder: Path) -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "time": pa.array([LIVE + DAY * (i / n) for i in range(n)], pa.timestamp("us", "UTC")),
            "id": [f"r{i}" for i in range(n)],
            "speed": rng.normal(100, 10, n),
            "carrier": [f"carrier {i}" for i in range(n)],
            "late": rng.random(n) < 0.3,
            "score": rng.random(n),
        }
    )
    write(folder, table)
    result = check(folder)
    assert result["verdict"] == "broken", result["reason"]
    assert ("unseen", "carrier") in failed(result)
    assert len(json.dumps(result)) < 200_000


# -- times -----------------------------------------------------------------------------------------------


def test_an_empty_window_is_no_data(folder: Path) -> None:
    write(folder, rows(1, 2, LIVE + 5 * DAY))
    result = check(folder)
    assert (result["verdict"], result["rows"], result["failure"]) == ("no_data", 0, None)
    assert result["reason"]


def test_an_empty_file_of_the_right_columns_is_no_data(folder: Path) -> None:
    write(folder, live()[:0])
    assert check(folder)["verdict"] == "no_data"


@pytest.mark.parametrize("year", [1, 1900, 2262, 2263, 9999])
def test_times_that_no_log_has_are_counted_and_many_are_refused(folder: Path, year: int) -> None:
    for count, verdict in ((10, "ok"), (300, "cannot_judge"), (PER_DAY, "cannot_judge")):
        far = [datetime(year, 6, 1, tzinfo=UTC)] * count
        times = pa.array(far + live()["time"].to_pylist()[count:], pa.timestamp("us", "UTC"))
        write(folder, replaced("time", times))
        result = check(folder)
        assert result["verdict"] == verdict, result["reason"]
        if verdict == "ok":
            assert (result["rows"], result["invalid_rows"]) == (PER_DAY - 10, 10)
            assert result["newest_event"].startswith("2024-03-15T23:59")
        else:
            assert result["failure"] == "schema"
            assert f"{count} of {PER_DAY} rows have no usable time" in result["reason"]
            assert "outside the years 1970 to 2199" in result["reason"]


def test_the_ends_of_nanoseconds(folder: Path) -> None:
    raw = np.array(live()["time"].cast(pa.int64())) * 1000
    raw[:5], raw[5:10] = np.iinfo(np.int64).max, np.iinfo(np.int64).min + 1
    write(folder, replaced("time", pa.array(raw).cast(pa.timestamp("ns", "UTC"))))
    result = check(folder)
    assert (result["verdict"], result["rows"], result["invalid_rows"]) == ("ok", PER_DAY - 10, 10)


def test_mixed_time_zones(folder: Path) -> None:
    times = live()["time"].to_pylist()
    zones = [UTC, *(datetime.fromisoformat(f"2024-01-01T00:00:00{z}").tzinfo for z in ("+05:30", "-08:00"))]
    texts = [t.astimezone(zones[i % 3]).isoformat() for i, t in enumerate(times)]
    texts[::4] = [t.replace(tzinfo=None).isoformat() for t in times[::4]]
    write(folder, replaced("time", pa.array(texts)))
    result = check(folder)
    assert (result["verdict"], result["rows"], result["invalid_rows"]) == ("ok", PER_DAY, 0)


def test_a_few_unreadable_times_are_counted_and_many_are_refused(folder: Path) -> None:
    texts = [t.isoformat() for t in live()["time"].to_pylist()]
    texts[100:120] = ["not a time"] * 20
    write(folder, replaced("time", pa.array(texts)))
    result = check(folder)
    assert (result["verdict"], result["rows"], result["invalid_rows"]) == ("ok", PER_DAY - 20, 20)
    texts[100:300] = [""] * 200
    write(folder, replaced("time", pa.array(texts)))
    result = check(folder)
    assert (result["verdict"], result["failure"]) == ("cannot_judge", "schema")
    assert "200 of 1500 rows have no usable time in the timestamp column 'time'" in result["reason"]


# -- size ------------------------------------------------------------------------------------------------


def test_a_parquet_bomb_of_texts_stays_small(folder: Path) -> None:
    """40 GB of text in a file of 100 kB, read under a limit of 3 GB of address space for data."""
    text = "x" * 30_000_000
    codes = pa.array(np.zeros(PER_DAY, np.int32))
    write(folder, replaced("carrier", pa.DictionaryArray.from_arrays(codes, pa.array([text]))))
    result = command(folder, limit="ulimit -d 3000000;")
    assert result["verdict"] == "broken", result["reason"]
    assert ("unseen", "carrier") in failed(result)


def test_a_parquet_bomb_that_does_not_fit_ends_in_a_sentence(folder: Path) -> None:
    """4.5 GB of bytes, which are not read as a dictionary, under a limit of 1.5 GB."""
    codes = pa.array(np.zeros(PER_DAY, np.int32))
    ids = pa.DictionaryArray.from_arrays(codes, pa.array([b"x" * 3_000_000]))
    write(folder, replaced("id", ids))
    assert (folder / "live" / "a.parquet").stat().st_size < 1_000_000
    result = command(folder, limit="ulimit -d 1500000;")
    assert (result["verdict"], result["failure"]) == ("cannot_judge", "memory"), result["reason"]
    assert "ran out of memory" in result["reason"]
