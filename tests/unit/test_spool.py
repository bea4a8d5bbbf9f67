"""The spool: what is durable, what a crash leaves, and which files are put together."""

import json
import os
import shutil
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from drift_monitor.config.intake import PushSource
from drift_monitor.core.errors import SourceError
from drift_monitor.intake import spool as module
from drift_monitor.intake.compaction import LARGEST, MANY, next_merge, to_delete
from drift_monitor.intake.journal import Journal, read_frames
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.rows import from_records
from drift_monitor.intake.seen import MOST, Keys, Seen, digest, keep
from drift_monitor.intake.spool import Spool, SpoolError
from drift_monitor.sources.spool import Piece, all_pieces, current, open_spool, piece_name

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
LAYOUT = Layout((LiveColumn(name="n", kind="numeric"), LiveColumn(name="c", kind="categorical")), "t")
KEEP = timedelta(days=3)


def batch(*numbers, layout=LAYOUT):
    records = [{"t": "2026-03-01T00:00:00Z", "n": n, "c": str(n)} for n in numbers]
    return from_records(records, layout, NOW).batch


def opened(folder, layout=LAYOUT):
    return Spool(folder, layout, KEEP)


def rows(folder, column="n"):
    source = open_spool(PushSource(type="push", timestamp="t", spool=folder), {})
    return sorted(
        value
        for split in source.splits(None)
        for found in source.batches(split, [column])
        for value in found.column(column).to_pylist()
    )


def crash(spool):
    """The folder as a kill -9 leaves it, elsewhere."""
    copy = spool.folder.with_name(f"crash-{time.monotonic_ns()}")
    shutil.copytree(spool.folder, copy)
    return copy


def piece(first, last, hour, size=1000, changed=0.0):
    return Piece(Path(piece_name(first, last, hour)), first, last, hour, size, changed)


# -- journals --------------------------------------------------------------------------------------


def test_a_journal_gives_back_its_whole_frames_wherever_it_was_cut(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, LAYOUT.schema)
    ends = [journal.size]
    for n in range(3):
        journal.append({"kind": "rows", "n": n}, b"body" * n)
        ends.append(journal.size)
    journal.sync()
    journal.close()
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        found = [header.get("n") for header, _ in read_frames(path)][1:]
        assert found == list(range(max(0, sum(end <= length for end in ends) - 1)))


def test_a_frame_with_a_flipped_bit_ends_the_journal(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, LAYOUT.schema)
    journal.append({"n": 1}, b"one")
    before = journal.size
    journal.append({"n": 2}, b"two")
    journal.close()
    whole = bytearray(path.read_bytes())
    for at in range(before, len(whole)):
        damaged = whole.copy()
        damaged[at] ^= 1
        path.write_bytes(damaged)
        assert [header.get("n") for header, _ in read_frames(path)] == [None, 1]


def test_a_frame_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j", LAYOUT.schema)
    journal.append({"n": 1})
    real = os.writev

    def full(descriptor, parts):
        real(descriptor, [bytes(parts[0])[:5]])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        journal.append({"n": 2})
    monkeypatch.undo()
    journal.append({"n": 3})
    journal.close()
    assert [header.get("n") for header, _ in read_frames(tmp_path / "j")] == [None, 1, 3]


# -- what was taken --------------------------------------------------------------------------------


def test_rows_that_were_synced_survive_a_crash(tmp_path):
    spool = opened(tmp_path / "s")
    spool.append(batch(1, 2))
    spool.sync()
    left = crash(spool)
    assert rows(left) == []  # not visible yet
    opened(left).close()
    assert rows(left) == [1, 2]
    assert not list(left.glob(".journal-*"))


def test_a_journal_becomes_a_file_when_it_is_asked_to_and_when_it_is_closed(tmp_path):
    spool = opened(tmp_path / "s")
    assert spool.roll() is None  # there is nothing
    spool.append(batch(1))
    seal = spool.roll()
    spool.append(batch(2))
    seal()
    assert rows(spool.folder) == [1]
    spool.close()
    assert rows(spool.folder) == [1, 2]
    assert [(p.first, p.last) for p in all_pieces(spool.folder)] == [(0, 0), (1, 1), (2, 2)]


