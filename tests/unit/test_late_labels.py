"""Labels that come later: which label a row has, what the losses are, and where they go."""

from __future__ import annotations

import json
import logging
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_absolute_error, zero_one_loss

from drift_monitor.actions.refresh import LabelsRequest, RefreshRequest
from drift_monitor.cli import main
from drift_monitor.cli.layers import examine_layers
from drift_monitor.config.file import load
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.late_labels import LateLabels, keys_of
from drift_monitor.core.performance import Decision, Losses, Mean
from drift_monitor.core.types import CheckResult, FailureReason, Performance, Window
from drift_monitor.service import performance as module
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.feature_series import FeatureSeries
from drift_monitor.service.labels import count_labels
from drift_monitor.service.metrics import METRICS, PREFIX
from drift_monitor.service.projection import View, project
from drift_monitor.service.refresh_manifest import read_manifest
from drift_monitor.service.refreshing import rebuild, refresh
from drift_monitor.service.store import Store
from drift_monitor.sources import SOURCES, labelled
from drift_monitor.sources.files import Files, FileSplit, open_files
from drift_monitor.sources.labelled import Labelled, open_labelled

DOCS = Path(__file__).parents[2] / "docs"
START = datetime(2024, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TRAINED, DAYS, PER_DAY = 6, 6, 120
LIVE = START + TRAINED * DAY
UTC_TIME = pa.timestamp("us", "UTC")


def rows(start: datetime, days: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * PER_DAY
    p = rng.random(n)
    return pa.table(
        {
            "at": pa.array([start + DAY * (i / PER_DAY) for i in range(n)], UTC_TIME),
            "id": pa.array([f"{seed}-{i}" for i in range(n)]),
            "speed": rng.normal(100, 10, n),
            "p": p,
            "late": rng.random(n) < p,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training rows with labels, live rows without, and their labels 30 hours after each."""
    pq.write_table(rows(START, TRAINED, seed=1), tmp_path / "training.parquet")
    live = rows(LIVE, DAYS, seed=2)
    (tmp_path / "live").mkdir()
    (tmp_path / "labels").mkdir()
    pq.write_table(live.drop_columns("late"), tmp_path / "live" / "1.parquet")
    known = pa.array([t + 30 * HOUR for t in live["at"].to_pylist()], UTC_TIME)
    pq.write_table(
        pa.table({"flight": live["id"], "is_late": live["late"], "known": known}),
        tmp_path / "labels" / "1.parquet",
    )
    return tmp_path


def raw(folder: Path, **labels: Any) -> dict[str, Any]:
    source = {"path": str(folder / "labels" / "*"), "timestamp": "known"}
    return {
        "reference": str(folder / "training.parquet"),
        "source": {"path": str(folder / "live" / "*"), "timestamp": "at"},
        "schedule": {"every": "1d"},
        "columns": {"id": "id", "label": "late", "prediction": "p"},
        "labels": {"source": source, "id": "flight", "label": "is_late", "horizon": "2d"} | labels,
        "refresh": {"live": f"{DAYS}d"},
        "alarm": {"false_alerts_per_month": None},
    }


def monitor(folder: Path, **labels: Any) -> Monitor:
    return Monitor.model_validate_json(json.dumps(raw(folder, **labels)))


def check(folder: Path, end: datetime = LIVE + DAYS * DAY, **labels: Any) -> CheckResult:
    window = Window(start=end - DAY, end=end)
    return evaluate(
        CheckRequest(name="m", monitor=monitor(folder, **labels), state=folder / "state", window=window)
    )


def performance(folder: Path, **labels: Any) -> Performance:
    found = check(folder, **labels).performance
    assert found is not None
    return found


# -- which label a row has -----------------------------------------------------------------------------


def joined(
    folder: Path, live: Any, labels: Any, *, id_type: Any = None, their_id: Any = None, label: Any = None
) -> list[Any]:
    """The labels of rows (id, hour), from labels (id, label, hour); the horizon is 48 hours."""
    for old in [*(folder / "live").iterdir(), *(folder / "labels").iterdir()]:
        old.unlink()

    def times(hours: list[int | None]) -> pa.Array:
        return pa.array([None if h is None else START + h * HOUR for h in hours], UTC_TIME)

    ids = pa.array([i for i, _ in live], id_type)
    pq.write_table(pa.table({"id": ids, "at": times([h for _, h in live])}), folder / "live" / "1.parquet")
    for n in range(0, len(labels), 3):  # in several files, and so in several batches
        some = labels[n : n + 3]
        table = pa.table(
            {
                "flight": pa.array([i for i, _, _ in some], their_id),
                "is_late": pa.array([v for _, v, _ in some], label or pa.bool_()),
                "known": times([h for _, _, h in some]),
            }
        )
        pq.write_table(table, folder / "labels" / f"{n}.parquet")
    source = opened(folder)
    window = Window(start=START, end=START + 10 * DAY)
    source.look_up(window)
    return [
        label
        for split in source.splits(window)
        for batch in source.batches(split, ["late"])
        for label in batch.column("late").to_pylist()
    ]


def opened(folder: Path) -> Labelled:
    watched = monitor(folder)
    assert watched.labels is not None
    live = open_files(watched.source, {"id": "categorical"})  # type: ignore[arg-type]
    return open_labelled(live, watched.labels, watched.columns, "at", None)


@pytest.mark.parametrize(
    ("live", "labels", "expected"),
    [
        ([("a", 0)], [("a", True, 1)], [True]),
        ([("a", 0)], [("a", True, 0)], [True]),  # known at once
        ([("a", 0)], [("a", True, 48)], [True]),  # at the very end of the horizon
        ([("a", 0)], [("a", True, 49)], [None]),
        ([("a", 5)], [("a", True, 4)], [None]),  # a label of something before
        ([("a", 0)], [("b", True, 1)], [None]),
        ([("a", 0)], [], [None]),
        ([("a", 0)], [("a", True, 1), ("a", False, 2)], [False]),  # it changed: the newest counts
        ([("a", 0)], [("a", False, 2), ("a", True, 1)], [False]),  # whatever the order
        ([("a", 0)], [("a", True, 1), ("a", False, 49)], [True]),  # but not past the horizon
        ([("a", 0)], [("a", True, 1), ("a", None, 2)], [True]),  # a null is no label, and takes none back
        ([("a", 0)], [("a", None, 1)], [None]),
        ([("a", 0)], [("a", True, None)], [None]),  # nobody knows when
        ([("a", 0)], [("a", True, 3), ("a", False, 3)], [False]),  # at one time: the one that is read last
        ([("a", 0), ("a", 60)], [("a", True, 10), ("a", False, 70)], [True, False]),  # each in its own horizon
        ([("a", 0), ("a", 1)], [("a", True, 10)], [True, True]),
        ([(None, 0)], [(None, True, 1)], [None]),
        ([("", 0)], [("", True, 1)], [True]),
        ([("007", 0), ("7", 0)], [("7", True, 1)], [None, True]),
    ],
)
def test_a_row_has_the_newest_label_of_its_id_within_the_horizon(
    folder: Path, live: Any, labels: Any, expected: Any
) -> None:
    assert joined(folder, live, labels or [("nobody", True, 0)]) == expected


def test_ids_of_two_types_are_compared_as_texts(folder: Path) -> None:
    live = [("7", 0), ("007", 0), ("-1", 0)]
    labels = [(7, True, 1), (-1, False, 1)]
    assert joined(folder, live, labels, their_id=pa.int64()) == [True, None, False]
    assert joined(folder, [(7, 0), (8, 0)], [("7", True, 1), ("08", True, 1)], id_type=pa.int32()) == [True, None]
    assert joined(folder, [("7", 0)], [(7.0, True, 1)], their_id=pa.float64()) == [True]


def test_labels_may_be_numbers_or_texts(folder: Path) -> None:
    numbers = [("a", 2.5, 1), ("b", math.nan, 1)]
    assert joined(folder, [("a", 0), ("b", 0)], numbers, label=pa.float64()) == [2.5, None]
    texts = [("a", "yes", 1), ("b", "no", 1), ("c", "yes", 1), ("d", "maybe", 1)]
    assert joined(folder, [(c, 0) for c in "dcba"], texts, label=pa.string()) == ["maybe", "yes", "no", "yes"]


_EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=30)


@given(_EVENTS, _EVENTS)
@hypothesis_settings(max_examples=100, deadline=None)
def test_the_join_is_that_of_the_definition(live: list[tuple[str, int]], known: list[tuple[str, int]]) -> None:
    known = list(dict.fromkeys(known))  # of two at one time the last counts, which a table above has
    labels = [(i, t, n) for n, (i, t) in enumerate(known)]

    def column(values: list[Any], dtype: Any) -> pa.Array:
        return pa.array(values, dtype)

    wanted = np.unique(keys_of(column([i for i, _ in live], pa.string()))[1])
    batches = [
        (
            column([i for i, _, _ in b], pa.string()),
            column([t for _, t, _ in b], pa.int64()).cast(UTC_TIME),
            column([n for _, _, n in b], pa.int64()),
        )
        for b in (labels[::2], labels[1::2])
    ]
    found = LateLabels.gather(wanted, batches, pa.int64(), most=1000)
    ids, times = column([i for i, _ in live], pa.string()), column([t for _, t in live], pa.int64()).cast(UTC_TIME)
    expected = [
        max(((t, n) for j, t, n in labels if j == i and begin <= t <= begin + 20), default=(0, None))[1]
        for i, begin in live
    ]
    assert found.of(ids, times, 20).to_pylist() == expected


def test_more_ids_or_labels_than_fit_in_memory_are_refused(folder: Path) -> None:
    source = opened(folder)
    source._most = 100
    with pytest.raises(SchemaError, match="more than 100 ids are in 2024-03-07"):
        source.look_up(Window(start=LIVE, end=LIVE + DAY))
    ids, times = pa.array(["a"] * 3), pa.array([START] * 3, UTC_TIME)
    with pytest.raises(SchemaError, match="more than 2 labels belong"):
        LateLabels.gather(keys_of(ids[:1])[1], [(ids, times, pa.array([1, 2, 3]))], pa.int64(), most=2)


def hours(*of: int | None) -> pa.Array:
    return pa.array([None if h is None else h * 3_600_000_000 for h in of], pa.timestamp("us"))


def test_a_row_whose_id_is_null_in_a_dictionary_has_no_label() -> None:
    ids = pa.array([None, "a", None, "b"]).dictionary_encode()
    assert keys_of(ids)[0].tolist() == [False, True, False, True]
    labels = (pa.array(["a", "b"]), hours(1, 1), pa.array([7, 8]))
    found = LateLabels.gather(np.unique(keys_of(ids.dictionary)[1]), [labels], pa.int64(), most=100)
    assert found.of(ids, hours(0, 0, 0, 0), 3_600_000_000).to_pylist() == [None, 7, None, 8]


def test_the_labels_of_all_batches_together_are_held_against_the_limit() -> None:
    ids = pa.array(["a", "b"])
    batches = [(ids, hours(n, n), pa.array([n, n])) for n in range(3)]
    wanted = np.unique(keys_of(ids)[1])
    assert len(LateLabels.gather(wanted, batches, pa.int64(), most=6).value) == 6
    with pytest.raises(SchemaError, match="more than 5 labels belong"):
        LateLabels.gather(wanted, batches, pa.int64(), most=5)


def test_labels_of_ids_that_no_row_has_are_not_held() -> None:
    ids = pa.array(["a", "b", "c", "d"])
    batch = (ids, hours(1, 1, 1, 1), pa.array([1, 2, 3, 4]))
    wanted = np.unique(keys_of(pa.array(["b", "d"]))[1])
    found = LateLabels.gather(wanted, [batch], pa.int64(), most=2)
    assert sorted(found.value.to_pylist()) == [2, 4]


def test_a_label_of_which_nobody_knows_when_is_none_outside_the_horizon_either() -> None:
    ids = pa.array(["a"])
    known = hours(9)
    of_nothing = pa.Array.from_buffers(known.type, 1, [pa.py_buffer(b"\0"), known.buffers()[1]])  # null over a 9
    found = LateLabels.gather(keys_of(ids)[1], [(ids, of_nothing, pa.array([1]))], pa.int64(), most=100)
    assert found.of(ids, hours(8), 2 * 3_600_000_000).to_pylist() == [None]
    assert len(found.outside(ids, hours(0), 1)) == 0


def test_the_ids_of_many_files_are_wanted_whether_they_are_counted_together_or_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelled, "_TOGETHER", 100)
    live = pq.read_table(folder / "live" / "1.parquet")
    for n in range(DAYS):
        pq.write_table(live.slice(n * PER_DAY, PER_DAY), folder / "live" / f"{n}.parquet")
    source = opened(folder)
    window = Window(start=LIVE, end=LIVE + DAYS * DAY)
    source.look_up(window)
    found = {
        row["id"]: row["late"]
        for split in source.splits(window)
        for batch in source.batches(split, ["id", "late"])
        for row in batch.to_pylist()
    }
    truth = rows(LIVE, DAYS, seed=2)
    assert found == dict(zip(truth["id"].to_pylist(), truth["late"].to_pylist(), strict=True))


def test_a_column_of_labels_in_the_live_rows_is_not_looked_at(folder: Path) -> None:
    live = pq.read_table(folder / "live" / "1.parquet")
    pq.write_table(live.append_column("late", pa.array(["?"] * len(live))), folder / "live" / "1.parquet")
    schema = opened(folder).columns(Window(start=LIVE, end=LIVE + DAY))
    assert [field.type for field in schema if field.name == "late"] == [pa.bool_()]
    assert performance(folder).labelled == 120


# -- losses --------------------------------------------------------------------------------------------


def test_the_losses_of_yes_and_no_are_those_of_scikit_learn_and_of_a_count() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(1000)
    truth = rng.random(1000) < p
    losses = Losses(Decision(0.3, false_negative=5, false_positive=1))
    for at in range(0, 1000, 77):
        losses.add(pa.array(p[at : at + 77]), pa.array(truth[at : at + 77]))
    assert losses.truth == "yes or no"
    means = losses.means(losses.truth)
    missed, alarmed = (truth & (p < 0.3)).sum(), (~truth & (p >= 0.3)).sum()
    each = -np.log(np.where(truth, p, 1 - p))
    assert means["log_loss"].value == pytest.approx(log_loss(truth, p), rel=1e-12)
    assert means["log_loss"].standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(1000), rel=1e-12)
    assert means["error_rate"].value == pytest.approx((missed + alarmed) / 1000, rel=1e-12)
    assert means["cost"].value == pytest.approx((5 * missed + alarmed) / 1000, rel=1e-12)


def test_other_truths_have_a_mean_absolute_error_and_what_is_no_number_is_not_scored() -> None:
    losses = Losses(Decision())
    losses.add(pa.array([1.0, 5.0, None, math.inf, 2.0]), pa.array([3, 5, 1, 1, None]))
    assert (losses.rows, losses.labelled, losses.truth) == (5, 4, "numbers")
    ((name, mean),) = losses.means(losses.truth).items()
    assert (name, mean.value, mean.count) == ("mean_absolute_error", mean_absolute_error([3, 5], [1, 5]), 2)
    assert Mean().standard_error is None


@pytest.mark.parametrize("other", [([0.5], [2.0]), ([-0.5], [1.0]), ([1.5], [0.0])])
@pytest.mark.parametrize("last", [True, False])
def test_one_truth_or_prediction_that_is_no_yes_or_no_makes_all_numbers(
    other: tuple[list[float], list[float]], *, last: bool
) -> None:
    batches = [other, ([0.2, 0.9], [0.0, 1.0])]
    losses = Losses(Decision())
    for predictions, labels in batches[::-1] if last else batches:
        losses.add(pa.array(predictions), pa.array(labels))
    assert losses.truth == "numbers"
    assert losses.means("yes or no")["log_loss"].count == 2  # what fits
    assert losses.means("numbers")["mean_absolute_error"].count == 3


def test_a_prediction_at_the_threshold_is_a_yes() -> None:
    losses = Losses(Decision(0.3, false_negative=5, false_positive=1))
    losses.add(pa.array([0.3, 0.3, 0.3]), pa.array([True, False, False]))
    means = losses.means("yes or no")
    assert means["error_rate"].value == pytest.approx(2 / 3)
    assert means["cost"].value == pytest.approx(2 / 3)


def test_a_certain_prediction_that_is_wrong_costs_much_and_not_everything() -> None:
    losses = Losses(Decision())
    losses.add(pa.array([0.0, 1.0]), pa.array([True, True]))
    assert losses.means("yes or no")["log_loss"].value == pytest.approx(-math.log(1e-15) / 2)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_are_classes_and_their_error_rate_is_that_of_scikit_learn(kind: pa.DataType) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["setosa", "versicolor", "virginica", "Größe"])
    truth, said = names[rng.integers(0, 4, 500)], names[rng.integers(0, 4, 500)]
    losses = Losses(Decision(false_negative=5, false_positive=1))
    for at in range(0, 500, 77):
        labels, predictions = pa.array(truth[at : at + 77]).cast(kind), pa.array(said[at : at + 77])
        losses.add(predictions, labels)
    assert losses.truth == "classes"
    ((name, mean),) = losses.means(losses.truth).items()
    wrong = zero_one_loss(truth, said)
    assert (name, mean.value, mean.count) == ("error_rate", pytest.approx(wrong, rel=1e-12), 500)
    deviation = math.sqrt(wrong * (1 - wrong) * 500 / 499)
    assert mean.standard_error == pytest.approx(deviation / math.sqrt(500), rel=1e-12)


def test_a_class_that_is_not_there_is_not_scored() -> None:
    losses = Losses(Decision())
    losses.add(pa.array(["a", None, "b", "a "]), pa.array(["a", "a", None, "a"]))
    assert (losses.rows, losses.labelled) == (4, 3)
    assert losses.means("classes")["error_rate"].value == 0.5
    assert losses.means("classes")["error_rate"].count == 2


@pytest.mark.parametrize("nothing", ["predictions", "labels"])
def test_rows_without_predictions_or_labels_are_counted(nothing: str) -> None:
    losses = Losses(Decision())
    names, none = pa.array(["a", "b"]), pa.nulls(2)
    losses.add(*((none, names) if nothing == "predictions" else (names, none)))
    assert (losses.rows, losses.labelled) == (2, 2 if nothing == "predictions" else 0)
    assert losses.means(losses.truth) == {}


def test_texts_beside_numbers_are_refused() -> None:
    for predictions, labels in ((pa.array([0.5]), pa.array(["a"])), (pa.array(["a"]), pa.array([1.0]))):
        with pytest.raises(SchemaError, match="are string: losses are of numbers"):
            Losses(Decision()).add(predictions, labels)


# -- a check -------------------------------------------------------------------------------------------


def in_words(folder: Path, files: str) -> None:
    """Write predictions and labels of some files as words."""
    for path in folder.rglob(files):
        table = pq.read_table(path)
        for name in {"p", "late", "is_late"} & {*table.column_names}:
            yes = pc.greater_equal(table[name].cast(pa.float64()), 0.5)
            words = pc.if_else(yes, "late", "on time").combine_chunks()
            table = table.set_column(table.column_names.index(name), name, words)
        pq.write_table(table, path)


def test_a_check_scores_classes(folder: Path) -> None:
    in_words(folder, "*.parquet")
    found = performance(folder)
    [loss] = found.losses
    assert (loss.metric, found.scored) == ("error_rate", found.labelled)
    assert 0 < loss.value < 1
    assert loss.reference is not None
    assert found.note == ""


def test_a_check_tells_that_classes_are_not_what_the_reference_has(folder: Path) -> None:
    in_words(folder, "1.parquet")
    found = performance(folder)
    assert (found.losses, found.scored) == ((), 0)
    assert "nothing could be scored" in found.note


def test_a_check_tells_that_no_prediction_is_a_class(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        for name in {"p", "late", "is_late"} & {*table.column_names}:
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
        pq.write_table(table, path)
    assert "no prediction is the text of its label" in performance(folder).note


def test_a_check_scores_the_newest_window_whose_labels_are_complete(folder: Path) -> None:
    found = performance(folder, costs={"false_negative": 5, "false_positive": 1})
    day = DAYS - 3  # the window ends on day 6, and its labels may take two
    assert found.window == Window(start=LIVE + day * DAY, end=LIVE + (day + 1) * DAY)
    live, trained = rows(LIVE, DAYS, seed=2).slice(day * PER_DAY, PER_DAY), rows(START, TRAINED, seed=1)
    assert (found.rows, found.labelled, found.scored, found.coverage, found.note) == (120, 120, 120, 1.0, "")
    assert found.reference_rows == TRAINED * PER_DAY
    by_name = {loss.metric: loss for loss in found.losses}
    assert by_name.keys() == {"log_loss", "error_rate", "cost"}
    for side, value in ((live, by_name["log_loss"].value), (trained, by_name["log_loss"].reference)):
        assert value == pytest.approx(log_loss(side["late"].to_numpy(), side["p"].to_numpy()), rel=1e-9)
    wrong = (live["p"].to_numpy() >= 0.5) != live["late"].to_numpy()
    assert by_name["error_rate"].value == pytest.approx(wrong.mean())


def test_labels_that_have_not_come_lower_the_coverage_and_nothing_else(folder: Path) -> None:
    path = folder / "labels" / "1.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.array([i % 4 != 0 for i in range(table.num_rows)])), path)
    found = performance(folder)
    assert (found.rows, found.labelled) == (120, 90)
    assert performance(folder, horizon="1d").labelled == 0  # they come after 30 hours
    assert performance(folder, horizon="1d").losses == ()


def test_labels_in_text_files_and_in_a_database_are_the_same_labels(folder: Path) -> None:
    expected = performance(folder)
    path = folder / "labels" / "1.parquet"
    labels = pq.read_table(path)
    as_text = [(i, str(v).lower(), t.isoformat()) for i, v, t in zip(*labels.to_pydict().values(), strict=True)]
    path.unlink()
    (folder / "labels" / "1.csv").write_text(
        "flight,is_late,known\n" + "".join(f"{','.join(row)}\n" for row in as_text)
    )
    assert performance(folder) == expected
    with closing(sqlite3.connect(folder / "labels.db")) as database:
        database.execute("CREATE TABLE labels (flight TEXT, is_late BOOLEAN, known TEXT)")
        database.executemany("INSERT INTO labels VALUES (?, ? = 'true', ?)", as_text)
        database.commit()
    uri = f"sqlite://{folder / 'labels.db'}"
    source = {"type": "sql", "uri": uri, "table": "labels", "timestamp": "known"}
    assert performance(folder, source=source) == expected
    with closing(sqlite3.connect(folder / "labels.db")) as database:  # a table does not tell that it has changed
        database.execute("DELETE FROM labels WHERE rowid % 4 = 0")
        database.commit()
    assert performance(folder, source=source).labelled == expected.labelled - 30


def test_what_a_source_holds_is_held_until_the_labels_were_joined(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    reads: list[list[str]] = []

    class Held(Files):
        @contextmanager
        def held(self) -> Iterator[None]:
            held.append("once")
            yield
            held.append("no more")

        def batches(self, split: FileSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            if "/live/" in split.path:
                reads.append([*held, *columns])
            return super().batches(split, columns)

    monkeypatch.setitem(cast("dict[str, Any]", SOURCES), "files", Held)
    assert performance(folder).labelled == 120
    assert held == ["once", "no more"]
    assert {read[0] for read in reads} == {"once"}
    assert reads[-1][1:] == ["p", "id"]


def test_files_that_stay_are_read_once_and_a_late_file_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Window] = []
    real = module._measured

    def counted(*arguments: Any) -> Performance:
        measured.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(module, "_measured", counted)
    first = check(folder)
    assert check(folder, LIVE + DAYS * DAY + 6 * HOUR).performance == first.performance
    assert len(measured) == 1
    known = LIVE + (DAYS - 3) * DAY + HOUR
    late = {"flight": ["2-360"], "is_late": [True], "known": pa.array([known], UTC_TIME)}
    pq.write_table(pa.table(late), folder / "labels" / "2.parquet")
    check(folder)
    assert len(measured) == 2


def loss_of(table: pa.Table) -> Any:
    return pytest.approx(log_loss(table["late"].to_numpy(), table["p"].to_numpy()), rel=1e-9)


def test_the_losses_of_one_day_are_not_taken_for_those_of_another(folder: Path) -> None:
    live = rows(LIVE, DAYS, seed=2)  # one file holds them all
    for day in (3, 2, 3):
        found = check(folder, LIVE + (day + 3) * DAY).performance
        assert found is not None
        assert found.window.start == LIVE + day * DAY
        assert found.losses[0].value == loss_of(live.slice(day * PER_DAY, PER_DAY))


def test_new_training_rows_are_scored_anew(folder: Path) -> None:
    for seed in (1, 3):
        trained = rows(START, TRAINED, seed)
        pq.write_table(trained, folder / "training.parquet")
        assert performance(folder).losses[0].reference == loss_of(trained)


def test_rows_are_joined_anew_by_another_id(folder: Path) -> None:
    path = folder / "live" / "1.parquet"
    live = pq.read_table(path)
    pq.write_table(live.append_column("other", pa.array([f"x{i}" for i in range(len(live))])), path)
    window = Window(start=LIVE + 5 * DAY, end=LIVE + 6 * DAY)
    version = check(folder).reference
    assert version is not None
    (built,) = folder.glob(f"state/**/{version.version}/manifest.json")
    for column, labelled_rows in (("id", 120), ("other", 0)):
        settings = raw(folder) | {"reference": str(built.parent)}
        settings["columns"] |= {"id": column, "features": ["speed"]}
        watched = Monitor.model_validate_json(json.dumps(settings))
        request = CheckRequest(name="m", monitor=watched, state=folder / "state", window=window)
        found = evaluate(request).performance
        assert found is not None
        assert found.labelled == labelled_rows


def test_what_is_wrong_with_labels_costs_no_verdict(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    expected = check(folder)
    for broken, words in (
        ({"label": "nothing"}, "labels.source has no column 'nothing'; it has"),
        ({"source": {"path": str(folder / "none" / "*"), "timestamp": "known"}}, "none"),
    ):
        result = check(folder, **broken)
        assert (result.verdict, result.score) == (expected.verdict, expected.score)
        assert result.performance is not None
        assert words in result.performance.note
        assert result.performance.losses == ()


def test_without_a_prediction_labels_are_counted(folder: Path) -> None:
    settings = raw(folder)
    del settings["columns"]["prediction"]
    window = Window(start=LIVE + 5 * DAY, end=LIVE + 6 * DAY)
    watched = Monitor.model_validate_json(json.dumps(settings))
    found = evaluate(CheckRequest(name="m", monitor=watched, state=folder / "state", window=window)).performance
    assert found is not None
    assert (found.labelled, found.losses) == (120, ())
    assert "columns.prediction is not set" in found.note


def test_metrics_show_the_newest_performance(folder: Path) -> None:
    found = check(folder)
    failed = found.model_copy(update={"performance": None, "failure": FailureReason.SOURCE})
    for latest in (found, failed):  # which has none, so that of the newest judged stays
        with closing(Store.open(folder / "state")) as store:
            snapshot = replace(store.snapshot(), latest={"m": latest}, latest_judged={"m": found})
        config = Config.model_validate_json(json.dumps({"monitors": {"m": raw(folder)}}))
        view = View(config, snapshot, reload_ok=True, reloaded=START, scheduler_running=True)
        drawn = project(view, FeatureSeries(lambda _run: None))
        assert drawn["label_coverage_ratio"] == [(("m",), 1.0)]
        assert drawn["performance_labelled_rows"] == [(("m",), 120)]
        end = (LIVE + (DAYS - 2) * DAY).timestamp()
        assert drawn["performance_window_end_timestamp_seconds"] == [(("m",), end)]
        assert found.performance is not None
        for name, values in (("performance", "value"), ("performance_reference", "reference")):
            expected = {("m", loss.metric): getattr(loss, values) for loss in found.performance.losses}
            assert dict(drawn[name]) == expected


def test_a_horizon_that_is_too_short_is_told_from_ids_that_do_not_meet(folder: Path) -> None:
    short = performance(folder, horizon="1h")
    assert (short.rows, short.labelled) == (120, 0)
    assert "120 have a label after the horizon of 1h, half of these 30h after their prediction" in short.note
    assert "and 0 one before the prediction" in short.note
    known = pq.read_table(folder / "labels" / "1.parquet")
    early = pa.array([t - 31 * HOUR for t in known["known"].to_pylist()], UTC_TIME)
    pq.write_table(known.set_column(2, "known", early), folder / "labels" / "1.parquet")
    assert "0 have a label after the horizon of 2d, and 120 one before the prediction" in performance(folder).note
    other = pa.array([f"x{i}" for i in known["flight"].to_pylist()])
    pq.write_table(known.set_column(0, "flight", other), folder / "labels" / "1.parquet")
    assert "the ids of the two sources do not meet" in performance(folder).note


def test_labels_outside_the_horizon_that_cannot_be_read_cost_no_performance(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Labelled, "outside", fails)
    found = performance(folder, horizon="1h")
    assert (found.rows, found.labelled) == (120, 0)
    assert "labels outside the horizon are not counted: MemoryError" in found.note


def test_few_labels_are_looked_for_again_when_more_have_come(folder: Path) -> None:
    known = pq.read_table(folder / "labels" / "1.parquet")
    (folder / "labels" / "1.parquet").unlink()
    pq.write_table(known.slice(0, 1), folder / "labels" / "0.parquet")
    assert "they are not there yet" in performance(folder, horizon="1h").note
    pq.write_table(known, folder / "labels" / "1.parquet")
    assert "120 have a label after the horizon" in performance(folder, horizon="1h").note


def test_few_labels_are_not_looked_for_again_while_all_files_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    plain = module._measured
    monkeypatch.setattr(module, "_measured", lambda *given: measured.append(1) or plain(*given))
    first = performance(folder, horizon="1h")
    assert performance(folder, horizon="1h") == first
    assert measured == [1]
    assert performance(folder).labelled == 120  # another horizon, whose labels are there
    assert performance(folder).labelled == 120
    assert measured == [1, 1]


def test_labels_outside_the_horizon_are_counted_by_row() -> None:
    ids = pa.array(["in", "late", "early", "both", "none", "no time", None])
    labels = pa.array(["in", "late", "late", "early", "both", "both", "no time"])
    known = hours(11, 13, 15, 9, 8, 14, 10)
    wanted = np.unique(keys_of(ids.drop_null())[1])
    found = LateLabels.gather(wanted, [(labels, known, pa.array([1.0] * 7))], pa.float64(), 100)
    delays = found.outside(ids, hours(10, 10, 10, 10, 10, None, 10), 2 * 3_600_000_000)
    assert [d / 3_600_000_000 for d in delays] == [3, -1, 4]
    empty = LateLabels.gather(wanted, [], pa.float64(), 100)
    assert len(empty.outside(ids, hours(*[10] * 7), 1)) == 0


def test_a_label_at_an_end_of_the_horizon_is_not_outside() -> None:
    ids, known = pa.array(["first", "last", "before", "past"]), hours(10, 12, 9, 13)
    found = LateLabels.gather(np.sort(keys_of(ids)[1]), [(ids, known, pa.array([1] * 4))], pa.int64(), most=100)
    begin, horizon = hours(10, 10, 10, 10), 2 * 3_600_000_000
    assert found.of(ids, begin, horizon).to_pylist() == [1, 1, None, None]
    assert [d / 3_600_000_000 for d in found.outside(ids, begin, horizon)] == [-1, 3]


# -- retraining ----------------------------------------------------------------------------------------


def test_the_guard_rail_counts_late_labels_over_what_a_refresh_takes_in(folder: Path) -> None:
    window = Window(start=LIVE + 5 * DAY, end=LIVE + 6 * DAY)
    request = LabelsRequest(name="m", monitor=monitor(folder), state=folder / "state", window=window)
    found = count_labels(request)
    assert (found.rows, found.labelled) == (DAYS * PER_DAY, DAYS * PER_DAY)
    known = pq.read_table(folder / "labels" / "1.parquet")
    pq.write_table(known.slice(0, 2 * PER_DAY), folder / "labels" / "1.parquet")
    assert count_labels(request).share == pytest.approx(2 / DAYS)


def test_a_refreshed_training_set_has_the_late_labels_and_can_be_made_again(folder: Path) -> None:
    known = pq.read_table(folder / "labels" / "1.parquet")
    pq.write_table(known.slice(0, 4 * PER_DAY), folder / "labels" / "1.parquet")
    window = Window(start=LIVE + 5 * DAY, end=LIVE + 6 * DAY)
    made = refresh(
        RefreshRequest(
            name="m", monitor=monitor(folder), state=folder / "state", window=window, output=folder / "out"
        )
    )
    assert made.labelled == pytest.approx(4 / 6)
    manifest = read_manifest(made.path)
    assert manifest.live.dropped == {"no_label": 2 * PER_DAY}
    assert [file.name for file in manifest.inputs.labels] == ["1.parquet"]
    table = pa.concat_tables([pq.read_table(made.path / part.file) for part in manifest.parts])
    assert table.schema.equals(rows(START, 1, 1).schema)
    values = dict(zip(table["id"].to_pylist(), table["late"].to_pylist(), strict=True))
    truth = rows(LIVE, DAYS, seed=2).slice(0, 4 * PER_DAY)
    assert {i: values[i] for i in truth["id"].to_pylist()} == dict(
        zip(truth["id"].to_pylist(), truth["late"].to_pylist(), strict=True)
    )
    pq.write_table(known.slice(4 * PER_DAY), folder / "labels" / "2.parquet")  # which came since
    assert rebuild(made.path, folder / "again").sha256 == made.sha256


# -- configuration and page -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "columns", "words"),
    [
        ({"source": {"path": "x"}}, {}, "labels.source needs `timestamp`"),
        ({"source": {"path": "x", "timestamp": "t", "sample": 10}}, {}, "labels.source cannot be a sample"),
        ({"horizon": "0s"}, {}, "horizon"),
        ({"source": {"type": "push", "timestamp": "known"}}, {}, "type"),
        ({"threshold": 1}, {}, "threshold"),
        ({"costs": {"false_negative": -1, "false_positive": 1}}, {}, "false_negative"),
        ({}, {"id": None}, "labels needs columns.id and source.timestamp"),
        ({}, {"label": "p"}, "which is the id or the prediction as well"),
    ],
)
def test_what_is_no_configuration_of_labels(
    folder: Path, labels: dict[str, Any], columns: dict[str, Any], words: str
) -> None:
    settings = raw(folder, **labels)
    settings["columns"] |= columns
    found = examine_layers(json.dumps({"monitors": {"m": settings}}), folder / "c.yaml", offline=True)
    assert any(words in str(problem) for problem in found.problems), found.problems


def test_check_config_looks_into_the_source_of_labels(folder: Path) -> None:
    text = json.dumps({"monitors": {"m": raw(folder, id="flihgt")}})
    found = examine_layers(text, folder / "c.yaml")
    assert any("labels.id" in str(p) and "did you mean `flight`" in str(p) for p in found.problems), found.problems


def test_people_see_the_performance(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "drift-monitor.yaml").write_text(json.dumps({"monitors": {"m": raw(folder)}}))
    at = ["--config", str(folder / "drift-monitor.yaml"), "--at", f"{LIVE + DAYS * DAY:%Y-%m-%d}"]
    assert main(["check", *at]) == 0
    said = capsys.readouterr().out
    assert "120 of 120 predictions have a label (100%)" in said
    assert "log_loss 0." in said
    assert main(["explain", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["performance"]["labelled"] == 120


def test_the_page_is_right(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "labels.md").read_text(), re.DOTALL)
    names = {"at": "departure", "id": "flight_id", "p": "p_late", "late": "is_late"}
    trained, live = rows(START, TRAINED, seed=1), rows(LIVE, 10, seed=2)
    for folder in ("live", "labels"):
        (tmp_path / folder).mkdir()
    pq.write_table(
        trained.rename_columns([names.get(n, n) for n in trained.column_names]), tmp_path / "training.parquet"
    )
    without = live.drop_columns("late")
    pq.write_table(
        without.rename_columns([names.get(n, n) for n in without.column_names]), tmp_path / "live" / "1.parquet"
    )
    truth = pa.table({"flight": live["id"], "was_late": live["late"], "known_at": live["at"]})
    pq.write_table(truth, tmp_path / "labels" / "1.parquet")
    (tmp_path / "drift-monitor.yaml").write_text(blocks[0])
    config = load(tmp_path / "drift-monitor.yaml")
    window = Window(start=LIVE + 8 * DAY, end=LIVE + 9 * DAY)
    request = CheckRequest(name="flights", monitor=config.monitors["flights"], state=config.state, window=window)
    found = evaluate(request).performance
    assert found is not None
    assert (found.window.start, found.coverage, found.note) == (LIVE + DAY, 1.0, "")
    assert [loss.metric for loss in found.losses] == ["log_loss", "error_rate", "cost"]
    exported = {f"{PREFIX}{spec.name}" for spec in METRICS}
    assert set(re.findall(r"drift_monitor_[a-z_]+", blocks[1])) <= exported
