"""Whether the numbers of mergeable profiles are those of the raw rows: 10,000 random cases against scipy.

    python benchmarks/exactness.py [--quick] [--json] [--cases 10000]

Each case is two columns of any floats (ties, heavy values, neighbouring floats, all magnitudes, one row or
thousands, nulls, NaN, infinities, live values outside the reference's range) and some number of edges, from 1 to
1000. The Kolmogorov-Smirnov and the Wasserstein-1 distance are computed from profiles, and by scipy from the
finite values.

The goal: every bracket holds scipy's value, and where there is no bracket the statistic is that value. To the KS
distance 1e-12 is allowed for rounding; to the Wasserstein distance what its bracket carries itself, or where there
is none 1e-12 of the largest magnitude and the smallest float. A Wasserstein distance is not answered where a value
lies so far outside the reference's range that its sums cannot hold it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import common
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from scipy import stats

from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import NumericSpec
from drift_monitor.core.stattests import STATTESTS

Floats = npt.NDArray[np.float64]
Column = list[float | None]
FULL_CASES, QUICK_CASES = 10_000, 200
ROUNDING = 1e-12
SMALLEST = 5e-324
EDGES = (1, 2, 3, 5, 20, 100, 1000)


@dataclass(frozen=True)
class Case:
    """Two columns and the number of edges that the reference gives.

    Attributes:
        reference, current: each has a finite value.
        edges: see `NumericSpec.fit`.
    """

    reference: Column
    current: Column
    edges: int


@dataclass(frozen=True)
class Answer:
    """One statistic of one case.

    Attributes:
        statistic, low, high: from profiles; all the same where the statistic is exact.
        value: scipy's.
        unit: what the profile counts sums in; 0 for a statistic that uses none.
        margin: what the bracket may miss the value by.
    """

    statistic: float
    low: float
    high: float
    value: float
    unit: float
    margin: float

    @property
    def contained(self) -> bool:
        """Whether the bracket holds scipy's value."""
        return self.low - self.margin <= self.value <= self.high + self.margin


# -- cases -----------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda r, n: r.normal(size=n),
    "lognormal": lambda r, n: np.exp(1.5 * r.normal(size=n)),
    "whole": lambda r, n: r.poisson(4, n).astype(float),
    "decimal": lambda r, n: np.round(r.normal(size=n), 1),
    "mostly zero": lambda r, n: np.where(r.random(n) < 0.6, 0.0, r.exponential(size=n)),
    "far away": lambda r, n: 1e9 + r.normal(size=n),
    "outliers": lambda r, n: np.where(r.random(n) < 0.02, 1e4, 1.0) * r.normal(size=n),
    "all magnitudes": lambda r, n: r.normal(size=n) * 10.0 ** r.integers(-300, 300, n),
}
MISSING = (None, math.nan, math.inf, -math.inf)


def is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def has_value(column: Column) -> bool:
    return any(is_finite(x) for x in column)


@st.composite
def few_rows(draw: st.DrawFn) -> tuple[Column, Column]:
    """Shrinkable columns: any floats, many of them tied or neighbours, within a side and across."""
    anything = st.one_of(
        st.integers(-5, 5).map(float), st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), st.floats(), st.none()
    )
    pool = draw(st.lists(anything, min_size=1, max_size=8))
    near = [math.nextafter(x, math.inf) for x in pool if x is not None]
    value = st.one_of(st.sampled_from(pool + near), st.sampled_from(pool), anything)
    columns = st.lists(value, min_size=1, max_size=draw(st.sampled_from([3, 40]))).filter(has_value)
    return draw(columns), draw(columns)


