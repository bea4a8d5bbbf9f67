"""Quality checks on profiles of real Arrow rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from drift_monitor.core import expectations as ex
from drift_monitor.core.expectations import Limit, at_least, expectations, spike
from drift_monitor.core.fold import category_counts, numbers, profile_buckets
from drift_monitor.core.policy import Quality
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec, merge
from drift_monitor.core.quality import arrow_type, assess
from drift_monitor.core.types import QualityResult, Window

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def table(**columns: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def rows(seed: int, n: int, *, start: datetime = START, length: timedelta = DAY) -> dict[str, list[object]]:
    """Rows without a fault: x is uniform on the thousandths of 0..10, c has three categories."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.random(n)) * length.total_seconds()
    return {
        "t": [start + timedelta(seconds=float(s)) for s in at],
        "id": list(range(seed * 1_000_000, seed * 1_000_000 + n)),
        "x": (rng.integers(0, 10_001, n) / 1000).tolist(),
        "c": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]).tolist(),
    }


def profile(specs: Sequence[Spec], data: dict[str, list[object]], *, timed: bool = True) -> Profile:
    if not data["t"]:
        return Profile(0, {})
    whole = merge(
        profile_buckets(specs, [table(**data)], timestamp="t" if timed else None, id_column="id").values()
    )
    assert whole is not None
    return whole


class Reference:
    """Twenty days of 1000 rows, whole and cut into days."""

    def __init__(self, days: list[dict[str, list[object]]]) -> None:
        data = {k: [v for day in days for v in day[k]] for k in days[0]}
        batch = table(**data)
        self.specs: list[Spec] = [
            NumericSpec.fit("x", numbers(batch.column("x"))),
            CategoricalSpec.fit("c", category_counts(batch.column("c"))),
        ]
        self.days = profile_buckets(self.specs, [batch], timestamp="t", bucket=DAY, id_column="id")
        whole = merge(self.days.values())
        assert whole is not None
        self.whole = whole

    def assess(
        self,
        data: dict[str, list[object]],
        policy: Quality | None = None,
        *,
        sliced: bool = True,
        schema: dict[str, str] | None = None,
    ) -> tuple[QualityResult, ...]:
        start = min(data["t"], default=START)
        assert isinstance(start, datetime)
        start = start.replace(hour=0, minute=0, second=0, microsecond=0)
        return assess(
            self.specs,
            self.whole,
            profile(self.specs, data),
            schema if schema is not None else {f.name: str(f.type) for f in table(**data).schema},
            expectations(
                self.specs, self.whole, policy or Quality(), windows=self.days if sliced else None, length=DAY
            ),
            Window(start=start, end=start + DAY),
        )


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference([rows(i, 1000, start=START + i * DAY) for i in range(20)])


def failed(results: Sequence[QualityResult]) -> list[tuple[str, str | None]]:
    return [(q.check, q.feature) for q in results if q.failed]


def live(n: int = 800) -> dict[str, list[object]]:
    return rows(77, n, start=START + 30 * DAY)


def first(data: dict[str, list[object]], column: str, count: int, value: object) -> dict[str, list[object]]:
    return data | {column: [value] * count + data[column][count:]}


@pytest.mark.parametrize("sliced", [True, False])
@pytest.mark.parametrize("n", [120, 800, 9000])
def test_a_sound_window_passes_every_check(reference: Reference, n: int, sliced: bool) -> None:
    results = reference.assess(live(n), sliced=sliced)
    assert failed(results) == []
    made = {(q.check, q.feature) for q in results}
    assert made >= {
        ("schema", None),
        ("null_rate", "x"),
        ("null_rate", "c"),
        ("unseen", "c"),
        ("out_of_range", "x"),
        ("constant", "x"),
        ("constant", "c"),
        ("duplicates", None),
        ("volume", None),
    }


