from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.config.models import Columns
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec, merge
from drift_monitor.core.profile_io import (
    profiles_from_tables,
    profiles_to_table,
    specs_from_table,
    specs_to_table,
)
from drift_monitor.reference import Reference, build_reference, list_references, open_reference, version
from drift_monitor.reference.version import CURRENT, FILES, find_version

START = datetime(2024, 3, 1, tzinfo=UTC)
CREATED = datetime(2024, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
N = 3600


def training(n: int = N) -> pa.Table:
    """Ten days, shuffled in time."""
    rng = np.random.default_rng(5)
    minutes = rng.permutation(n) * (14_400 // n)
    return pa.table(
        {
            "time": pa.array([START + timedelta(minutes=int(m)) for m in minutes], pa.timestamp("us", "UTC")),
            "id": [f"r{i}" for i in range(n)],
            "speed": np.round(rng.lognormal(size=n), 3),
            "gear": rng.integers(1, 6, n),
            "carrier": rng.choice(["UA", "AA", "</script>", 'quo"te', "new\nline"], n),
            "late": rng.random(n) < 0.3,
            "born": pa.array([datetime(1980, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 9999, n)]),
            "score": rng.random(n),
            "label": rng.random(n) < 0.3,
        }
    )


COLUMNS = Columns(prediction="score", label="label", id="id", kinds={"gear": "categorical"})


def build(path: Path, folder: Path, **settings: Any) -> Reference:
    given: dict[str, Any] = {"columns": COLUMNS, "timestamp": "time", "bucket": HOUR, "created": CREATED}
    return build_reference(path, folder, **given | settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("built")
    pq.write_table(training(), folder / "training.parquet", row_group_size=700)
    return build(folder / "training.parquet", folder / "reference", split="all of March", seed=3)


@pytest.fixture
def copied(built: Reference, tmp_path: Path) -> Path:
    shutil.copytree(built.folder.parent, tmp_path / "reference")
    return tmp_path / "reference"


# -- what is built ---------------------------------------------------------------------------------------


def test_the_manifest_says_what_it_is(built: Reference) -> None:
    m = built.manifest
    assert (m.rows, m.invalid_rows, m.seed, m.split, m.bucket_length) == (N, 0, 3, "all of March", HOUR)
    assert m.version == f"2024-04-01-{m.sha256[:12]}" == built.folder.name
    assert (m.start, m.end) == (START, max(training()["time"].to_pylist()))
    assert {f.name: (f.kind, f.role) for f in m.features} == {
        "speed": ("numeric", "feature"),
        "gear": ("categorical", "feature"),
        "carrier": ("categorical", "feature"),
        "late": ("boolean", "feature"),
        "born": ("datetime", "feature"),
        "score": ("numeric", "prediction"),
    }
    assert m.schema_["gear"] == "int64"
    assert m.training.files == ("training.parquet",)
    assert m.packages.keys() == {"python", "drift-monitor", "numpy", "pyarrow", "scipy"}
    assert m.id.sha256 == m.sha256
    on_disk = json.loads((built.folder / "manifest.json").read_text())
    assert on_disk["schema"]["time"] == "timestamp[us, tz=UTC]"
    assert str(built.folder.parent) not in json.dumps(on_disk)  # says nothing of the machine


def test_the_profile_is_that_of_the_rows(built: Reference) -> None:
    table = training()
    batch = table.combine_chunks().to_batches()[0]
    expected = profile_buckets(built.specs, [batch], timestamp="time", bucket=HOUR, id_column="id")
    whole = merge(expected.values())
    assert whole is not None
    kept = [profiles_to_table({0: p}, built.specs) for p in (built.profile, whole)]
    assert kept[0] == kept[1]
    found = built.buckets()
    assert found.keys() == expected.keys()
    without_ids = profile_buckets(built.specs, [batch], timestamp="time", bucket=HOUR)
    assert profiles_to_table(found, built.specs) == profiles_to_table(without_ids, built.specs)


def test_the_cells_are_those_of_the_values(built: Reference) -> None:
    table = training()
    specs = {spec.name: spec for spec in built.specs}
    speed, carrier = specs["speed"], specs["carrier"]
    assert isinstance(speed, NumericSpec)
    assert isinstance(carrier, CategoricalSpec)
    expected = NumericSpec.fit("speed", table["speed"].to_numpy())
    assert speed.edges.tolist() == expected.edges.tolist()
    assert (speed.origin, speed.unit, speed.exact) == (expected.origin, expected.unit, expected.exact)
    assert set(carrier.categories) == set(table["carrier"].to_pylist())
    gear = specs["gear"]
    assert isinstance(gear, CategoricalSpec)
    assert set(gear.categories) == {"1", "2", "3", "4", "5"}


def test_some_features_of_the_buckets(built: Reference) -> None:
    found = built.buckets(["speed"])
    assert {name for profile in found.values() for name in profile.features} == {"speed"}
    assert sum(profile.rows for profile in found.values()) == N


def test_windows_are_merged_buckets(built: Reference, tmp_path: Path) -> None:
    day = timedelta(days=1)
    width = day // timedelta(microseconds=1)
    groups: dict[int, list[Profile]] = {}
    for start, profile in built.buckets().items():
        groups.setdefault(start // width * width, []).append(profile)
    expected = {start: whole for start, group in groups.items() if (whole := merge(group)) is not None}
    first, last = min(groups), max(groups)
    for cache in (None, tmp_path, tmp_path):
        found = built.windows(day, at_most=100, cache=cache)
        assert list(found) == [start for start in sorted(expected) if first <= start <= last]
        tables = [profiles_to_table(part, built.specs) for part in (found, {s: expected[s] for s in found})]
        assert tables[0] == tables[1]
    assert len(list(tmp_path.iterdir())) == 1
    few = built.windows(day, at_most=3, cache=tmp_path)
    assert [bool(profile.features) for profile in few.values()] == [i % 4 == 0 for i in range(10)]
    assert [profile.rows for profile in few.values()] == [profile.rows for profile in found.values()]


def test_unfinished_windows_are_left_out(built: Reference) -> None:
    week = timedelta(weeks=1)
    assert (
        len(built.windows(week, at_most=10)) == 0
    )  # ten days from a Friday hold no week that begins on a Thursday
    assert built.windows(timedelta(minutes=90), at_most=10) == {}


def test_a_damaged_cache_is_made_again(built: Reference, tmp_path: Path) -> None:
    found = built.windows(timedelta(days=1), at_most=100, cache=tmp_path)
    kept = next(tmp_path.iterdir())
    kept.write_bytes(kept.read_bytes()[:-50])
    again = built.windows(timedelta(days=1), at_most=100, cache=tmp_path)
    assert profiles_to_table(found, built.specs) == profiles_to_table(again, built.specs)
    assert pq.read_metadata(kept).num_rows > 0


def test_the_sample_holds_whole_rows(built: Reference, tmp_path: Path) -> None:
    sample = built.sample()
    assert sample.column_names == ["speed", "gear", "carrier", "late", "born", "score", "label", "time"]
    rows = {str(row) for row in training().select(sample.column_names).to_pylist()}
    assert {str(row) for row in sample.to_pylist()} == rows
    pq.write_table(training(), tmp_path / "t.parquet")
    few = build(tmp_path / "t.parquet", tmp_path / "r", sample_rows=50)
    assert few.sample().num_rows == few.manifest.sample_rows == 50


# -- versions --------------------------------------------------------------------------------------------


def test_the_same_data_is_the_same_version(built: Reference, tmp_path: Path) -> None:
    folder = built.folder.parent
    again = build(
        folder.parent / "training.parquet", folder, split="all of March", seed=3, created=datetime.now(UTC)
    )
    assert again.folder == built.folder
    assert again.manifest == built.manifest
    assert len(list_references(folder)) == 1
    assert find_version(folder, built.manifest.sha256) == built.folder
    elsewhere = build(folder.parent / "training.parquet", tmp_path, split="all of March", seed=3)
    for name in (*FILES, "manifest.json"):
        assert (elsewhere.folder / name).read_bytes() == (built.folder / name).read_bytes()


def test_other_data_is_another_version_and_becomes_current(copied: Path, built: Reference, tmp_path: Path) -> None:
    pq.write_table(training(300), tmp_path / "new.parquet")
    new = build(tmp_path / "new.parquet", copied, created=CREATED + timedelta(days=1))
    assert open_reference(copied).manifest == new.manifest
    assert open_reference(copied, built.manifest.version).manifest == built.manifest
    assert open_reference(copied / built.manifest.version).manifest == built.manifest
    assert [m.version for m in list_references(copied)] == [built.manifest.version, new.manifest.version]
    assert sorted(p.name for p in copied.iterdir()) == sorted(
        [CURRENT, built.manifest.version, new.manifest.version]
    )


def test_a_build_that_is_killed_leaves_nothing_that_is_opened(tmp_path: Path) -> None:
    pq.write_table(training(), tmp_path / "t.parquet")
    program = (
        "import os, signal, sys\n"
        "from tests.unit.test_reference import *\n"
        "build(Path(sys.argv[1]), Path(sys.argv[2]),\n"
        "      progress=lambda done, steps: os.kill(os.getpid(), signal.SIGKILL) if done == 5 else None)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "t.parquet"), str(tmp_path / "r")]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    with pytest.raises(BadReferenceError, match="it has no file CURRENT"):
        open_reference(tmp_path / "r")
    assert list_references(tmp_path / "r") == []
    assert build(tmp_path / "t.parquet", tmp_path / "r").manifest.rows == N


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    pq.write_table(training(300), tmp_path / "t.parquet")
    seen: list[tuple[int, int]] = []
    build(tmp_path / "t.parquet", tmp_path / "r", progress=lambda done, steps: seen.append((done, steps)))
    assert seen == [(i + 1, 9) for i in range(9)]


# -- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("thorough", [True, False])
def test_a_damaged_file_is_refused_by_name(copied: Path, built: Reference, name: str, thorough: bool) -> None:
    path = copied / built.manifest.version / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)

    def use() -> None:
        reference = open_reference(copied, thorough=thorough)
        reference.sample()
        reference.buckets()
        reference.products()

    with pytest.raises(BadReferenceError, match=rf"{name} is damaged: it has \d+ bytes with sha256 .*restore it"):
        use()
    path.unlink()
    with pytest.raises(BadReferenceError, match=rf"{name} cannot be read: No such file"):
        use()


def test_a_version_is_opened_once_while_no_file_of_it_is_touched(
    copied: Path, built: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)  # what was written just now counts as old
    first = open_reference(copied, thorough=False)
    assert open_reference(copied, thorough=False) is first
    assert open_reference(copied) is not first
    path = copied / built.manifest.version / "profile.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadReferenceError, match=r"profile\.parquet is damaged"):
        open_reference(copied, thorough=False)
    path.write_bytes(content)
    assert open_reference(copied, thorough=False).profile.rows == first.profile.rows


def test_a_version_whose_files_were_just_written_is_looked_at_again(copied: Path) -> None:
    (copied / CURRENT).touch()
    first = open_reference(copied, thorough=False)
    assert open_reference(copied, thorough=False) is not first


def test_only_so_many_bytes_of_versions_are_kept(
    built: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)
    monkeypatch.setattr(version, "MEMORY", 2 * built.memory)
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        shutil.copytree(built.folder, folder / built.folder.name)
    opened = [open_reference(folder, built.manifest.version, thorough=False) for folder in folders]
    again = [open_reference(folder, built.manifest.version, thorough=False) for folder in reversed(folders)]
    assert [a is b for a, b in zip(reversed(opened), again, strict=True)] == [True, True, False]


def test_the_versions_that_are_kept_are_those_that_were_asked_for_last(
    built: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)
    monkeypatch.setattr(version, "MEMORY", 2 * built.memory)
    for name in "abc":
        shutil.copytree(built.folder, tmp_path / name / built.folder.name)
    a, b, again, c = (
        open_reference(tmp_path / name, built.manifest.version, thorough=False) for name in ("a", "b", "a", "c")
    )
    assert again is a
    assert open_reference(tmp_path / "a", built.manifest.version, thorough=False) is a
    assert open_reference(tmp_path / "c", built.manifest.version, thorough=False) is c
    assert open_reference(tmp_path / "b", built.manifest.version, thorough=False) is not b


def test_one_version_is_kept_however_large_it_is(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)
    monkeypatch.setattr(version, "MEMORY", 0)
    first = open_reference(copied, thorough=False)
    assert open_reference(copied, thorough=False) is first


def test_a_file_that_was_replaced_is_noticed_whatever_its_size_and_time(
    copied: Path, built: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)
    open_reference(copied, thorough=False)
    path = copied / built.manifest.version / "cells.parquet"
    content, before = path.read_bytes(), path.stat()
    path.with_suffix(".new").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    path.with_suffix(".new").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BadReferenceError, match=r"cells\.parquet is damaged"):
        open_reference(copied, thorough=False)


def test_a_manifest_that_was_changed_is_noticed_of_an_opened_version(
    copied: Path, built: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "SETTLED", -10_000_000_000)
    open_reference(copied, thorough=False)
    edit(rows=7)(copied / built.manifest.version / "manifest.json")
    with pytest.raises(BadReferenceError, match=r"manifest\.json was changed after it was written"):
        open_reference(copied, thorough=False)


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"is no reference version: it has no manifest\.json"),
        (lambda p: p.write_text("{"), r"manifest\.json is damaged: it is not JSON"),
        (
            lambda p: p.write_text("[]"),
            r"manifest\.json has format None, this version of drift-monitor reads format 2: build the version",
        ),
        (edit(format=1), r"manifest\.json has format 1, this version of drift-monitor reads format 2: build"),
        (edit(rows="many"), r"manifest\.json is damaged: rows: .*got 'many'"),
        (edit(extra=1), r"manifest\.json is damaged: extra: "),
        (edit(rows=7), r"manifest\.json was changed after it was written: its content has sha256"),
        (edit(split="other"), r"manifest\.json was changed after it was written"),
    ],
)
def test_a_damaged_manifest_is_refused(
    copied: Path, built: Reference, damage: Callable[[Path], None], message: str
) -> None:
    damage(copied / built.manifest.version / "manifest.json")
    with pytest.raises(BadReferenceError, match=message):
        open_reference(copied)