def test_a_new_spool_has_its_columns_and_no_rows(tmp_path):
    opened(tmp_path / "s").close()
    source = open_spool(PushSource(type="push", timestamp="t", spool=tmp_path / "s"), {})
    assert source.columns().names == ["t", "n", "c"]
    assert list(source.splits(None)) == []


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_spool_that_is_not_there_yet_is_an_error(tmp_path, make):
    make(tmp_path / "s")
    with pytest.raises(SourceError, match="the daemon makes it"):
        open_spool(PushSource(type="push", timestamp="t", spool=tmp_path / "s"), {})


def test_no_two_write_in_a_spool(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOCK_PATIENCE", 0.1)
    spool = opened(tmp_path / "s")
    with pytest.raises(SpoolError, match="no two may"):
        opened(tmp_path / "s")
    spool.close()
    opened(tmp_path / "s").close()


def test_a_spool_is_full_while_files_wait_to_be_made(tmp_path):
    spool = opened(tmp_path / "s")
    seals = []
    for n in range(module.MOST_SEALING):
        assert not spool.is_full
        spool.append(batch(n))
        seals.append(spool.roll())
    assert spool.is_full
    seals[0]()
    assert not spool.is_full
    for seal in seals[1:]:
        seal()
    spool.close()


def test_a_crash_at_any_step_of_making_a_file_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """Every call by which the folder changes is a step; the crash is before each of them in turn."""
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        spool = opened(folder / "s")
        key = digest("key", "k")
        spool.append(batch(1, 2), keys=[(key, Seen(b"12345678", 2, int(time.time()) + 1000))])
        spool.append(batch(3), resolved=(), waits={"e": {"part": "request", "since": time.time()}})
        spool.sync()
        seal = spool.roll()
        with CrashAt(monkeypatch, steps) as crashing:
            seal()
        left = crash(spool)
        again = opened(left)
        assert again.keys.get(key).rows == 2
        assert list(again.waiting) == ["e"]
        again.close()
        assert rows(left) == [1, 2, 3]
        if not crashing.crashed:
            break
        steps += 1
    assert steps >= 4


def test_a_crash_at_any_step_of_putting_files_together_loses_and_doubles_nothing(tmp_path, monkeypatch):
    later = datetime.now(UTC) + 2 * HOUR
    steps = 0
    while True:
        spool = opened(tmp_path / str(steps) / "s")
        for n in range(4):
            spool.append(batch(n), offsets={"topic": {"0": n}})
            spool.roll()()
        with CrashAt(monkeypatch, steps) as crashing:
            while spool.tidy(later):
                assert rows(spool.folder) == [0, 1, 2, 3]
        left = crash(spool)
        again = opened(left)
        assert again.offsets == {"topic": {"0": 3}}
        while again.tidy(later + HOUR):
            pass
        again.close()
        assert rows(left) == [0, 1, 2, 3]
        assert len(all_pieces(left)) == 1
        if not crashing.crashed:
            break
        steps += 1
    assert steps >= 2


class CrashAt:
    """Raises in place of the n-th rename or deletion."""

    def __init__(self, monkeypatch, step):
        self.monkeypatch, self.left, self.crashed = monkeypatch, step, False

    def __enter__(self):
        for owner, name in ((Path, "replace"), (Path, "unlink"), (module, "sync_folder"), (os, "fsync")):
            self.monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))
        return self

    def wrapped(self, real):
        def step(*arguments, **options):
            if self.left == 0:
                self.crashed = True
                raise KeyboardInterrupt
            self.left -= 1
            return real(*arguments, **options)

        return step

    def __exit__(self, kind, *_):
        self.monkeypatch.undo()
        return kind is KeyboardInterrupt


def test_what_waits_is_carried_from_journal_to_journal_until_it_is_resolved(tmp_path):
    spool = opened(tmp_path / "s")
    spool.append(None, waits={"a": {"since": 1}, "b": {"since": 2}})
    spool.sync()
    spool.roll()()
    spool.append(batch(1), resolved=["a"])
    spool.sync()
    left = crash(spool)
    again = opened(left)
    assert again.waiting == {"b": {"since": 2}}
    again.append(batch(2), resolved=["b"])
    again.close()
    assert opened(left).waiting == {}
    assert rows(left) == [1, 2]


