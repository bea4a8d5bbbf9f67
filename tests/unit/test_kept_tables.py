"""Rows of Delta and Iceberg tables are read once; whatever becomes of a table, nothing of it shows."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from delta_vectors import data_files, write_vectors
from kept_checks import DAY, HOUR, LIVE, PER_HOUR, START, both, count_rows, rows
from pyiceberg.catalog import load_catalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, LongType

from drift_monitor.config.tables import DeltaSource, IcebergSource
from drift_monitor.core.types import Window
from drift_monitor.service import bucket_store
from drift_monitor.sources.delta import open_delta
from drift_monitor.sources.iceberg import open_iceberg

END = LIVE + 2 * DAY
N = 24 * PER_HOUR


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_rows(monkeypatch)


# -- Delta ---------------------------------------------------------------------------------------------


@pytest.fixture
def lake(data: Path) -> deltalake.DeltaTable:
    """Two days of rows, a file each."""
    path = data / "table"
    for day in range(2):
        deltalake.write_deltalake(path, rows(LIVE + day * DAY, 24, seed=2 + day), mode="append")
    (data / "source.json").write_text(json.dumps({"type": "delta", "path": str(path)}))
    return deltalake.DeltaTable(path)


def test_a_row_of_a_delta_table_is_read_once(data: Path, lake: deltalake.DeltaTable, read: Counter[str]) -> None:
    for hour in range(0, 25, 3):
        assert both(data, LIVE + DAY + hour * HOUR).rows == N
    assert read["rows"] == 2 * N
    deltalake.write_deltalake(lake, rows(LIVE + 30 * HOUR, 5, seed=9, shuffled=True, broken=2), mode="append")
    result = both(data, END)
    assert (result.rows, result.invalid_rows) == (29 * PER_HOUR - 2, 0)  # a table leaves out what has no time
    assert read["rows"] == 2 * N + 5 * PER_HOUR - 2


def test_whatever_becomes_of_a_delta_table(data: Path, lake: deltalake.DeltaTable, read: Counter[str]) -> None:
    first = both(data, END)
    version = lake.version()
    lake.delete("carrier = 'AA'")
    deleted = both(data, END)
    assert deleted.rows < first.rows
    lake.update({"speed": "speed + 100"}, predicate="carrier = 'UA'")
    assert both(data, END).rows == deleted.rows
    source = rows(LIVE + DAY, 24, seed=3).slice(0, N - 3)  # which is there, but for what was deleted
    merge = lake.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
    merge.when_matched_update({"speed": "s.speed"}).when_not_matched_insert_all().execute()
    assert both(data, END).rows > deleted.rows
    for hour in range(3):
        deltalake.write_deltalake(lake, rows(LIVE + DAY + hour * HOUR, 1, seed=hour), mode="append")
    both(data, END)
    seen = read["rows"]
    lake.update_incremental()
    assert lake.optimize.compact()["numFilesRemoved"] > 3
    compacted = both(data, END)
    assert read["rows"] > seen  # other files
    lake.optimize.z_order(["carrier"])
    assert both(data, END) == compacted
    lake.restore(version)
    assert both(data, END) == first
    lake.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert both(data, END) == first
    deltalake.write_deltalake(lake, rows(LIVE + DAY, 12, seed=8), mode="overwrite")
    assert both(data, END).rows == N // 2


def test_rows_that_deletion_vectors_delete_and_bring_back(
    data: Path, lake: deltalake.DeltaTable, read: Counter[str]
) -> None:
    first = both(data, END)
    table = Path(data / "table")
    path = next(p for p in data_files(table) if pq.read_table(table / p)["time"][0].as_py() >= LIVE + DAY)
    write_vectors(table, {path: range(0, N, 2)})
    half = both(data, END)
    assert (half.rows, first.rows) == (N // 2, N)
    write_vectors(table, {path: range(0, N, 4)})
    assert both(data, END).rows == N - N // 4
    before = read["rows"]
    write_vectors(table, {path: range(0, N, 2)})
    assert both(data, END).model_copy(update={"versions": half.versions}) == half
    write_vectors(table, {path: []})
    assert both(data, END) == first
    assert read["rows"] == before + N // 2 + N  # what is not in the table now is not kept for it


def test_columns_of_a_delta_table_come_and_change_their_type(data: Path, lake: deltalake.DeltaTable) -> None:
    lacking = rows(LIVE, 24, seed=2).drop_columns("load")
    deltalake.write_deltalake(lake, lacking, mode="overwrite", schema_mode="overwrite")
    assert "load" in both(data, LIVE + DAY).reason
    deltalake.write_deltalake(lake, rows(LIVE + DAY, 24, seed=3), mode="append", schema_mode="merge")
    for end in (LIVE + DAY, LIVE + 36 * HOUR, END):
        assert both(data, end).rows == N  # where the column was lacking, it is null
    wider = rows(LIVE, 48, seed=5)
    wider = wider.set_column(3, "load", pc.cast(wider["load"], pa.float64()))
    deltalake.write_deltalake(lake, wider, mode="overwrite", schema_mode="overwrite")
    assert both(data, END).rows == N


def test_a_delta_table_that_was_made_anew_is_another(data: Path, lake: deltalake.DeltaTable) -> None:
    both(data, END)
    deltalake.write_deltalake(data / "other", rows(LIVE, 48, seed=7), partition_by=["late", "carrier"])
    (data / "source.json").write_text(json.dumps({"type": "delta", "path": str(data / "other")}))
    other = both(data, END)
    assert other.rows == N
    deltalake.DeltaTable(data / "other").delete("late = true")
    assert both(data, END).rows < N


def test_a_file_of_delta_is_told_by_its_table_and_its_time(data: Path, lake: deltalake.DeltaTable) -> None:
    def identities(path: Path) -> list[bytes]:
        source = open_delta(DeltaSource(type="delta", path=str(path), timestamp="time"), {})
        return [unit.identity for unit in source.units(Window(start=LIVE, end=END), ["speed"], HOUR)]

    def altered(name: str, action: str, **values: Any) -> list[bytes]:
        """Those of a copy, of which the log's newest commit of some kind says something else."""
        shutil.copytree(data / "table", data / name)
        paths = sorted((data / name / "_delta_log").glob("*.json"))
        path = [path for path in paths if f'"{action}"' in path.read_text()][-1]
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record.get(action, {}).update(values)
        path.write_text("\n".join(map(json.dumps, records)))
        return identities(data / name)

    first = identities(data / "table")
    assert len({*first}) == 2
    assert altered("copied", "add") == first  # wherever it lies
    assert not {*altered("another", "metaData", id="5f9a1c1e-0000-4000-8000-000000000000")} & {*first}
    assert len({*altered("later", "add", modificationTime=1_700_000_000_000)} & {*first}) == 1


