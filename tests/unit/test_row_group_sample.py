"""A sample of whole row groups: of every hour, the same at each look, and the result says how much it is."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_checks import DAY, HOUR, LIVE, PER_HOUR, START, both, check, count_rows, monitor, rows

from drift_monitor.cli.draw import draw_verdict
from drift_monitor.config.loop import unrefreshable
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Outcome, Window
from drift_monitor.service.backtest import Replay
from drift_monitor.sources.files import Files, open_files
from drift_monitor.sources.parquet_files import Footer, RowGroup
from drift_monitor.sources.row_groups import choose, rows_in

GROUP = 4
"""Rows of a row group: ten groups an hour."""
N = 24 * PER_HOUR


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two live days in a file each, with ten row groups an hour; a tenth of them is to be read."""
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    for day in range(2):
        write(tmp_path, f"{day}", rows(LIVE + day * DAY, 24, seed=2 + day))
    sample(tmp_path, 10.0)
    return tmp_path


def write(data: Path, name: str, table: pa.Table, size: int = GROUP) -> None:
    pq.write_table(table, data / "live" / f"{name}.parquet", row_group_size=size)


def sample(data: Path, percent: float | None) -> None:
    source = {"path": str(data / "live" / "*"), "sample": percent}
    (data / "source.json").write_text(json.dumps(source))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_rows(monkeypatch)


FILES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 5 * 3600))), max_size=9),
    min_size=1,
    max_size=4,
)


@given(FILES, st.floats(0.1, 99.9))
def test_of_every_hour_the_share_that_was_asked_for(files: list[list[Any]], percent: float) -> None:
    footers = {
        bytes([i]): Footer(
            pa.schema([]),
            tuple(
                RowGroup(n, None if t is None else t * 10**6, None if t is None else t * 10**6) for n, t in groups
            ),
        )
        for i, groups in enumerate(files)
    }
    chosen = choose(footers, percent)
    assert chosen == choose(dict(reversed(footers.items())), percent)
    there, taken = Counter[object](), Counter[object]()
    for file, footer in footers.items():
        for number, group in enumerate(footer.row_groups):
            hour = file if group.oldest is None else group.oldest // 3_600_000_000
            there[hour] += group.rows > 0
            taken[hour] += number in chosen[file]
            assert group.rows or number not in chosen[file]
    assert taken == Counter({hour: ceil(n * percent / 100) for hour, n in there.items()})


def test_rows_are_counted_by_the_time_that_groups_share_with_a_window() -> None:
    hour = 3_600_000_000
    base = round(LIVE.timestamp() * 1e6)
    groups = [RowGroup(100, base - hour, base - 1), RowGroup(100, base - hour, base + 3 * hour - 1), RowGroup(7)]
    assert rows_in(groups, Window(start=LIVE, end=LIVE + HOUR)) == pytest.approx(25 + 7)
    assert rows_in(groups, None) == 207


def test_a_group_of_one_instant_is_in_a_window_or_not() -> None:
    base = round(LIVE.timestamp() * 1e6)
    window = Window(start=LIVE, end=LIVE + HOUR)
    for at, rows_there in ((base - 1, 0), (base, 100), (base + 3_600_000_000 - 1, 100), (base + 3_600_000_000, 0)):
        assert rows_in([RowGroup(100, at, at)], window) == rows_there


def test_a_sample_is_the_same_kept_and_directly_and_is_told(data: Path, read: Counter[str]) -> None:
    for hour in range(0, 25, 4):
        result = both(data, LIVE + DAY + hour * HOUR)
        assert result.rows == N // 10
        assert result.sample == pytest.approx(10.0)
        assert result.reason.endswith("; read: 10% of the rows, in whole row groups")
        (volume,) = (q for q in result.quality if q.check == "volume")
        assert volume.message.startswith("about 960 rows, by the 96 of the sample; ")
        assert not volume.failed
    assert read["rows"] == 2 * N // 10
    assert "96 rows of a sample of 10%" in str(draw_verdict(result).renderables[-2])


def test_volume_is_that_of_the_whole(data: Path) -> None:
    """A day of a twentieth of the rows is too little, though more was read of it than of usual days."""
    write(data, "0", rows(LIVE, 24, seed=5).take(list(range(0, N, 20))), 2)
    sample(data, 90.0)
    (volume,) = (q for q in both(data, LIVE + DAY).quality if q.check == "volume")
    assert volume.failed
    assert volume.message.startswith(
        "about 48 rows, by the 48 of the sample; "
    )  # a row group an hour, all are read


def test_duplicates_are_those_of_the_sample(data: Path) -> None:
    (duplicates,) = (q for q in both(data, LIVE + DAY).quality if q.check == "duplicates")
    assert "of the rows of the sample repeat an id" in duplicates.message


def test_the_choice_is_made_once_and_not_for_each_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in range(20):
        write(data, f"hour{hour}", rows(LIVE + hour * HOUR, 1, seed=hour))
    source = open_files(FilesSource(path=str(data / "live" / "*"), timestamp="time", sample=10.0), {})
    choices: list[Window | None] = []
    real = Files._chosen
    monkeypatch.setattr(Files, "_chosen", lambda self, window: (choices.append(window), real(self, window))[1])
    day = Window(start=LIVE, end=LIVE + DAY)
    assert source.splits(day)
    assert source.units(day, ["speed"], HOUR)
    assert choices == [day, day]


def test_a_window_without_a_chosen_group_is_read_whole(data: Path) -> None:
    window = {"length": "10m", "bucket": "10m", "span": timedelta(minutes=10)}
    found = [both(data, LIVE + k * timedelta(minutes=10), **window) for k in range(1, 13)]
    assert all(result.rows > 0 and result.verdict is not Outcome.NO_DATA for result in found)
    shares = [result.sample for result in found]
    assert max(filter(None, shares)) == 100.0
    assert min(filter(None, shares)) < 100.0


def test_late_files_join_the_sample_of_their_hours(data: Path, read: Counter[str]) -> None:
    both(data, LIVE + DAY)
    write(data, "late", rows(LIVE + 3 * HOUR, 2, seed=9))
    result = both(data, LIVE + DAY)
    assert result.rows == N // 10 + 2 * GROUP  # 2 of 20 groups in each of two hours


def test_a_backtest_judges_the_same_rows(data: Path) -> None:
    replay = Replay("m", monitor(data), data / "state", LIVE, LIVE + 2 * DAY, rivals=False)
    found = [result for result, _ in replay.judged()]
    assert len(found) == 25
    assert {result.rows for result in found} == {N // 10}
    last = check(data, LIVE + 2 * DAY)
    assert (found[-1].quality, found[-1].sample) == (last.quality, last.sample)


def test_text_has_no_row_groups(data: Path) -> None:
    with pytest.raises(ValueError, match="`sample` chooses row groups of Parquet files"):
        FilesSource(path="live/*.csv", sample=10.0)
    with pytest.raises(ValueError, match="`sample` chooses row groups of Parquet files"):
        FilesSource(path="captures/", format="sagemaker", sample=10.0)
    pacsv.write_csv(rows(LIVE, 1, seed=1), data / "live" / "more.csv")
    with pytest.raises(SourceError, match=r"`sample` chooses row groups .*more.csv' is text, which has none"):
        open_files(FilesSource(path=str(data / "live"), sample=10.0), {})
    assert "more.csv" in check(data, LIVE + DAY).reason


def test_a_training_set_takes_in_all_rows(data: Path) -> None:
    assert "source.sample" in (unrefreshable(monitor(data).source, None) or "")
