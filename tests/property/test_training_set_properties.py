"""A refreshed training set against a plain-Python account of it: in any order, split of files and duplication."""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.actions import sorted_files
from drift_monitor.actions.refresh import RefreshError
from drift_monitor.actions.training_set import Inputs, Made, Progress, Recipe
from drift_monitor.config.loop import Refresh
from drift_monitor.config.models import Columns
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.types import Window

START = datetime(2024, 3, 1, tzinfo=UTC)
STRETCH = Window(start=START + timedelta(days=4), end=START + timedelta(days=8))
SCHEMA = pa.schema(
    [
        ("t", pa.timestamp("us", "UTC")),
        ("id", pa.string()),
        ("y", pa.float64()),
        ("x", pa.int64()),
        ("group", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    id: str | None
    hour: int | None
    y: float | None
    x: int
    group: str | None

    def values(self) -> tuple[Any, ...]:
        time = None if self.hour is None else START + timedelta(hours=self.hour)
        return time, self.id, self.y, self.x, self.group


# few nulls: a branch of its own would be a third or a half of all
IDS = st.sampled_from([None, "", "é", "007", "7"]) | st.text("abc", min_size=1, max_size=2) | st.text(max_size=3)


def rows(first: int, last: int) -> st.SearchStrategy[list[Row]]:
    return st.lists(
        st.builds(
            Row,
            IDS.filter(lambda text: text is None or _encodes(text)),
            st.integers(first - 4, last).map(lambda hour: None if hour < first else hour),
            st.sampled_from([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, math.nan, None]),
            st.one_of(st.integers(0, 3), st.integers(2**53, 2**53 + 3)),
            st.sampled_from([None, "p", "q", "r"]),
        ),
        min_size=8,
        max_size=25,
    )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


SETTINGS = st.sampled_from(
    [
        {},
        {"max_rows": 7},
        {"policy": "sliding", "span": "3d"},
        {"policy": "sliding", "span": "3d", "max_rows": 5},
        {"policy": "stratified", "by": ["group"], "max_rows": 8},
        {"policy": "stratified", "by": ["t", "group"], "max_rows": 6},
        {"seed": 3, "parts": {"test": 0.3, "train": 0.6, "rest": 0.1}},
    ]
)


@pytest.fixture(autouse=True, scope="module")
def small_groups() -> Iterator[None]:
    """So few rows a row group and so few open files that every way through the code is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_files, "GROUP_ROWS", 3)
        patch.setattr(sorted_files, "GROUP_BYTES", 130)
        patch.setattr(sorted_files, "_OPEN", 2)
        patch.setattr("os.fsync", lambda _handle: None)  # thousands of small files
        yield


def write(folder: Path, rows: Sequence[Row], files: int = 1) -> None:
    """Rows in files; each file with row groups of three."""
    folder.mkdir()
    for i in range(files):
        part = [row.values() for row in rows[i::files]]
        columns = list(zip(*part, strict=True)) if part else [()] * len(SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), folder / f"{i}.parquet", row_group_size=3)


def make(
    training: Sequence[Row], live: Sequence[Row], files: int = 1, **options: Any
) -> tuple[Made, dict[str, pa.Table], dict[str, str]]:
    """The set, its parts, and the hash of each part's bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "training", training, files)
        write(folder / "live", live, files)
        recipe = Recipe(
            training=str(folder / "training"),
            source=FilesSource(path=str(folder / "live"), timestamp="t"),
            columns=Columns(id="id", label="y"),
            settings=Refresh.model_validate(options, strict=False),
            window=timedelta(days=1),
        )
        (folder / "target").mkdir()
        made = Inputs(recipe, folder).write([STRETCH], folder / "target", Progress(None))
        parts = {name: folder / "target" / f"{name}.parquet" for name in recipe.settings.parts}
        tables = {name: pq.read_table(path) for name, path in parts.items()}
        hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in parts.items()}
        return made, tables, hashes


def digest(row: Row, seed: int) -> bytes:
    assert row.id is not None
    return blake2b(f"{seed}:{row.id}".encode(), digest_size=24).digest()


def expected(training: Sequence[Row], live: Sequence[Row], options: dict[str, Any]) -> dict[str, list[Any]]:
    """For each part the keys of its rows in order, (hour, x) of rows that are alone in being the best of their id.

    Written without the code under test: dictionaries and sorting.
    """
    seed, parts = options.get("seed", 0), options.get("parts", {"train": 0.8, "test": 0.2})
    sliding = options.get("policy") == "sliding"
    low, high = 4 * 24, 8 * 24
    usable = [(0, r) for r in training if r.id is not None and not (sliding and r.hour is None)]
    usable += [
        (1, r)
        for r in live
        if r.id is not None and r.hour is not None and low <= r.hour < high and r.y is not None and r.y == r.y
    ]
    best: dict[str, tuple[tuple[int, int], Row]] = {}
    for side, row in usable:
        assert row.id is not None
        rank = (side, -1 if row.hour is None else row.hour)
        if row.id not in best or rank > best[row.id][0]:
            best[row.id] = (rank, row)
    kept = [row for _, row in best.values()]
    if sliding and kept:
        newest = max(row.hour for row in kept if row.hour is not None)
        kept = [row for row in kept if row.hour is not None and row.hour > newest - 72]
    return {"kept": kept, "seed": seed, "parts": list(parts.items())}


def part_of(row: Row, seed: int, parts: Sequence[tuple[str, float]]) -> str:
    place = int.from_bytes(digest(row, seed)[8:16], "big")
    for i, (name, _) in enumerate(parts[:-1]):
        if place < math.fsum(share for _, share in parts[: i + 1]) * 2**64:
            return name
    return parts[-1][0]


@settings(deadline=None, max_examples=30)
@given(rows(0, 5 * 24), rows(3 * 24, 9 * 24), SETTINGS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_set_is_what_it_should_be_in_any_order(
    training: list[Row], live: list[Row], options: dict[str, Any], files: int, chance: random.Random
) -> None:
    plan = expected(training, live, options)
    try:
        made, tables, hashes = make(training, live, **options)
    except RefreshError:
        return  # nothing new, or nothing in the part to train on: see the unit tests
    seed, parts, kept = plan["seed"], plan["parts"], plan["kept"]
    found = {name: table["id"].to_pylist() for name, table in tables.items()}
    everyone = [each for ids in found.values() for each in ids]
    assert max(Counter(everyone).values()) == 1
    most = options.get("max_rows", 10**9)
    if len(kept) <= most:
        assert set(everyone) == {row.id for row in kept}
    else:
        assert len(everyone) == most
        assert set(everyone) <= {row.id for row in kept}
        if options.get("policy") != "stratified":
            lowest = sorted(kept, key=lambda row: digest(row, seed)[16:])[:most]
            assert set(everyone) == {row.id for row in lowest}
    by_id = {row.id: row for row in kept}
    for name, table in tables.items():
        assert table.schema.equals(SCHEMA)
        for got in table.to_pylist():
            row = by_id[got["id"]]
            assert part_of(row, seed, parts) == name
            assert got["t"] == row.values()[0]
        order = [
            (by_id[i].hour if by_id[i].hour is not None else -1, digest(by_id[i], seed)[:8]) for i in found[name]
        ]
        assert order == sorted(order)

    # nothing is lost
    assert sum(made.training.values()) == len(training)
    assert made.training.get("taken", 0) + made.live.get("taken", 0) == sum(made.rows) == len(everyone)
    inside = [row for row in live if row.hour is not None and 4 * 24 <= row.hour < 8 * 24]
    timeless = sum(row.hour is None for row in live)  # read with the rows around them, or not at all
    assert len(inside) <= sum(made.live.values()) <= len(inside) + timeless
    assert made.live.get("no_label", 0) == sum(
        row.id is not None and (row.y is None or row.y != row.y) for row in inside
    )

    # in another order, in other files, and with some rows again
    again = training + chance.sample(training, len(training) // 2)
    more = live + chance.sample(live, len(live) // 2)
    chance.shuffle(again)
    chance.shuffle(more)
    assert make(again, more, files, **options)[2] == hashes


@settings(deadline=None, max_examples=12)
@given(rows(0, 5 * 24), rows(3 * 24, 9 * 24), rows(3 * 24, 9 * 24))
def test_a_row_keeps_its_part_whatever_else_there_is(
    training: list[Row], live: list[Row], later: list[Row]
) -> None:
    try:
        before, after = make(training, live)[1], make(training, live + later)[1]
    except RefreshError:
        return
    first = {each: name for name, table in before.items() for each in table["id"].to_pylist()}
    second = {each: name for name, table in after.items() for each in table["id"].to_pylist()}
    assert first.items() <= second.items()


@settings(deadline=None, max_examples=12)
@given(
    rows(0, 5 * 24),
    rows(3 * 24, 9 * 24),
    st.sampled_from([{}, {"policy": "stratified", "by": ["group"]}]),
    st.integers(1, 20),
    st.integers(1, 10),
)
def test_caps_nest(training: list[Row], live: list[Row], options: dict[str, Any], most: int, more: int) -> None:
    try:
        small = make(training, live, max_rows=most, parts={"train": 1.0}, **options)[1]["train"]
        large = make(training, live, max_rows=most + more, parts={"train": 1.0}, **options)[1]["train"]
    except RefreshError:
        return
    assert set(map(str, small.to_pylist())) <= set(map(str, large.to_pylist()))