@st.composite
def many_rows(draw: st.DrawFn) -> tuple[Column, Column]:
    """Columns of one or two shapes; the second moved and stretched, either with a heavy value and missing ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    first = draw(st.sampled_from(list(SHAPES)))
    second = draw(st.sampled_from([first, first, *SHAPES]))
    a = SHAPES[first](rng, draw(st.sampled_from([30, 300, 3000])))
    b = SHAPES[second](rng, draw(st.integers(1, 500)))
    move, stretch = draw(st.sampled_from([(0.0, 1.0), (0.1, 1.0), (50.0, 1.0), (0.0, 1.2), (0.0, 1e6)]))
    b = b * stretch + move * np.median(np.abs(a))
    scale = 1.0 if "all magnitudes" in (first, second) else draw(st.sampled_from([1, 1, 1e-300, 1e-9, 1e9, 1e290]))
    columns = []
    for values in (a, b):
        heavy, missing = draw(st.sampled_from([0.0, 0.0, 0.3, 0.9])), draw(st.sampled_from([0.0, 0.2]))
        column: Column = (np.where(rng.random(len(values)) < heavy, values[0], values) * scale).tolist()
        for i in np.flatnonzero(rng.random(len(values)) < missing):
            column[i] = MISSING[rng.integers(len(MISSING))]
        columns.append(column if has_value(column) else [*column, 0.0])
    return columns[0], columns[1]


def cases() -> st.SearchStrategy[Case]:
    """Of few rows and of many."""
    columns = st.one_of(few_rows(), many_rows())
    return st.builds(lambda sides, edges: Case(sides[0], sides[1], edges), columns, st.sampled_from(EDGES))


# -- answers ---------------------------------------------------------------------------------------------


def answers(case: Case) -> dict[str, Answer | None]:
    """Both statistics; None for one that profiles do not answer, since a value lies too far out for the sums."""
    a, b = (np.array([x for x in side if is_finite(x)], np.float64) for side in (case.reference, case.current))
    spec = NumericSpec.fit("x", a, edges=case.edges)
    sides = [
        profile_buckets([spec], [pa.record_batch({"x": pa.array(side, pa.float64())})])[0].features["x"]
        for side in (case.reference, case.current)
    ]
    # scipy overflows near the largest floats, and a power of two is taken out and put back exactly
    power = math.frexp(float(max(np.abs(a).max(), np.abs(b).max())))[1]
    with np.errstate(divide="ignore", over="ignore"):  # the p-value of two single rows; a distance past all floats
        values = {
            "ks": float(stats.ks_2samp(a, b, method="asymp").statistic),
            "wasserstein": float(
                np.ldexp(stats.wasserstein_distance(np.ldexp(a, -power), np.ldexp(b, -power)), power)
            ),
        }
    found: dict[str, Answer | None] = {}
    for name, value in values.items():
        result = STATTESTS[name].function(spec, *sides)
        if result is None:
            found[name] = None
            continue
        low, high = (result.statistic if x is None else x for x in (result.low, result.high))
        if name == "ks":
            unit, margin = 0.0, ROUNDING
        else:
            unit, margin = spec.unit, math.ldexp(ROUNDING, power) + SMALLEST if result.low is None else 0.0
        found[name] = Answer(result.statistic, low, high, value, unit, margin)
    return found


def run(count: int) -> list[tuple[Case, dict[str, Answer | None]]]:
    """That many cases with their answers."""
    found: list[tuple[Case, dict[str, Answer | None]]] = []

    @seed(common.SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def ask(case: Case) -> None:
        found.append((case, answers(case)))

    ask()
    return found


def figures(every: Sequence[Answer | None]) -> dict[str, float]:
    """What the table shows of one statistic.

    Widths of brackets are in units of the statistic, without the cases in which the statistic is below what the
    sums are counted in.
    """
    answered = [answer for answer in every if answer]
    brackets = [answer for answer in answered if answer.low < answer.high]
    widths = [(a.high - a.low) / a.statistic for a in brackets if a.statistic > a.unit] or [0.0]
    return {
        "cases": len(every),
        "answered": len(answered),
        "contained": sum(answer.contained for answer in answered),
        "brackets": len(brackets),
        "median width": float(np.median(widths)),
        "90% under": float(np.quantile(widths, 0.9)),
        "widest": max(widths),
    }


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help=f"how many, {FULL_CASES} unless --quick")
    options = parser.parse_args()
    start = perf_counter()
    found = run(options.cases or (QUICK_CASES if options.quick else FULL_CASES))
    seconds = perf_counter() - start
    rows = {}
    for name in ("ks", "wasserstein"):
        rows[name] = figures([asked[name] for _, asked in found])
        rows[f"{name}, {EDGES[-1]} edges"] = figures([asked[name] for c, asked in found if c.edges == EDGES[-1]])
    failures = [
        f"{name}: {answer} in {case}"
        for case, asked in found
        for name, answer in asked.items()
        if answer and not answer.contained
    ]
    return report(rows, failures, seconds, as_json=options.json)


def report(rows: dict[str, dict[str, float]], failures: list[str], seconds: float, *, as_json: bool) -> int:
    """Print the figures and whether they meet the goal; the exit code says the same."""
    if as_json:
        facts = {"seed": common.SEED, "seconds": round(seconds, 1), "statistics": rows, "failures": failures}
        print(json.dumps(facts, indent=2))
    else:
        print(f"{seconds:.0f} s; seed {common.SEED}\n")
        print(f"{'':24s}" + "".join(f"{column:>14s}" for column in rows["ks"]))
        for name, row in rows.items():
            shown = (f"{value:14,d}" if isinstance(value, int) else f"{value:14.2g}" for value in row.values())
            print(f"{name:24s}" + "".join(shown))
        goal = "every bracket, or statistic without one, holds what scipy finds in the raw rows"
        print("\n".join([f"\n{'NO ' if failures else 'yes':4s}{goal}", *failures[:5]]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