@pytest.mark.parametrize(
    ("column", "count", "value", "n", "expected"),
    [
        ("x", 1, None, 120, []),
        ("x", 40, None, 800, [("null_rate", "x")]),
        ("x", 40, float("nan"), 800, [("null_rate", "x")]),
        ("x", 40, float("inf"), 800, [("null_rate", "x")]),
        ("x", 500, None, 10_000, [("null_rate", "x")]),
        ("c", 800, None, 800, [("null_rate", "c")]),
        ("c", 1, "new", 800, []),
        ("c", 40, "new", 800, []),  # 5% of a new category is drift
        ("c", 300, "new", 800, [("unseen", "c")]),
        ("c", 720, "new", 8000, []),
        ("c", 1040, "new", 8000, [("unseen", "c")]),
        ("x", 800, 3.0, 800, [("constant", "x")]),
        ("x", 800, 3.00005, 800, [("constant", "x")]),
        ("x", 40, 12.0, 800, [("constant", "x")]),  # one value where many are expected
    ],
)
def test_a_fault_is_found_and_change_is_left_alone(
    reference: Reference,
    column: str,
    count: int,
    value: object,
    n: int,
    expected: list[tuple[str, str]],
) -> None:
    data = first(live(n), column, count, value)
    assert failed(reference.assess(data)) == expected
    # a spike in a few rows needs windows of the reference to be told from a stretch of equal values
    pooled = expected if count / n > 0.5 else [e for e in expected if e[0] != "constant"]
    assert failed(reference.assess(data, sliced=False)) == pooled


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (-9.0, "-9"), (-999.0, "-999 or further out"), (1e9, "1e+09 or further out")]
)
def test_a_sentinel_in_a_few_rows_is_found_with_windows(reference: Reference, value: float, shown: str) -> None:
    results = reference.assess(first(live(2000), "x", 60, value))
    assert failed(results) == [("constant", "x")]
    found = next(q for q in results if q.failed)
    assert found.value == pytest.approx(60 / 2000, abs=1 / 2000)
    assert found.message.startswith(f"x: 3.00% of 2000 rows are {shown} (0.")


def test_a_shift_out_of_the_range_is_drift_and_a_wrong_unit_is_broken(reference: Reference) -> None:
    shifted = live() | {"x": [float(v) + 11 for v in live()["x"]]}  # type: ignore[arg-type]
    by_range = next(q for q in reference.assess(shifted) if q.check == "out_of_range")
    assert by_range.value == 1.0
    assert not by_range.failed
    assert "a matter of drift" in by_range.message
    metres = live() | {"x": [float(v) * 1000 for v in live()["x"]]}  # type: ignore[arg-type]
    assert ("out_of_range", "x") in failed(reference.assess(metres))
    assert ("out_of_range", "x") in failed(reference.assess(shifted, Quality(out_of_range={"x": 0.5})))


def test_rates_of_the_reference_own_days_are_expected() -> None:
    """One day of twenty had 60% nulls and one category only: the pooled rate is 3%, a day of 60% is no news."""
    days = [rows(i, 1000, start=START + i * DAY) for i in range(20)]
    days[7] = first(days[7], "x", 600, None) | {"c": ["a"] * 1000}
    uneven = Reference(days)
    again = first(live(1000), "x", 600, None) | {"c": ["a"] * 1000}
    assert failed(uneven.assess(again)) == []
    assert failed(uneven.assess(again, sliced=False)) == [("null_rate", "x")]
    assert failed(uneven.assess(first(live(1000), "x", 1000, None))) == [("null_rate", "x")]


def test_a_weekday_column_is_constant_in_every_day_and_that_is_sound() -> None:
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    days = [rows(i, 1000, start=START + i * DAY) | {"c": [names[i % 7]] * 1000} for i in range(21)]
    weekly = Reference(days)
    today = live() | {"c": ["wed"] * 800}
    assert failed(weekly.assess(today)) == []
    assert failed(weekly.assess(today, sliced=False)) == []