def test_large_files_of_a_delta_table_are_cut_by_their_row_groups(
    data: Path, lake: deltalake.DeltaTable, read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("delta", "parquet_files"):
        monkeypatch.setattr(f"drift_monitor.sources.{module}.UNIT_ROWS", 100)
    deltalake.write_deltalake(
        lake,
        rows(LIVE, 72, seed=4),
        mode="overwrite",
        writer_properties=deltalake.WriterProperties(max_row_group_size=60),
    )
    for hours in (24, 25, 48):
        assert both(data, LIVE + hours * HOUR).rows == N
    assert 2 * N <= read["rows"] < 2 * N + 100  # and not the third day
    with closing(sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db")) as db:
        assert db.execute("SELECT count(*) FROM units").fetchone()[0] > 30
        assert db.execute("SELECT count(*) FROM footers").fetchone() == (1,)
    table = data / "table"
    write_vectors(table, {data_files(table)[0]: range(N, 2 * N, 3)})  # of the second day
    assert both(data, LIVE + DAY).rows == N
    assert both(data, LIVE + 2 * DAY).rows == N - N // 3


# -- Iceberg -------------------------------------------------------------------------------------------


@pytest.fixture
def berg(data: Path) -> Iterator[Any]:
    properties = {"type": "sql", "uri": f"sqlite:///{data}/catalog.db", "warehouse": f"file://{data}/warehouse"}
    with closing(load_catalog("default", **properties)) as catalog:
        catalog.create_namespace("logs")
        table = catalog.create_table("logs.rows", schema=rows(LIVE, 1, seed=1).schema)
        for day in range(2):
            table.append(rows(LIVE + day * DAY, 24, seed=2 + day))
        source = {"type": "iceberg", "catalog": properties, "table": "logs.rows"}
        (data / "source.json").write_text(json.dumps(source))
        yield table


def test_a_row_of_an_iceberg_table_is_read_once(data: Path, berg: Any, read: Counter[str]) -> None:
    for hour in range(0, 25, 6):
        assert both(data, LIVE + DAY + hour * HOUR).rows == N
    assert read["rows"] == 2 * N
    berg.append(rows(LIVE + 30 * HOUR, 5, seed=9, shuffled=True, broken=2))
    result = both(data, END)
    assert (result.rows, result.invalid_rows) == (29 * PER_HOUR - 2, 0)
    assert read["rows"] == 2 * N + 5 * PER_HOUR - 2


def test_whatever_becomes_of_an_iceberg_table(data: Path, berg: Any) -> None:
    first = both(data, END)
    snapshot = berg.current_snapshot().snapshot_id
    berg.delete("carrier = 'AA'")
    deleted = both(data, END)
    assert deleted.rows < first.rows
    berg.delete(f"time >= '{(END - HOUR).isoformat()}'")
    berg.upsert(rows(LIVE + DAY, 24, seed=3).slice(0, N - 60), join_cols=["id"])
    assert deleted.rows < both(data, END).rows < first.rows
    berg.overwrite(berg.scan().to_arrow())  # all rows in one new file
    both(data, END)
    berg.manage_snapshots().rollback_to_snapshot(snapshot).commit()
    assert both(data, END) == first
    with berg.update_spec() as update:
        update.add_field("late", IdentityTransform())
    berg.append(rows(LIVE + DAY, 24, seed=8))
    assert both(data, END).rows == 2 * N


def test_an_iceberg_table_that_was_made_anew_over_files_of_the_same_names_is_another(data: Path) -> None:
    properties = {"type": "sql", "uri": f"sqlite:///{data}/catalog.db", "warehouse": f"file://{data}/warehouse"}
    config = IcebergSource(type="iceberg", catalog=properties, table="logs.rows", timestamp="time")
    path, first = data / "hour.parquet", rows(LIVE, 1, seed=2)
    moved = first.set_column(2, "speed", pc.negate(first["speed"]))
    found, sizes = [], []
    with closing(load_catalog("default", **properties)) as catalog:
        catalog.create_namespace("logs")
        for table in (first, moved):
            pq.write_table(table, path, compression="none", use_dictionary=False)
            catalog.create_table("logs.rows", schema=table.schema).add_files([f"file://{path}"])
            for _ in range(2):
                found += open_iceberg(config, {}).units(Window(start=LIVE, end=LIVE + HOUR), ["speed"], HOUR)
            sizes.append(path.stat().st_size)
            catalog.drop_table("logs.rows")
    assert [unit.path for unit in found] == [f"file://{path}"] * 4
    assert sizes[0] == sizes[1]
    assert found[0].identity == found[1].identity != found[2].identity == found[3].identity


def test_columns_of_an_iceberg_table_are_known_by_their_number(data: Path, berg: Any) -> None:
    first = both(data, END)
    with berg.update_schema() as update:
        update.rename_column("speed", "was")
    assert "speed" in both(data, END).reason
    with berg.update_schema() as update:
        update.add_column("speed", DoubleType())
    result = both(data, END)  # another column of the same name, which old files do not have
    assert next(f for f in result.features if f.name == "speed").null_ratio == 1.0
    with berg.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("speed")
    with berg.update_schema() as update:
        update.rename_column("was", "speed")
        update.update_column("load", DoubleType())
        update.add_column("more", LongType())
    assert both(data, END).rows == first.rows


def test_rows_of_an_iceberg_table_that_were_deleted_by_position(data: Path, berg: Any) -> None:
    first = both(data, END)
    delete_rows(berg, data / "deletes.parquet", [0, 1, 5])
    assert both(data, END).rows == first.rows - 3
    delete_rows(berg, data / "more.parquet", [7])
    assert both(data, END).rows == first.rows - 4


def delete_rows(table: Any, path: Path, positions: list[int]) -> None:
    """Delete rows of the newest data file by their positions, which PyIceberg reads and does not write."""
    task = max(table.scan().plan_files(), key=lambda task: int.from_bytes(task.file.lower_bounds[1], "little"))
    pq.write_table(pa.table({"file_path": [task.file.file_path] * len(positions), "pos": positions}), path)
    entry = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(positions),
        file_size_in_bytes=path.stat().st_size,
    )
    entry.spec_id = 0
    with table.transaction() as change, Append(Operation.APPEND, change, table.io) as snapshot:
        snapshot.append_data_file(entry)


class Deletes(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class Append(_FastAppendFiles):
    def new_manifest_writer(self, spec: Any) -> Deletes:
        return Deletes(spec, self.schema(), self.new_manifest_output(), self._snapshot_id, self._compression)