def test_folders_that_are_no_reference(copied: Path, built: Reference, tmp_path: Path) -> None:
    with pytest.raises(BadReferenceError, match=r"gone is no reference folder: there is nothing"):
        open_reference(tmp_path / "gone")
    with pytest.raises(BadReferenceError, match=r"has no version '2020-01-01-000000000000' \(it has: 2024-04-01-"):
        open_reference(copied, "2020-01-01-000000000000")
    with pytest.raises(BadReferenceError, match=r"has no version '\.\./elsewhere'"):
        open_reference(copied, "../elsewhere")
    (copied / CURRENT).write_bytes(b"\xff")
    with pytest.raises(BadReferenceError, match="CURRENT cannot be read"):
        open_reference(copied)
    (copied / built.manifest.version).rename(copied / "2024-04-01-aaaaaaaaaaaa")
    with pytest.raises(BadReferenceError, match="its folder was renamed or swapped"):
        open_reference(copied, "2024-04-01-aaaaaaaaaaaa")
    with pytest.raises(BadReferenceError, match="is no folder"):
        list_references(tmp_path / "gone")


def test_a_damaged_version_is_built_again(copied: Path, built: Reference) -> None:
    (copied / built.manifest.version / "sample.parquet").write_bytes(b"")
    source = built.folder.parent.parent / "training.parquet"
    again = build(source, copied, split="all of March", seed=3)
    assert again.manifest == built.manifest
    assert again.sample().num_rows == N