def test_offsets_are_those_of_the_newest_rows(tmp_path):
    spool = opened(tmp_path / "s")
    spool.append(batch(1), offsets={"topic": {"0": 5}})
    spool.roll()()
    spool.append(None, offsets={"topic": {"0": 5, "1": 7}})  # no row of these messages could be used
    spool.sync()
    left = crash(spool)
    again = opened(left)
    assert again.offsets == {"topic": {"0": 5, "1": 7}}
    again.close()
    assert opened(left).offsets == {"topic": {"0": 5, "1": 7}}


def test_columns_that_a_new_reference_brings_are_null_in_the_rows_before(tmp_path):
    spool = opened(tmp_path / "s")
    spool.append(batch(1))
    spool.close()
    wider = Layout((*LAYOUT.columns[:1], LiveColumn(name="z", kind="boolean")), "t")
    again = opened(tmp_path / "s", wider)
    while again.tidy(datetime.now(UTC)):
        pass
    again.append(from_records([{"t": "2026-03-01T00:00:00Z", "z": True}], wider, NOW).batch)
    again.close()
    source = open_spool(PushSource(type="push", timestamp="t", spool=tmp_path / "s"), {})
    assert source.columns().names == ["t", "n", "z"]
    found = [r for s in source.splits(None) for b in source.batches(s, ["n", "z"]) for r in b.to_pylist()]
    assert [(r["n"], r["z"]) for r in found] == [(1, None), (None, True)]


def test_a_reader_that_has_begun_finds_its_files_after_they_were_put_together(tmp_path):
    spool = opened(tmp_path / "s")
    for n in range(3):
        spool.append(batch(n))
        spool.roll()()
    source = open_spool(PushSource(type="push", timestamp="t", spool=spool.folder), {})
    splits = source.splits(None)
    assert spool.tidy(datetime.now(UTC) + 2 * HOUR)
    assert sum(b.num_rows for s in splits for b in source.batches(s, ["n"])) == 3
    assert rows(spool.folder) == [0, 1, 2]
    assert len(current(all_pieces(spool.folder))) == 1


# -- which files -----------------------------------------------------------------------------------


def test_the_files_of_an_hour_that_is_over_are_put_together():
    old = [piece(n, n, NOW.replace(minute=0) - HOUR) for n in range(3)]
    new = [piece(n, n, NOW.replace(minute=0)) for n in range(3, 6)]
    assert next_merge(old + new, NOW, KEEP) == old
    assert next_merge([piece(0, 2, NOW.replace(minute=0) - HOUR), *new], NOW, KEEP) == []


def test_many_small_files_of_this_hour_are_put_together_too():
    hour = NOW.replace(minute=0)
    some = [piece(n, n, hour) for n in range(MANY - 1)]
    assert next_merge(some, NOW, KEEP) == []
    assert next_merge([*some, piece(MANY, MANY, hour)], NOW, KEEP) == [*some, piece(MANY, MANY, hour)]


