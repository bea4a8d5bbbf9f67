"""However rows are split into requests, and however their files are put together, they are the same rows."""

import io
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drift_monitor.config.intake import PushSource
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import CategoricalSpec, NumericSpec
from drift_monitor.intake.compaction import next_merge, to_delete
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.rows import from_arrow_stream, from_json_lines
from drift_monitor.intake.spool import Spool
from drift_monitor.sources.files import open_files
from drift_monitor.sources.spool import Piece, current, open_spool, piece_name

START = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = (LiveColumn(name="x", kind="numeric"), LiveColumn(name="c", kind="categorical"))
LAYOUT = Layout(COLUMNS, "t")
SPECS = (
    NumericSpec.fit("x", np.linspace(-3, 3, 50)),
    CategoricalSpec.fit("c", {"a": 5, "b": 3}),
)

numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-1000, 1000))
row = st.fixed_dictionaries(
    {
        "t": st.integers(0, 10_000).map(lambda s: (START + timedelta(seconds=s)).isoformat()),
        "x": numbers,
        "c": st.one_of(st.none(), st.sampled_from(["a", "b", "z"])),
    }
)
requests = st.lists(
    st.tuples(st.lists(row, min_size=1, max_size=6), st.sampled_from(["jsonl", "arrow"])), min_size=1
)


def profiles(source):
    batches = (b for s in source.splits(None) for b in source.batches(s, ["x", "c", "t"]))
    return profile_buckets(SPECS, batches, timestamp="t")


def as_batch(records, form):
    if form == "jsonl":
        return from_json_lines(b"\n".join(json.dumps(r).encode() for r in records), LAYOUT, START).batch
    table = whole(records)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return from_arrow_stream(sink.getvalue(), LAYOUT, START).batch


def whole(records):
    columns = {
        "t": pa.array([datetime.fromisoformat(r["t"]) for r in records], pa.timestamp("us", "UTC")),
        "x": pa.array([None if r["x"] is None else float(r["x"]) for r in records], pa.float64()),
        "c": pa.array([r["c"] for r in records], pa.string()),
    }
    return pa.table(columns)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(requests, st.data())
def test_any_split_into_requests_and_files_has_the_profile_of_one_file(sent, data):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        spool = Spool(folder / "s", LAYOUT, timedelta(days=3))
        for records, form in sent:
            spool.append(as_batch(records, form))
            if data.draw(st.booleans()) and (seal := spool.roll()) is not None:
                seal()
            if data.draw(st.booleans()):
                spool.tidy(datetime.now(UTC) + timedelta(hours=2))
        spool.close()
        pq.write_table(whole([r for records, _ in sent for r in records]), folder / "one.parquet")
        found = profiles(open_spool(PushSource(type="push", timestamp="t", spool=folder / "s"), {}))
        expected = profiles(open_files(FilesSource(path=str(folder / "one.parquet"), timestamp="t"), {}))
        assert found.keys() == expected.keys()
        for start, profile in expected.items():
            assert (found[start].rows, found[start].oldest, found[start].newest) == (
                profile.rows,
                profile.oldest,
                profile.newest,
            )
            for name, feature in profile.features.items():
                assert repr(found[start].features[name]) == repr(feature)


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(1, 2**28)), min_size=1, max_size=60),
    st.sampled_from([timedelta(days=2), timedelta(days=30)]),
)
def test_putting_files_together_ends_and_keeps_every_row_once(arrived, keep):
    """Files as (hour of arrival, bytes); a file deleted may be one past its time only."""
    now = START + timedelta(hours=81, minutes=30)
    hours = sorted(hour for hour, _ in arrived)
    everything = [
        made(n, n, START + timedelta(hours=hour), size)
        for n, (hour, (_, size)) in enumerate(zip(hours, arrived, strict=True))
    ]
    for _ in range(2 * len(everything) + 1):
        merge = next_merge(current(everything), now, keep)
        if not merge:
            break
        at = current(everything).index(merge[0])
        assert current(everything)[at : at + len(merge)] == merge
        everything.append(made(merge[0].first, merge[-1].last, merge[-1].hour, sum(p.size for p in merge)))
        everything.sort(key=lambda p: (p.first, -p.last))
        assert [n for p in current(everything) for n in range(p.first, p.last + 1)] == list(range(len(arrived)))
    else:
        raise AssertionError("it does not end")
    gone: set[Piece] = set()
    for piece in to_delete(everything, now, keep, timedelta(minutes=15)):
        gone.add(piece)
        left = current([p for p in everything if p not in gone])
        lost = set(range(len(arrived))) - {n for p in left for n in range(p.first, p.last + 1)}
        assert all(START + timedelta(hours=hours[n]) + keep < now for n in lost)
        assert sum(p.last - p.first + 1 for p in left) == len(arrived) - len(lost)


def made(first, last, hour, size):
    return Piece(Path(piece_name(first, last, hour)), first, last, hour, size, changed=0.0)