# -- training data of all sorts ----------------------------------------------------------------------------


def test_csv_and_jsonl_give_what_parquet_gives(built: Reference, tmp_path: Path) -> None:
    table = training().drop_columns(["born"])
    texts = table.set_column(0, "time", pa.array([t.isoformat() for t in table["time"].to_pylist()]))
    pacsv.write_csv(texts, tmp_path / "t.csv")
    lines = [json.dumps(row) for row in texts.to_pylist()]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    for name in ("t.csv", "t.jsonl"):
        found = build(tmp_path / name, tmp_path / name[2:])
        assert {f.name: f.kind for f in found.manifest.features} == {
            f.name: f.kind for f in built.manifest.features if f.name != "born"
        }
        assert found.profile.rows == N
        for spec in found.specs:
            ours, theirs = (profiles_to_table({0: r.profile}, [spec]).to_pylist()[1] for r in (found, built))
            assert ours == theirs


def test_types_that_only_the_end_of_a_csv_tells(tmp_path: Path) -> None:
    n = 400_000
    whole = "\n".join(["1,,1,2024-01-01"] * n)
    (tmp_path / "t.csv").write_text(f"a,b,c,d\n{whole}\n2.5,7,x,2024-01-02T00:00:00Z\n")
    found = build(tmp_path / "t.csv", tmp_path / "r", columns=Columns(), timestamp=None)
    assert {f.name: f.kind for f in found.manifest.features} == {
        "a": "numeric",
        "b": "numeric",
        "c": "categorical",
        "d": "datetime",
    }


