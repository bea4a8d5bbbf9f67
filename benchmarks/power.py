"""How often the alarm's score sees a change, beside every single statistic at the same rate of false alarms.

    python benchmarks/power.py [--quick] [--json]

One feature: windows of 5,000 rows against a reference of 50,000, all independent rows of a normal distribution,
at one false alarm in 1,000 windows. The alarm's score is the largest of the statistics of `core/scores.py`, each
on the scale that it has in windows without a change, as a calibration learns it. Counts of a window are drawn
from the exact probabilities of the reference's cells. Two further columns tell how often the effect is over the
default floor, and how often a monitor with default settings would therefore alarm: score and effect both over
their limits.

Many features: 1,000 live rows of 20 features against 4,000, at one false alarm in 20. Features are normal; the
first two have a correlation of 0.6, which is what one of the changes takes to 0.2. The monitor's score is the
largest of four channels: `features`, the largest single feature; `together`, the mean over the features of the
leading statistic; `pairs`, the largest change of a covariance; `rows`, the AUC of the domain
classifier. Each is on its own scale and counted from its own median without a change. The subpopulation is 5% of
the rows, whose mean lies 1.5 standard deviations higher in 4 of the 20 features.

The goals, at full size: the combined score is not more than 0.05 below the best single statistic in any row of
either table, and sees a mean that moved by 0.1 standard deviations in 99% of the windows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import common
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

from drift_monitor.core.calibration import TOGETHER
from drift_monitor.core.classifier import domain_auc
from drift_monitor.core.pairs import covariances, distances
from drift_monitor.core.policy import Alarm
from drift_monitor.core.profile import NumericSpec
from drift_monitor.core.replay import FLOORS, OFFSETS, comparable, decisive, floor_of, scale_of
from drift_monitor.core.scores import STATISTICS, layout, scores

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PROCESSES = 2
WITHIN = 0.05
SURE = "mean +.1 sd"
SURE_POWER = 0.99
NAMES = STATISTICS["numeric"]
COMBINED = "combined"


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Attributes:
        references: of one feature, drawn anew.
        nulls, windows: of one feature, for each reference; `windows` for each change too.
        null_runs, runs: of many features; `runs` for each change.
    """

    references: int
    nulls: int
    windows: int
    null_runs: int
    runs: int


FULL = Size(references=10, nulls=8000, windows=500, null_runs=1000, runs=300)
QUICK = Size(references=2, nulls=1000, windows=50, null_runs=10, runs=2)


# -- one feature -----------------------------------------------------------------------------------------

ROWS, REFERENCE_ROWS, FALSE = 5000, 50_000, 0.001
SPIKE = 0.3
SLAB = 200  # windows drawn at a time

CHANGES = {
    "mean +.05 sd": lambda x: ndtr(x - 0.05),
    "mean +.1 sd": lambda x: ndtr(x - 0.1),
    "2% of rows x4": lambda x: 0.98 * ndtr(x) + 0.02 * ndtr(x / 4),
    "1% -> constant": lambda x: 0.99 * ndtr(x) + 0.01 * (x > SPIKE),
    "sd x1.1": lambda x: ndtr(x / 1.1),
}
"""What the distribution function of the rows becomes."""