def test_a_config_limit_is_taken_as_it_is(reference: Reference) -> None:
    one_null = first(live(120), "x", 1, None)
    assert failed(reference.assess(one_null, Quality(null_rate={"x": 0.0}))) == [("null_rate", "x")]
    all_null = first(live(120), "x", 120, None)
    assert failed(reference.assess(all_null, Quality(null_rate={"x": 1.0}))) == []
    one_new = first(live(), "c", 1, "new")
    assert failed(reference.assess(one_new, Quality(unseen={"c": 0.0}))) == [("unseen", "c")]
    assert failed(reference.assess(live(), Quality(constant={"c": 0.4}))) == [("constant", "c")]
    renamed = first(live(), "c", 300, "new")
    assert failed(reference.assess(renamed, Quality(disable=("unseen", "constant")))) == []


def test_duplicates(reference: Reference) -> None:
    data = live(1000)
    data["id"] = data["id"][:900] + data["id"][:100]
    results = reference.assess(data)
    assert failed(results) == [("duplicates", None)]
    assert next(q for q in results if q.failed).value == pytest.approx(0.1)
    assert failed(reference.assess(data, Quality(duplicates=0.1))) == []
    few = live(1000)
    few["id"] = few["id"][:998] + few["id"][:2]
    assert failed(reference.assess(few)) == []
    assert failed(reference.assess(few, Quality(duplicates=0.0))) == [("duplicates", None)]


@pytest.mark.parametrize(
    ("n", "policy", "fails"),
    [
        (101, {}, False),
        (99, {}, True),  # the reference's days have 1000 rows
        (10_000, {}, False),
        (10_001, {}, True),
        (99, {"min_rows": 50}, False),
        (101, {"min_rows": 102}, True),
        (1000, {"max_rows": 999}, True),
        (99, {"disable": ("volume",)}, False),
    ],
)
def test_volume(reference: Reference, n: int, policy: dict[str, object], fails: bool) -> None:
    got = failed(reference.assess(live(n), Quality(**policy)))  # type: ignore[arg-type]
    assert (("volume", None) in got) is fails


def test_volume_without_windows_is_a_matter_of_orders_of_magnitude(reference: Reference) -> None:
    whole = expectations(reference.specs, reference.whole, Quality(), length=DAY)
    assert whole.min_rows == pytest.approx(10, rel=0.01)
    assert whole.max_rows == pytest.approx(100_000, rel=0.01)
    untimed = profile(reference.specs, live(), timed=False)
    assert expectations(reference.specs, untimed, Quality(), length=DAY).min_rows is None


