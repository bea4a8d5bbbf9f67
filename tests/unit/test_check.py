"""One check composed, and what in a policy does not fit."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from drift_monitor.core.check import baseline, check
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.fold import category_counts, numbers, profile_buckets
from drift_monitor.core.misfits import misfits
from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import IDS_KEPT, CategoricalSpec, NumericSpec, Profile, Spec, merge
from drift_monitor.core.types import CheckResult, Outcome, ReferenceId, Window

DOCS = Path(__file__).parents[2] / "docs"
DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
REFERENCE_ID = ReferenceId(version="v1", sha256="0" * 64, rows=20_000, created=START)
SCHEMA = {"t": "timestamp[us, tz=UTC]", "x": "double", "temp": "double", "c": "string", "id": "int64"}


def day(number: int, n: int = 1000) -> pa.RecordBatch:
    """x and c are the same every day; temp is another every day."""
    rng = np.random.default_rng(number)
    at = np.sort(rng.random(n)) * 86400
    return pa.RecordBatch.from_pydict(
        {
            "t": pa.array(
                [START + timedelta(days=number, seconds=float(s)) for s in at], pa.timestamp("us", "UTC")
            ),
            "x": rng.normal(100, 10, n),
            "temp": rng.normal(10 * np.sin(number), 1, n),
            "c": rng.choice(["a", "b"], n),
            "id": np.arange(n) + number * n,
        }
    )


DAYS = pa.Table.from_batches([day(i) for i in range(20)])
SPECS: list[Spec] = [
    NumericSpec.fit("x", numbers(DAYS["x"].combine_chunks())),
    NumericSpec.fit("temp", numbers(DAYS["temp"].combine_chunks())),
    CategoricalSpec.fit("c", category_counts(DAYS["c"].combine_chunks())),
]
WINDOWS = profile_buckets(SPECS, DAYS.to_batches(), timestamp="t", bucket=DAY, id_column="id")
REFERENCE = merge(WINDOWS.values())


def profile(batch: pa.RecordBatch) -> Profile | None:
    return merge(profile_buckets(SPECS, [batch], timestamp="t", id_column="id").values())


def run(
    batch: pa.RecordBatch | None, *, number: int = 30, windows: bool = True, alarm: Alarm | None = None
) -> CheckResult:
    assert REFERENCE is not None
    start = START + number * DAY
    return check(
        "flights",
        Window(start=start, end=start + DAY),
        SPECS,
        REFERENCE,
        REFERENCE_ID,
        None if batch is None else profile(batch),
        SCHEMA,
        alarm or Alarm(),
        Quality(),
        baseline(SPECS, REFERENCE, Quality(), DAY, WINDOWS if windows else None),
        invalid_rows=3,
    )


def scaled(batch: pa.RecordBatch, factor: float) -> pa.RecordBatch:
    at = batch.schema.get_field_index("x")
    return batch.set_column(at, "x", pa.array(batch["x"].to_numpy() * factor))


def test_a_fault_is_named_before_what_changes_every_day() -> None:
    found = run(scaled(day(30), 1.2))
    assert found.verdict is Outcome.DRIFT
    assert [f.name for f in found.drifted] == ["x", "temp"]
    assert found.failed_quality == ()
    pooled = run(scaled(day(30), 1.2), windows=False)
    assert pooled.verdict is Outcome.DRIFT
    assert {f.name for f in pooled.drifted} == {"x", "temp"}


def test_the_result_carries_what_was_seen() -> None:
    batch = day(30)
    found = run(batch)
    assert (found.monitor, found.rows, found.invalid_rows, found.duplicate_rows) == ("flights", 1000, 3, 0)
    assert found.newest_event == batch["t"][-1].as_py()
    assert found.reference == REFERENCE_ID
    assert {q.check for q in found.quality} >= {
        "schema",
        "null_rate",
        "unseen",
        "out_of_range",
        "volume",
        "duplicates",
    }
    assert found.seconds == {}
    assert found.versions == {}


def test_a_broken_window_is_not_a_drifted_one() -> None:
    found = run(scaled(day(30), 1000.0))
    assert found.verdict is Outcome.BROKEN
    assert found.reason.startswith("x: 100.00% of 1000 rows are outside")
    assert found.score is not None
    assert found.score > 1


def test_no_rows_are_no_data() -> None:
    for batch in (None, day(30).slice(0, 0)):
        found = run(batch)
        assert (found.verdict, found.rows, found.score, found.features) == (Outcome.NO_DATA, 0, None, ())


def test_the_same_profiles_give_the_same_bytes_in_any_order_of_rows() -> None:
    batch = scaled(day(30), 1.1)
    shuffled = batch.take(pa.array(np.random.default_rng(1).permutation(batch.num_rows)))
    parts = [shuffled.slice(i, 77) for i in range(0, 1000, 77)]
    in_parts = merge(profile_buckets(SPECS, parts, timestamp="t", id_column="id").values())
    assert REFERENCE is not None
    window = run(batch).window
    again = check(
        "flights",
        window,
        SPECS,
        REFERENCE,
        REFERENCE_ID,
        in_parts,
        SCHEMA,
        Alarm(),
        Quality(),
        baseline(SPECS, REFERENCE, Quality(), DAY, WINDOWS),
        invalid_rows=3,
    )
    assert again.model_dump_json() == run(batch).model_dump_json()
    assert CheckResult.model_validate_json(again.model_dump_json()) == again


def test_duplicate_rows_are_counted_or_estimated() -> None:
    twice = pa.concat_batches([day(30, 500), day(30, 500)])
    assert run(twice).duplicate_rows == 500
    n = 2 * IDS_KEPT
    rng = np.random.default_rng(0)
    many = pa.RecordBatch.from_pydict(
        {
            "t": pa.array(np.full(2 * n, 0), pa.timestamp("us", "UTC")),
            "x": rng.normal(100, 10, 2 * n),
            "temp": np.zeros(2 * n),
            "c": np.full(2 * n, "a"),
            "id": np.tile(np.arange(n), 2),
        }
    )
    assert run(many, number=0).duplicate_rows == pytest.approx(n, rel=0.02)


def test_every_misfit_of_the_policies_is_told_at_once() -> None:
    alarm = Alarm(
        methods={"numeric": ("chi2", "kss"), "categorical": ("ks", "evidently:z")},
        thresholds={"psy": 0.1},
        features={"y": {"ks": 0.1}, "c": {"ks": 0.1}},
        report=("nope", "evidently:anything"),
        drifted_features=4,
    )
    quality = Quality(null_rate={"tmp": 0.1, "c": 0.1}, unseen={"x": 0.1}, out_of_range={"c": 0.1})
    found = misfits(SPECS, alarm, quality)
    places = [sentence.split(": ")[0] for sentence in found]
    assert places == [
        "alarm.methods.numeric",
        "alarm.methods.categorical",
        "alarm.thresholds.psy",
        "alarm.report",
        "alarm.features.c.ks",
        "alarm.methods.categorical",
        "alarm.features.y",
        "alarm.drifted_features",
        "quality.null_rate.tmp",
        "quality.unseen.x",
        "quality.out_of_range.c",
    ]
    assert found[0] == "alarm.methods.numeric: there is no method 'kss'; did you mean 'ks'?"
    assert found[3].startswith("alarm.report: there is no method 'nope'; there are ks, anderson_darling")
    assert found[1].startswith("alarm.methods.categorical: method 'ks' is not for categorical features; max_bin_z")
    assert found[8] == "quality.null_rate.tmp: the reference has no feature 'tmp'; did you mean 'temp'?"
    with pytest.raises(ConfigError, match="evidently:z has no threshold of its own"):
        run(day(30), alarm=alarm)


def test_policies_that_fit_have_no_misfits() -> None:
    alarm = Alarm(methods={"categorical": ("evidently:z",)}, thresholds={"evidently:z": 0.9, "psi": 0.2})
    assert misfits(SPECS, alarm, Quality(constant={"c": 0.9}, out_of_range={"x": 0.1})) == []


def test_the_example_of_the_documentation_runs() -> None:
    failures, tried = doctest.testfile(str(DOCS / "verdict.md"), module_relative=False)
    assert (failures, tried > 15) == (0, True)