def test_no_file_becomes_larger_than_is_bearable():
    hour = NOW.replace(minute=0) - HOUR
    pieces = [piece(n, n, hour, size=LARGEST // 3) for n in range(7)]
    assert next_merge(pieces, NOW, KEEP) == pieces[:3]
    assert next_merge([piece(0, 0, hour, size=LARGEST), piece(1, 1, hour)], NOW, KEEP) == []


def test_what_is_kept_for_long_is_put_together_by_day():
    days = [piece(n, n, datetime(2026, 2, 27, 5, tzinfo=UTC) + n * HOUR) for n in range(3)]
    assert next_merge(days, NOW, KEEP) == []
    assert next_merge(days, NOW, timedelta(days=30)) == days


def test_files_past_their_time_are_deleted_but_for_the_newest():
    old = [piece(n, n, NOW.replace(minute=0) - timedelta(days=4) + n * HOUR) for n in range(2)]
    assert to_delete([*old, piece(2, 2, NOW.replace(minute=0))], NOW, KEEP, HOUR) == old
    assert to_delete(old, NOW, KEEP, HOUR) == old[:1]


def test_a_file_goes_before_the_one_that_holds_its_rows():
    """Else it would count again if the next deletion never came."""
    hour = NOW.replace(minute=0) - timedelta(days=9)
    parts, whole = [piece(0, 0, hour), piece(1, 1, hour)], piece(0, 1, hour)
    newest = piece(2, 2, NOW.replace(minute=0))
    assert to_delete([whole, *parts, newest], NOW, KEEP, HOUR) == [*parts, whole]


def test_a_file_whose_rows_are_in_another_stays_for_a_while():
    hour = NOW.replace(minute=0)
    parts = [piece(0, 0, hour), piece(1, 1, hour)]
    fresh = piece(0, 1, hour, changed=NOW.timestamp() - 60)
    assert to_delete([fresh, *parts], NOW, KEEP, timedelta(minutes=15)) == []
    assert to_delete([fresh, *parts], NOW + HOUR, KEEP, timedelta(minutes=15)) == parts


def test_the_name_of_a_file_says_what_it_holds(tmp_path):
    for name in (piece_name(3, 9, NOW.replace(minute=0)), "other.parquet", ".new-x", "20260301T12-1-2.parquet"):
        (tmp_path / name).write_bytes(b"x")
    [found] = all_pieces(tmp_path)
    assert (found.first, found.last, found.hour, found.size) == (3, 9, NOW.replace(minute=0), 1)


# -- keys ------------------------------------------------------------------------------------------


def test_keys_are_remembered_until_their_time(tmp_path):
    now = int(time.time())
    keep(tmp_path, [(digest("a"), Seen(b"1" * 8, 3, now + 5000)), (digest("b"), Seen(b"2" * 8, 4, now - 1))])
    keys = Keys(tmp_path)
    assert keys.get(digest("a")) == Seen(b"1" * 8, 3, now + 5000)
    assert keys.get(digest("b")) is None
    assert keys.get(digest("c")) is None


def test_a_torn_record_of_a_key_spoils_no_other(tmp_path):
    until = int(time.time()) + 5000
    keep(tmp_path, [(digest("a"), Seen(b"1" * 8, 3, until))])
    [path] = tmp_path.glob(".keys-*")
    with path.open("ab") as file:
        file.write(b"torn")
    keep(tmp_path, [(digest("b"), Seen(b"2" * 8, 4, until))])
    keys = Keys(tmp_path)
    assert [keys.get(digest(k)).rows for k in "ab"] == [3, 4]


def test_files_of_keys_past_their_time_are_deleted(tmp_path):
    keep(tmp_path, [(digest("a"), Seen(b"1" * 8, 3, int(time.time()) - 7200))])
    keys = Keys(tmp_path)
    keys.forget()
    assert not list(tmp_path.glob(".keys-*"))


def test_the_oldest_key_is_forgotten_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr("drift_monitor.intake.seen.MOST", 2)
    keys = Keys(tmp_path)
    for name in "abc":
        keys.add(digest(name), Seen(b"1" * 8, 1, int(time.time()) + 100))
    assert [keys.get(digest(name)) is not None for name in "abc"] == [False, True, True]
    assert MOST >= 100_000


def test_a_key_is_no_part_of_another():
    assert digest("ab", "c") != digest("a", "bc")


def test_a_journal_that_is_only_begun_is_not_in_the_way(tmp_path):
    spool = opened(tmp_path / "s")
    spool.close()
    (tmp_path / "s" / ".journal-000000000001").write_bytes(struct.pack("<4sIII", b"DMJ1", 9, 9, 9))
    (tmp_path / "s" / ".journal-000000000002").write_bytes(b"")
    again = opened(tmp_path / "s")
    again.append(batch(1))
    again.close()
    assert rows(tmp_path / "s") == [1]
    assert not list((tmp_path / "s").glob(".journal-*"))


def test_the_metadata_of_a_file_says_where_kafka_was_read_to(tmp_path):
    spool = opened(tmp_path / "s")
    spool.append(batch(1), offsets={"topic": {"3": 9}})
    spool.close()
    newest = all_pieces(tmp_path / "s")[-1]
    metadata = pq.read_metadata(newest.path).metadata
    assert json.loads(metadata[b"drift_monitor.offsets"]) == {"topic": {"3": 9}}