def test_freshness(reference: Reference) -> None:
    half = {k: v[: len(v) // 3] for k, v in live(3000).items()}
    results = reference.assess(half)
    assert failed(results) == [("freshness", None)]
    assert next(q for q in results if q.failed).value == pytest.approx(16 * 3600, rel=0.02)
    assert failed(reference.assess(half, sliced=False)) == []  # nothing to infer it from
    assert failed(reference.assess(half, Quality(freshness=HOUR), sliced=False)) == [("freshness", None)]
    assert failed(reference.assess(half, Quality(freshness=timedelta(hours=20)))) == []


def test_freshness_allows_for_the_stretches_that_the_reference_had() -> None:
    """Office hours, 9 to 17: eight hours of silence before and after, thrice that is more than a window."""
    days = [rows(i, 1000, start=START + i * DAY + 9 * HOUR, length=8 * HOUR) for i in range(20)]
    office = Reference(days)
    assert expectations(office.specs, office.whole, Quality(), windows=office.days, length=DAY).freshness is None


def test_schema_names_every_column_and_what_it_found(reference: Reference) -> None:
    data = live()
    renamed = {("xx" if k == "x" else k): v for k, v in data.items()}
    results = reference.assess(renamed | {"c": [1.5] * 800}, schema={"xx": "double", "c": "double"})
    assert [q.message for q in results if q.check == "schema"] == [
        "column 'x' is missing; the data has 'xx', was it renamed?",
        "column 'c' is double, which cannot be read as the categorical feature of the reference",
    ]
    partly = reference.assess({k: v for k, v in data.items() if k != "x"}, schema={"x": "double", "c": "string"})
    assert [q.message for q in partly if q.failed] == ["column 'x' is missing in a part of the data"]


@pytest.mark.parametrize(
    "dtype",
    [
        pa.int8(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.bool_(),
        pa.null(),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.date32(),
        pa.date64(),
        pa.binary(),
        pa.time64("us"),
        pa.duration("s"),
    ],
)
def test_simple_arrow_types_are_known_by_their_name(dtype: pa.DataType) -> None:
    assert arrow_type(str(dtype)) == dtype
    assert arrow_type(str(pa.dictionary(pa.int16(), dtype))) == dtype


def test_other_arrow_types_are_known_by_their_family() -> None:
    assert pa.types.is_timestamp(arrow_type(str(pa.timestamp("ns", tz="Europe/Berlin"))))
    assert pa.types.is_decimal(arrow_type(str(pa.decimal128(10, 2))))
    assert arrow_type(str(pa.struct([("a", pa.int8())]))) is None


def test_an_empty_window_has_nothing_to_check_but_schema_and_volume(reference: Reference) -> None:
    results = reference.assess({k: [] for k in live()}, schema={"x": "double", "c": "string"})
    assert [(q.check, q.failed) for q in results] == [("schema", False), ("volume", True)]


def test_a_constant_or_incomplete_reference_has_no_such_checks() -> None:
    data = live() | {"x": [4.0] * 800}
    batch = table(**data)
    specs: list[Spec] = [
        NumericSpec.fit("x", numbers(batch.column("x"))),
        CategoricalSpec.fit("c", category_counts(batch.column("c")), limit=2),
    ]
    found = expectations(specs, profile(specs, data), Quality())
    assert "x" not in found.constant
    assert "x" not in found.out_of_range
    assert "c" not in found.unseen


def test_good_and_turing_tell_how_many_new_names_to_expect() -> None:
    names = [f"tail-{i}" for i in range(400)] + ["common"] * 600
    specs: list[Spec] = [CategoricalSpec.fit("c", {n: names.count(n) for n in set(names)})]
    data = {"t": live(1000)["t"], "c": names}
    found = expectations(specs, profile(specs, data), Quality())  # type: ignore[arg-type]
    assert found.unseen["c"].rate == pytest.approx(1.5 * 0.4)


@given(n=st.integers(1, 5000), rate=st.floats(0.001, 0.999))
def test_a_limit_is_exceeded_with_the_stated_chance(n: int, rate: float) -> None:
    most = round(Limit(rate).at(n) * n)
    assert binom.sf(most, n, rate) <= ex.CERTAINTY * (1 + 1e-9)
    assert most == 0 or binom.sf(most - 1, n, rate) > ex.CERTAINTY * (1 - 1e-9)


@given(data=st.tuples(st.integers(1, 500), st.integers(0, 500)))
def test_the_lower_bound_is_clopper_pearson(data: tuple[int, int]) -> None:
    n, k = data[0], min(data)
    expected = binomtest(k, n).proportion_ci(0.98, method="exact").low
    assert at_least(k, n) == pytest.approx(expected, abs=1e-9)


def test_the_spike_is_the_value_that_grew_most(reference: Reference) -> None:
    spec = reference.specs[1]
    data = first(live(1000), "c", 1000, "b")
    found = spike(spec, reference.whole.features["c"], profile(reference.specs, data).features["c"])
    assert (found.value, found.count) == ("'b'", 1000)
    assert found.expected == pytest.approx(0.3, abs=0.02)