class OneFeature:
    """A reference, and windows that are compared with it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        values = rng.normal(size=REFERENCE_ROWS)
        self.spec = NumericSpec.fit("x", values)
        self.fine = place(self.spec, values)
        self.cells = layout(self.spec, self.fine)
        self.base = self.cells.group(self.fine)
        bins = np.searchsorted(np.cumsum(self.fine), np.arange(1, 10) * REFERENCE_ROWS / 10) + 1
        self._bins = np.concatenate(([0], bins))

    def draw(self, change: str | None, windows: int) -> dict[str, Floats]:
        """Every statistic and the effect, shape (windows,)."""
        cdf = CHANGES[change] if change else ndtr
        # no row lies exactly on an edge, so that every other cell is empty
        p = np.diff(cdf(self.spec.edges), prepend=0, append=1)
        parts = [self._measure(p, min(SLAB, windows - i)) for i in range(0, windows, SLAB)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _measure(self, p: Floats, windows: int) -> dict[str, Floats]:
        fine = np.zeros((windows, len(self.fine)), np.int64)
        fine[:, ::2] = self._rng.multinomial(ROWS, p, windows)
        apart = np.cumsum(fine, axis=1) / ROWS - np.cumsum(self.fine) / REFERENCE_ROWS
        found = scores(self.cells, self.cells.group(fine), self.base)
        shares = (np.add.reduceat(fine, self._bins, axis=1) + 0.5) / (ROWS + 5)
        known = (np.add.reduceat(self.fine, self._bins) + 0.5) / (REFERENCE_ROWS + 5)
        return {
            "ks": np.abs(apart).max(axis=1),
            "psi": ((shares - known) * np.log(shares / known)).sum(axis=1),
            **found.values,
            "effect": found.effect,
        }


def place(spec: NumericSpec, values: Floats) -> Ints:
    """Rows by fine cell."""
    at = np.searchsorted(spec.edges, values, "left") + np.searchsorted(spec.edges, values, "right")
    return np.bincount(at, minlength=2 * len(spec.edges) + 1)


def one_reference(task: tuple[int, Size]) -> dict[str, dict[str, Floats]]:
    """By change, and by None where there is none: each statistic, shape (windows,)."""
    number, size = task
    feature = OneFeature(np.random.default_rng([common.SEED, 1, number]))
    found = {"": feature.draw(None, size.nulls)}
    found |= {change: feature.draw(change, size.windows) for change in CHANGES}
    scales = {name: scale_of(comparable(name, found[""][name]), floor_of(name, feature.cells)) for name in NAMES}
    for values in found.values():
        ratios = {name: scale.ratio(comparable(name, values[name])) for name, scale in scales.items()}
        values[COMBINED] = decisive(ratios, values["effect"], 0.0)
    return found


def one_feature(pool: ProcessPoolExecutor, size: Size) -> dict[str, dict[str, float]]:
    """Power by change and statistic."""
    parts = list(pool.map(one_reference, [(number, size) for number in range(size.references)]))
    found = {
        change: {name: np.concatenate([part[change][name] for part in parts]) for name in parts[0][change]}
        for change in parts[0]
    }
    limits = {name: np.quantile(values, 1 - FALSE) for name, values in found[""].items()}
    floor = Alarm().effect_floor_ks
    table = {}
    for change in CHANGES:
        values = found[change]
        row = {name: float((values[name] > limits[name]).mean()) for name in ("ks", "psi", *NAMES, COMBINED)}
        matters = values["effect"] > floor
        row["matters"] = float(matters.mean())
        row["alarms by default"] = float((matters & (values[COMBINED] > limits[COMBINED])).mean())
        table[change] = row
    return table


# -- many features ---------------------------------------------------------------------------------------

FEATURES, LIVE_ROWS, KNOWN_ROWS, FALSE_OF_MANY = 20, 1000, 4000, 0.05
CORRELATION, CHANGED_CORRELATION = 0.6, 0.2
SUBPOPULATION, SUBPOPULATION_SHIFT, SUBPOPULATION_FEATURES = 0.05, 1.5, 4
FREQUENCIES = 500
PAIRS_FLOOR, ROWS_FLOOR = 2.0, 1e-3

MANY = ("mean .3 in one", "all +.06", "corr .6->.2", "5% subpopulation", "sd x1.25 in one")
SINGLE = ("max ks", "product-moment max", "domain classifier", "mmd")
CHANNELS = ("features", "together", "pairs", "rows")


def normal(rng: np.random.Generator, rows: int, correlation: float = CORRELATION) -> Floats:
    """Rows of features, of which the first two are correlated."""
    x = rng.normal(size=(rows, FEATURES))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    return x


def changed(rng: np.random.Generator, change: str) -> Floats:
    """Live rows."""
    x = normal(rng, LIVE_ROWS, CHANGED_CORRELATION if change == "corr .6->.2" else CORRELATION)
    if change == "mean .3 in one":
        x[:, -1] += 0.3
    elif change == "all +.06":
        x += 0.06
    elif change == "5% subpopulation":
        x[rng.random(LIVE_ROWS) < SUBPOPULATION, -SUBPOPULATION_FEATURES:] += SUBPOPULATION_SHIFT
    elif change == "sd x1.25 in one":
        x[:, -1] *= 1.25
    return x


def run(task: tuple[str, int]) -> dict[str, Floats]:
    """One run: what single detectors say, and the raw values that the channels are made of."""
    change, number = task
    rng = np.random.default_rng([common.SEED, 2, 1 + MANY.index(change) if change else 0, number])
    known, live = normal(rng, KNOWN_ROWS), changed(rng, change)
    statistics = np.empty((len(NAMES), FEATURES))
    apart = 0.0
    for j in range(FEATURES):
        spec = NumericSpec.fit(str(j), known[:, j])
        fine, now = place(spec, known[:, j]), place(spec, live[:, j])
        cells = layout(spec, fine)
        found = scores(cells, cells.group(now)[None], cells.group(fine))
        statistics[:, j] = [comparable(name, found.values[name])[0] for name in NAMES]
        apart = max(apart, float(np.abs(np.cumsum(fine) / KNOWN_ROWS - np.cumsum(now) / LIVE_ROWS).max()))
    with threadpool_limits(1):
        return {
            "statistics": statistics,
            "max ks": np.array(apart),
            "product-moment max": np.array(products_apart(known, live)),
            "pairs": np.array(covariances_apart(known, live)),
            "mmd": np.array(mmd(known, live)),
            "domain classifier": np.array(domain_auc(known, live, seed=number)),
        }


def products_apart(known: Floats, live: Floats) -> float:
    """The largest change of a mean product of two standardised features or of a square, in standard errors."""
    scale = known.std(axis=0)
    means = [
        side.T @ side / len(side)
        for side in ((known - known.mean(axis=0)) / scale, (live - live.mean(axis=0)) / scale)
    ]
    return float((np.abs(means[1] - means[0]) / np.sqrt(1 + means[0] ** 2)).max() * spread())


def covariances_apart(known: Floats, live: Floats) -> float:
    """The largest squared change of a covariance (`core.pairs.distances`), in standard errors."""
    before, now = (
        covariances(
            np.array([len(side)]), side.sum(axis=0)[None], (side.T @ side)[np.triu_indices(FEATURES)][None]
        )
        for side in (known, live)
    )
    return float((np.abs(distances(now, before[0])[0]).max() * spread()) ** 2)


def spread() -> float:
    return 1 / np.sqrt(1 / LIVE_ROWS + 1 / KNOWN_ROWS)


def mmd(known: Floats, live: Floats) -> float:
    """Squared maximum mean discrepancy by random Fourier features, whose width is the median distance."""
    rng = np.random.default_rng(common.SEED)
    waves = rng.normal(size=(FEATURES, FREQUENCIES)) / np.sqrt(FEATURES)
    phases = rng.uniform(0, 2 * np.pi, FREQUENCIES)
    means = [np.cos(side @ waves + phases).mean(axis=0) for side in (known, live)]
    return float(((means[1] - means[0]) ** 2).sum() * 2 / FREQUENCIES)


def many_features(pool: ProcessPoolExecutor, size: Size) -> dict[str, dict[str, float]]:
    """Power by change and detector."""
    tasks = [("", number) for number in range(size.null_runs)]
    tasks += [(change, number) for change in MANY for number in range(size.runs)]
    found = list(pool.map(run, tasks, chunksize=4))
    every = {name: np.stack([one[name] for one in found]) for name in found[0]}
    quiet = np.arange(len(tasks)) < size.null_runs
    values = {name: every[name] for name in SINGLE} | combine(every, quiet)
    limits = {name: np.quantile(v[quiet], 1 - FALSE_OF_MANY) for name, v in values.items()}
    table = {}
    for k, change in enumerate(MANY):
        first = size.null_runs + k * size.runs
        at = slice(first, first + size.runs)
        table[change] = {name: float((v[at] > limits[name]).mean()) for name, v in values.items()}
    return table


def combine(every: Mapping[str, Floats], quiet: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """The channels and the largest of them, each on the scale of the runs without a change, shape (runs,)."""
    raw = every["statistics"]
    ratios = np.empty_like(raw)
    for k, name in enumerate(NAMES):
        for j in range(FEATURES):
            ratios[:, k, j] = scale_of(raw[quiet, k, j], FLOORS[name]).ratio(raw[:, k, j])
    best = [
        decisive({name: ratios[:, k, j] for k, name in enumerate(NAMES)}, np.ones(len(raw)), 0.0)
        for j in range(FEATURES)
    ]
    channels = {
        "features": np.max(best, axis=0),
        "together": on_scale(ratios[:, 0].mean(axis=1), quiet, TOGETHER / np.sqrt(FEATURES)),
        "pairs": on_scale(every["pairs"], quiet, PAIRS_FLOOR),
        "rows": on_scale(every["domain classifier"], quiet, ROWS_FLOOR),
    }
    centred = {name: v - np.median(v[quiet]) - OFFSETS.get(name, 0.0) for name, v in channels.items()}
    return centred | {COMBINED: np.max([centred[name] for name in CHANNELS], axis=0)}


def on_scale(values: Floats, quiet: npt.NDArray[np.bool_], floor: float) -> Floats:
    return scale_of(values[quiet], floor).ratio(values)


# -- the report ------------------------------------------------------------------------------------------


def goals_of(one: Mapping[str, Mapping[str, float]], many: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    """Each row of both tables."""
    goals = {}
    for table, single in ((one, ("ks", "psi", *NAMES)), (many, SINGLE)):
        for change, row in table.items():
            best = max(single, key=lambda name: row[name])
            sentence = f"{change}: {row[COMBINED]:.2f}, the best single is {best} with {row[best]:.2f}"
            goals[f"{sentence} (at most {WITHIN:g} better)"] = row[COMBINED] >= row[best] - WITHIN
    power = one[SURE][COMBINED]
    goals[f"{SURE}: {power:.3f} (at least {SURE_POWER:g})"] = power >= SURE_POWER
    return goals


def shown(table: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(table.values())))
    lines = [f"{'':18s}" + "".join(f"{name:>20s}" for name in columns)]
    lines += [f"{change:18s}" + "".join(f"{v:20.3f}" for v in row.values()) for change, row in table.items()]
    return "\n".join(lines)


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    start = perf_counter()
    with ProcessPoolExecutor(PROCESSES) as pool:
        one = one_feature(pool, size)
        many = many_features(pool, size)
    goals = {} if options.quick else goals_of(one, many)
    if options.json:
        facts = {"seed": common.SEED, "one_feature": one, "many_features": many, "goals": goals}
        print(json.dumps(facts, indent=2))
    else:
        print(f"{perf_counter() - start:.0f} s; seed {common.SEED}\n")
        print(f"One feature, {ROWS:,} rows, {FALSE:g} false alarms a window\n{shown(one)}\n")
        print(f"{FEATURES} features, {LIVE_ROWS:,} rows, {FALSE_OF_MANY:g} false alarms a window\n{shown(many)}\n")
        print(common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