def test_buckets_that_do_not_fit_in_memory_are_refused(tmp_path: Path) -> None:
    days = 9  # 777,601 seconds, of 2 * 1000 + 1 counts of 8 bytes each: 12.4 GB
    path = tmp_path / "training.parquet"
    times = [START, START + timedelta(days=days)] * 30
    pq.write_table(training(60).set_column(0, "time", pa.array(times, pa.timestamp("us", "UTC"))), path)
    with pytest.raises(BadReferenceError) as caught:
        build(path, tmp_path / "reference", bucket=timedelta(seconds=1))
    assert "there are 777,601 buckets of 1s, and of numbers with 1000 edges at most 134,150 fit" in str(
        caught.value
    )
    assert "set `window.bucket` to 10s or more" in str(caught.value)
    assert build(path, tmp_path / "reference", bucket=timedelta(minutes=1)).manifest.rows == 60


def test_without_timestamps_there_is_one_bucket_and_no_windows(tmp_path: Path) -> None:
    pq.write_table(training(), tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet", tmp_path / "r", timestamp=None, columns=Columns(ignore=("time",)))
    assert list(found.buckets()) == [0]
    assert (found.manifest.start, found.manifest.end) == (None, None)
    assert found.windows(timedelta(days=1), at_most=9) == {}
    assert found.profile.rows == N


def test_columns_that_cannot_be_watched_are_named(tmp_path: Path) -> None:
    n = 2000
    table = pa.table(
        {
            "empty": pa.nulls(n),
            "nothing": pa.array([None] * n, pa.float64()),
            "nan": np.full(n, np.nan),
            "list": [["a"]] * n,
            "bytes": pa.array([b"x"] * n),
            "constant": np.ones(n),
            "alone": ["a"] * n,
            "uuid": [f"{i:032x}" for i in range(n)],
            "row": np.arange(n),
            "fine": np.random.default_rng(0).normal(size=n),
            "whole": np.arange(n) % 50,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet", tmp_path / "r", timestamp=None, columns=Columns())
    said = " | ".join(found.manifest.warnings)
    for name in ("empty", "nothing", "nan", "list", "bytes"):
        assert f"column {name!r} " in said
    doubts = {f.name: f.warning for f in found.manifest.features}
    assert doubts.keys() == {"constant", "alone", "uuid", "row", "fine", "whole"}
    assert (doubts["fine"], doubts["whole"]) == (None, None)
    assert "one value only (1)" in str(doubts["constant"])
    assert "one value only ('a')" in str(doubts["alone"])
    assert "columns.ignore" in str(doubts["uuid"])
    assert "columns.ignore" in str(doubts["row"])


def test_a_hundred_thousand_categories_are_pooled(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(100_000)] + ["often"] * 100_000
    pq.write_table(pa.table({"c": names}), tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet", tmp_path / "r", timestamp=None, columns=Columns())
    (spec,) = found.specs
    assert isinstance(spec, CategoricalSpec)
    assert (len(spec.categories), spec.complete, spec.categories[:2]) == (10_000, False, ("often", "c0"))
    assert "more than 10000 categories: the rarer ones, 45% of the rows" in str(found.manifest.features[0].warning)


def test_rows_without_a_time_are_left_out_and_told(tmp_path: Path) -> None:
    table = training(300)
    times = [None if i % 100 == 7 else t for i, t in enumerate(table["time"].to_pylist())]
    pq.write_table(table.set_column(0, "time", pa.array(times, pa.timestamp("us", "UTC"))), tmp_path / "t.parquet")
    m = build(tmp_path / "t.parquet", tmp_path / "r").manifest
    assert (m.rows, m.invalid_rows) == (297, 3)
    assert "3 rows were left out: column 'time' has no usable time there" in m.warnings


@pytest.mark.parametrize(
    ("columns", "timestamp", "message"),
    [
        (Columns(prediction="scor"), "time", r"columns\.prediction: .*no column 'scor'; did you mean 'score'\?"),
        (Columns(), "when", r"timestamp: the training data has no column 'when'; it has 'time', 'id'"),
        (
            Columns(features=("speeed",), kinds={"carier": "numeric"}),
            "time",
            r"columns\.features: .*'speeed'; did you mean 'speed'\?; columns\.kinds: .*'carier'",
        ),
        (
            Columns(kinds={"carrier": "numeric"}),
            "time",
            r"columns\.kinds: 'carrier' is string, .* read as numeric",
        ),
        (Columns(features=("id",), id="id"), "time", r"no column of the training data is left to watch"),
        (Columns(), "id", r"no rows with a readable event time"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, columns: Columns, timestamp: str, message: str) -> None:
    pq.write_table(training(60), tmp_path / "t.parquet")
    with pytest.raises(BadReferenceError, match=message):
        build(tmp_path / "t.parquet", tmp_path / "r", columns=columns, timestamp=timestamp)
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"no reference can be built: '.*t\.parquet' cannot be read: No such file"),
        (lambda path: path.write_bytes(b"PAR1"), r"t\.parquet' is not a whole Parquet file"),
        (lambda path: pq.write_table(training(60)[:0], path), r"no rows with a readable event time"),
        (
            lambda path: pq.write_table(training(60).append_column("speed", training(60)["speed"]), path),
            r"more than one column named 'speed'",
        ),
    ],
)
def test_training_data_that_cannot_be_used(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "t.parquet")
    with pytest.raises(BadReferenceError, match=message):
        build(tmp_path / "t.parquet", tmp_path / "r")


# -- the format ------------------------------------------------------------------------------------------


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(FLOATS.filter(np.isfinite), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 5), st.none() | FLOATS, st.none() | st.text(max_size=3)), max_size=40),
)
def test_profiles_survive_the_format_bit_for_bit(
    fitted: list[float], rows: list[tuple[int, float | None, str | None]]
) -> None:
    specs: list[Spec] = [
        NumericSpec.fit("x", np.array(fitted)),
        CategoricalSpec.fit("c", {"a": 2, "": 1, "</script>": 1}, limit=2),
    ]
    batch = pa.record_batch(
        {
            "time": pa.array([r[0] * 3_600_000_000 for r in rows], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "x": pa.array([r[1] for r in rows], pa.float64()),
            "c": pa.array([r[2] for r in rows], pa.string()),
            "id": pa.array([r[0] for r in rows], pa.int64()),
        }
    )
    profiles = profile_buckets(specs, [batch], timestamp="time", bucket=HOUR, id_column="id")
    kept = specs_from_table(specs_to_table(specs))
    assert [repr(spec) for spec in kept] == [repr(spec) for spec in specs]
    table = profiles_to_table(profiles, specs)
    again = profiles_from_tables([table], kept)
    assert profiles_to_table(again, kept) == table
    wide = profiles_from_tables([table], kept, width=3 * 3_600_000_000)
    for start, profile in wide.items():
        parts = [p for s, p in profiles.items() if s // (3 * 3_600_000_000) * (3 * 3_600_000_000) == start]
        whole = merge(parts)
        assert whole is not None
        assert profiles_to_table({0: profile}, specs) == profiles_to_table({0: whole}, specs)


def test_another_format_is_refused() -> None:
    table = profiles_to_table({}, ())
    with pytest.raises(BadReferenceError, match=r"profiles of format none cannot be read: .* reads format 1"):
        profiles_from_tables([table.replace_schema_metadata(None)], ())
    with pytest.raises(BadReferenceError, match="have the columns"):
        profiles_from_tables([table.drop_columns(["rows"])], ())


@pytest.mark.parametrize("edges", [20, 1000, 4000])
def test_the_configuration_says_how_fine_the_cells_are(tmp_path: Path, edges: int) -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    pq.write_table(pa.table({"x": values}), tmp_path / "t.parquet")
    found = build_reference(
        tmp_path / "t.parquet",
        tmp_path / "r",
        columns=Columns(edges=edges),
        timestamp=None,
        bucket=timedelta(hours=1),
        created=datetime(2024, 1, 1, tzinfo=UTC),
    )
    (spec,) = found.specs
    assert isinstance(spec, NumericSpec)
    ranks = np.searchsorted(np.sort(values), spec.edges, "right") / len(values)
    np.testing.assert_allclose(np.diff(ranks), 1 / edges, atol=1e-4)
    assert len(spec.edges) == edges + 1
    assert open_reference(tmp_path / "r").manifest == found.manifest
    assert ("edges" in (found.folder / "manifest.json").read_text()) == (edges != 1000)
