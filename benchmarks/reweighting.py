"""What weights are worth: how much of the loss that a shift costs they win back, and whether the gate knows.

    python benchmarks/reweighting.py [--quick] [--json] [--repeats 50]

Simulated: 3,000 training rows and 3,000 live rows of 10 normal features, of which one has moved by .5 to 2.5
standard deviations; the label depends on it in a curve. The recovery is (L_unweighted - L_weighted) /
(L_unweighted - L_oracle): L is the mean squared error on 20,000 further live rows, and the oracle's weights are
the true ratios of the densities. A ridge regression and a tree of depth 3 cannot follow the curve and have to
choose where to be right; gradient boosting follows it, so there is nothing to win, and the question is what the
weights cost. "Gated" is what a user gets: weighted where the gate adopts, unweighted where it does not.

Real: flights of the second quarter of 2013 and the sets that come with scikit-learn. A selection makes the shift:
rows with small values of one column go to the training side more often, the others to the live side. The loss is
that on the live rows, whose labels the gate never sees.

densratio runs beside it, on fewer rows, where it is installed (`pip install densratio`): it is slow. `balance` is
left out, because it needs numpy below 2.

The goals, at full size: where ESS/n is .08 or more, a recovery of .90 or more for ridge and .85 or more for the
tree; gated harm of gradient boosting of .5% or less at every shift; and the weighted mean of the moved feature is
nearer to the live mean in every run.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import common
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from flights import flights
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from drift_monitor.actions.weights_findings import LEAST, diagnose, outside_of, refusals
from drift_monitor.actions.weights_method import Sides, Weigher
from drift_monitor.config.loop import Reweight
from drift_monitor.core.classifier import Encoding
from drift_monitor.core.design import Design
from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.gate import FOLDS, Learner, Target, cross_validated, fit, predict
from drift_monitor.core.learner import Cells
from drift_monitor.core.profile import CategoricalSpec, NumericSpec
from drift_monitor.core.weights import Sums, differences, effective_sample_size
from drift_monitor.core.weights_model import WeightsModel, folds_of

Floats = npt.NDArray[np.float64]

PROCESSES = 2
MIX = Reweight().mix
BOOSTING_ROUNDS = 50  # half of scikit-learn's default: half the time, and as flexible for what it is for here


@dataclass(frozen=True, eq=False)
class Weighed:
    """Training rows with their weights.

    Attributes:
        weights: shape (n,).
        effective: Kish's, as a share of the rows.
        left: largest standardised mean difference of any column.
        refused: what speaks against them.
        inputs: by name of a learner: what it gets of rows.
        cells: for gradient boosting.
    """

    weights: Floats
    effective: float
    left: float
    refused: tuple[str, ...]
    inputs: Mapping[str, Callable[[pa.Table], Floats]]
    cells: Cells


def weigh(training: pa.Table, live: pa.Table, seed: int) -> Weighed:
    """Weights by the classifier, with the settings of the product, and its refusals."""
    specs = []
    for name in training.column_names:
        column = training[name].combine_chunks()
        if pa.types.is_floating(column.type):
            specs.append(NumericSpec.fit(name, column.to_numpy(zero_copy_only=False)))
        else:
            specs.append(CategoricalSpec.fit(name, category_counts(column)))
    encoding = Encoding(tuple(specs))
    numbers = np.arange(training.num_rows)
    sides = Sides(encoding, training, live, numbers, encoding.matrix(training), encoding.matrix(live))
    design = Design.fit(encoding, sides.known, sides.now)
    model = WeightsModel.fit(design, sides.known, sides.now, folds_of(numbers, seed=seed), seed=seed)
    weigher = Weigher("classifier", "", model, None, MIX, seed)
    weights = weigher.weights(sides.known, numbers)
    sums = Sums.of(design, sides.known, weights, cap=1 / MIX)
    found = differences(design, sums, Sums.of(design, sides.now))
    reference = profile_buckets(specs, training.combine_chunks().to_batches())[0]
    diagnostics = diagnose(weigher, sums, found, outside_of(sides, reference), weights)
    cells = Cells.fit(encoding, sides.known)
    inputs = {
        "linear": lambda rows: design.values(encoding.matrix(rows)),
        "boosting": lambda rows: cells.values(encoding.matrix(rows)),
    }
    share = sums.effective / sums.rows
    return Weighed(
        weights, share, diagnostics.difference_after, refusals(diagnostics, found, weigher, ""), inputs, cells
    )


def learners(cells: Cells, *, classes: int) -> dict[str, tuple[Learner, str]]:
    """By name: what makes it, and which inputs it gets."""
    categorical = [edges is None for edges in cells.edges]
    options: dict[str, Any] = {
        "categorical_features": categorical,
        "max_iter": BOOSTING_ROUNDS,
        "early_stopping": False,
        "random_state": 0,
    }
    if classes:
        return {
            "linear": (lambda: LogisticRegression(max_iter=300), "linear"),
            "tree": (lambda: DecisionTreeClassifier(max_depth=3, random_state=0), "linear"),
            "boosting": (lambda: HistGradientBoostingClassifier(**options), "boosting"),
        }
    return {
        "linear": (Ridge, "linear"),
        "tree": (lambda: DecisionTreeRegressor(max_depth=3, random_state=0), "linear"),
        "boosting": (lambda: HistGradientBoostingRegressor(**options), "boosting"),
    }


# -- simulated -------------------------------------------------------------------------------------------

SHIFTS = (0.5, 1.0, 1.5, 2.0, 2.5)
FEATURES, ROWS, TEST_ROWS = 10, 3000, 20_000
QUICK_SHIFTS, QUICK_ROWS = (1.0,), 1500
REPEATS, QUICK_REPEATS = 50, 2
NOISE = 0.5
ENOUGH, RIDGE, TREE, HARM = 0.08, 0.90, 0.85, 0.005
DENSRATIO_ROWS, DENSRATIO_REPEATS, DENSRATIO_SHIFT = 500, 5, 1.0


def truth(x: Floats) -> Floats:
    return np.sin(1.5 * x[:, 0]) + 0.5 * x[:, 0] ** 2 + 0.5 * x[:, 1] * x[:, 2] + x[:, 3]


def drawn(rng: np.random.Generator, rows: int, shift: float) -> Floats:
    x = rng.normal(size=(rows, FEATURES))
    x[:, 0] += shift
    return x


def as_table(x: Floats) -> pa.Table:
    return pa.table({f"x{j}": x[:, j] for j in range(x.shape[1])})


def simulate(task: tuple[float, int, int]) -> dict[str, Any]:
    """One run: losses and the gate's decision by learner."""
    shift, number, rows = task
    rng = np.random.default_rng([common.SEED, 1, round(10 * shift), number])
    training, live, test = (drawn(rng, n, d) for n, d in ((rows, 0.0), (rows, shift), (TEST_ROWS, shift)))
    y, wanted = truth(training) + NOISE * rng.normal(size=rows), truth(test)
    with threadpool_limits(1):
        weighed = weigh(as_table(training), as_table(live), number)
        oracle = np.exp(shift * training[:, 0] - shift**2 / 2)
        mean = weighed.weights @ training[:, 0] / weighed.weights.sum()
        moved = abs(mean - live[:, 0].mean()) < abs(training[:, 0].mean() - live[:, 0].mean())
        found: dict[str, Any] = {}
        target = Target(y, 0)
        for name, (make, kind) in learners(weighed.cells, classes=0).items():
            columns, there = (weighed.inputs[kind](as_table(x)) for x in (training, test))
            losses = {
                which: float(((predict(fit(make, columns, target, w), there, 0)[:, 0] - wanted) ** 2).mean())
                for which, w in (("unweighted", None), ("weighted", weighed.weights), ("oracle", oracle))
            }
            evidence = cross_validated(make, columns, target, weighed.weights, folds_of(np.arange(rows), seed=9))
            losses["gated"] = losses["weighted" if evidence.helps else "unweighted"]
            found[name] = {**losses, "adopted": evidence.helps}
    return {
        "shift": shift,
        "effective": weighed.effective,
        "left": weighed.left,
        "refused": bool(weighed.refused),
        "moved": bool(moved),
        "learners": found,
    }


def simulated(pool: ProcessPoolExecutor, shifts: Sequence[float], repeats: int, rows: int) -> list[dict[str, Any]]:
    """A row for every shift."""
    runs = list(pool.map(simulate, [(shift, number, rows) for shift in shifts for number in range(repeats)]))
    table = []
    for shift in shifts:
        mine = [run for run in runs if run["shift"] == shift]
        row: dict[str, Any] = {
            "shift": shift,
            "repeats": len(mine),
            "effective": float(np.median([run["effective"] for run in mine])),
            "left": float(np.median([run["left"] for run in mine])),
            "refused": float(np.mean([run["refused"] for run in mine])),
            "moved": float(np.mean([run["moved"] for run in mine])),
        }
        for name in mine[0]["learners"]:
            loss = {
                which: np.array([run["learners"][name][which] for run in mine])
                for which in ("unweighted", "weighted", "oracle", "gated")
            }
            won, all_of_it = loss["unweighted"] - loss["weighted"], loss["unweighted"] - loss["oracle"]
            row[name] = {
                "recovery": float(won.mean() / all_of_it.mean()),
                "change": float((loss["weighted"] / loss["unweighted"]).mean() - 1),
                "gated": float((loss["gated"] / loss["unweighted"]).mean() - 1),
                "oracle": float((loss["oracle"] / loss["unweighted"]).mean() - 1),
                "adopted": float(np.mean([run["learners"][name]["adopted"] for run in mine])),
            }
        table.append(row)
    return table


def beside_densratio(repeats: int) -> dict[str, Any] | None:
    """Ours and densratio's RuLSIF on the same few rows; None where it is not installed."""
    try:
        from densratio import densratio  # noqa: PLC0415
    except ImportError:
        return None
    sides: dict[str, dict[str, list[float]]] = {}
    for number in range(repeats):
        rng = np.random.default_rng([common.SEED, 2, number])
        training, live = drawn(rng, DENSRATIO_ROWS, 0), drawn(rng, DENSRATIO_ROWS, DENSRATIO_SHIFT)
        test = drawn(rng, TEST_ROWS, DENSRATIO_SHIFT)
        y, wanted = truth(training) + NOISE * rng.normal(size=DENSRATIO_ROWS), truth(test)

        def theirs(training: Floats = training, live: Floats = live) -> Floats:
            np.random.seed(common.SEED)  # noqa: NPY002 - it draws its kernels from the global state
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = densratio(live, training, method="RuLSIF", alpha=MIX, verbose=False)
                return np.maximum(np.asarray(found.compute_density_ratio(training), np.float64).ravel(), 0)

        def ours(training: Floats = training, live: Floats = live) -> Floats:
            return weigh(as_table(training), as_table(live), 0).weights

        def oracle(training: Floats = training) -> Floats:
            return np.exp(DENSRATIO_SHIFT * training[:, 0] - DENSRATIO_SHIFT**2 / 2)

        for name, weights_of in (
            ("none", lambda: np.ones(DENSRATIO_ROWS)),
            ("ours", ours),
            ("densratio", theirs),
            ("oracle", oracle),
        ):
            start = perf_counter()
            with threadpool_limits(1):
                w = weights_of()
            seconds = perf_counter() - start
            model = Ridge().fit(training, y, sample_weight=w / w.mean())
            kept = sides.setdefault(name, {"loss": [], "seconds": [], "left": [], "effective": []})
            kept["loss"].append(float(((model.predict(test) - wanted) ** 2).mean()))
            kept["seconds"].append(seconds)
            kept["left"].append(float(np.abs(w @ training / w.sum() - live.mean(axis=0)).max()))
            kept["effective"].append(effective_sample_size(w) / len(w))
    means = {name: {key: float(np.mean(values)) for key, values in kept.items()} for name, kept in sides.items()}
    whole = means["none"]["loss"] - means["oracle"]["loss"]
    for row in means.values():
        row["recovery"] = (means["none"]["loss"] - row["loss"]) / whole
    return {"rows": DENSRATIO_ROWS, "shift": DENSRATIO_SHIFT, "repeats": repeats, "methods": means}


# -- real ------------------------------------------------------------------------------------------------

FLIGHT_ROWS, FLIGHT_SEEDS = 6000, 4
SMALL_SEEDS = 6
STRENGTH = 1.0


@dataclass(frozen=True, eq=False)
class Data:
    """A real set.

    Attributes:
        name: of it.
        table: features.
        y: label, shape (n,).
        classes: of it; 0 for a number.
        score: rows with a low one go to the training side, shape (n,).
        most: rows of either side.
    """

    name: str
    table: pa.Table
    y: npt.NDArray[Any]
    classes: int
    score: Floats
    most: int


def standardised(x: Floats) -> Floats:
    return (x - x.mean()) / x.std()


@cache
def flight_data() -> tuple[Data, ...]:
    frame = flights()
    frame = frame[(frame["time"] >= "2013-04-01") & (frame["time"] < "2013-07-01")].dropna().reset_index(drop=True)
    features = frame[["sched_dep", "distance"]].assign(day=frame["time"].dt.dayofyear.astype("float64"))
    columns = {name: pa.array(features[name].to_numpy()) for name in features}
    table = pa.table(columns | {"origin": pa.array(frame["origin"].astype(str))})
    far, late = (standardised(frame[name].to_numpy()) for name in ("distance", "sched_dep"))
    is_late = (frame["arr_delay"] > 15).to_numpy().astype(np.int64)
    return (
        Data("flights: air time, by distance", table, frame["air_time"].to_numpy(), 0, far, FLIGHT_ROWS),
        Data("flights: delay, by hour", table, frame["arr_delay"].to_numpy(), 0, late, FLIGHT_ROWS),
        Data("flights: late or not, by hour", table, is_late, 2, late, FLIGHT_ROWS),
        Data("flights: late or not, by distance", table, is_late, 2, far, FLIGHT_ROWS),
    )


@cache
def bundled() -> tuple[Data, ...]:
    found = []
    for name, load, column in (
        ("diabetes", load_diabetes, 2),
        ("breast cancer", load_breast_cancer, 0),
        ("wine", load_wine, 0),
        ("digits", load_digits, 20),
    ):
        raw = load()
        x = np.asarray(raw.data, np.float64)
        classes = 0 if name == "diabetes" else len(raw.target_names)
        y = np.asarray(raw.target, np.float64 if not classes else np.int64)
        table = pa.table({str(f): x[:, j] for j, f in enumerate(raw.feature_names)})
        label = str(raw.feature_names[column])
        found.append(Data(f"{name}, by {label}", table, y, classes, standardised(x[:, column]), len(x) // 2))
    return tuple(found)


def select(data: Data, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the training side and of the live side: two sets, chosen by the score."""
    rng = np.random.default_rng([common.SEED, 3, seed])
    chance = 1 / (1 + np.exp(STRENGTH * data.score))
    is_training = rng.random(len(chance)) < chance
    sides = (np.flatnonzero(is_training), np.flatnonzero(~is_training))
    training, live = (np.sort(rng.permutation(side)[: data.most]) for side in sides)
    return training, live


def real(task: tuple[str, int, int]) -> list[dict[str, Any]]:
    """One selection: losses by learner."""
    which, number, seed = task
    data = (flight_data() if which == "flights" else bundled())[number]
    training, live = select(data, seed)
    sides = data.table.take(pa.array(training)), data.table.take(pa.array(live))
    target, wanted = Target(data.y[training], data.classes), Target(data.y[live], data.classes).wanted
    found = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weighed = weigh(*sides, seed)
        for name, (make, kind) in learners(weighed.cells, classes=data.classes).items():
            columns, there = (weighed.inputs[kind](side) for side in sides)
            losses = [
                float(
                    ((predict(fit(make, columns, target, w), there, data.classes) - wanted) ** 2)
                    .sum(axis=1)
                    .mean()
                )
                for w in (None, weighed.weights)
            ]
            folds = np.random.default_rng(seed).permutation(len(training)) % FOLDS
            evidence = cross_validated(make, columns, target, weighed.weights, folds)
            found.append(
                {
                    "data": data.name,
                    "learner": name,
                    "rows": len(training),
                    "effective": weighed.effective * len(training),
                    "left": weighed.left,
                    "refused": bool(weighed.refused),
                    "gate": evidence.helps,
                    "unweighted": losses[0],
                    "weighted": losses[1],
                }
            )
    return found


def real_data(pool: ProcessPoolExecutor, *, quick: bool) -> list[dict[str, Any]]:
    """A row for every set and learner."""
    flights_tasks = [("flights", n, s) for n in range(len(flight_data())) for s in range(FLIGHT_SEEDS)]
    small = [("bundled", n, s) for n in range(len(bundled())) for s in range(SMALL_SEEDS)]
    tasks = [("flights", 1, 0), ("bundled", 0, 0), ("bundled", 2, 0)] if quick else flights_tasks + small
    runs = [row for rows in pool.map(real, tasks) for row in rows]
    table = []
    for data, learner in dict.fromkeys((run["data"], run["learner"]) for run in runs):
        mine = [run for run in runs if (run["data"], run["learner"]) == (data, learner)]
        unweighted, weighted = (np.array([run[key] for run in mine]) for key in ("unweighted", "weighted"))
        adopted = np.array([run["gate"] and not run["refused"] for run in mine])
        change = weighted / unweighted - 1
        table.append(
            {
                "data": data,
                "learner": learner,
                "selections": len(mine),
                "rows": round(np.median([run["rows"] for run in mine])),
                "effective": float(np.median([run["effective"] for run in mine])),
                "left": float(np.median([run["left"] for run in mine])),
                "refused": float(np.mean([run["refused"] for run in mine])),
                "gate": float(np.mean([run["gate"] for run in mine])),
                "change": float(change.mean()),
                "gated": float(np.where([run["gate"] for run in mine], change, 0.0).mean()),
                "used": float(np.where(adopted, change, 0.0).mean()),
            }
        )
    return table


# -- the report ------------------------------------------------------------------------------------------


def goals_of(table: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    goals = {}
    for row in table:
        at = f"{row['shift']:g} sd, ESS/n {row['effective']:.2f}"
        if row["effective"] >= ENOUGH:
            for name, least in (("linear", RIDGE), ("tree", TREE)):
                got = row[name]["recovery"]
                goals[f"{at}: recovery {got:.2f}, {name} (at least {least:g})"] = got >= least
        harm = row["boosting"]["gated"]
        goals[f"{at}: gated harm {harm:+.2%}, boosting (at most {HARM:.1%})"] = harm <= HARM
        goals[f"{at}: weighted mean nearer in {row['moved']:.0%} of the runs (100%)"] = row["moved"] == 1
    return goals


def lines(
    table: Sequence[Mapping[str, Any]], sets: Sequence[Mapping[str, Any]], beside: Mapping[str, Any] | None
) -> Iterator[str]:
    """The tables."""
    yield f"{'shift':>6s}{'ESS/n':>7s}{'sd left':>9s}{'refused':>9s}" + "".join(
        f"{name:>16s}{'adopted':>9s}{'change':>9s}{'gated':>9s}"
        for name in ("ridge: recovery", "tree: recovery", "boosting: oracle")
    )
    for row in table:
        yield f"{row['shift']:6.1f}{row['effective']:7.2f}{row['left']:9.3f}{row['refused']:9.0%}" + "".join(
            (f"{row[name]['oracle']:16.1%}" if name == "boosting" else f"{row[name]['recovery']:16.2f}")
            + f"{row[name]['adopted']:9.0%}{row[name]['change']:+9.1%}{row[name]['gated']:+9.2%}"
            for name in ("linear", "tree", "boosting")
        )
    yield ""
    yield (
        f"{'real data':36s}{'learner':>10s}{'rows':>6s}{'ESS':>7s}{'sd left':>8s}{'refused':>9s}{'gate':>6s}"
        + "".join(f"{name:>11s}" for name in ("weighted", "gate only", "used"))
    )
    for row in sets:
        yield (
            f"{row['data'][:35]:36s}{row['learner']:>10s}{row['rows']:6d}{row['effective']:7.0f}{row['left']:8.2f}"
            f"{row['refused']:9.0%}{row['gate']:6.0%}{row['change']:+11.2%}{row['gated']:+11.2%}{row['used']:+11.2%}"
        )
    yield f"(change of the loss on live rows, below 0 is a gain; under {LEAST:.0f} effective rows are refused)"
    yield ""
    if beside is None:
        yield "densratio is not installed, so it does not run beside"
        return
    yield f"{beside['rows']} rows, {beside['shift']:g} sd, ridge: " + "; ".join(
        f"{name} recovery {row['recovery']:.2f}, sd left {row['left']:.2f}, ESS/n {row['effective']:.2f}, "
        f"{row['seconds']:.2f} s"
        for name, row in beside["methods"].items()
        if name != "none"
    )


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, help=f"of each shift, {REPEATS} unless --quick")
    options = parser.parse_args()
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    shifts, rows = (QUICK_SHIFTS, QUICK_ROWS) if options.quick else (SHIFTS, ROWS)
    start = perf_counter()
    with ProcessPoolExecutor(PROCESSES) as pool:
        table = simulated(pool, shifts, repeats, rows)
        sets = real_data(pool, quick=options.quick)
    beside = beside_densratio(1 if options.quick else DENSRATIO_REPEATS)
    goals = {} if options.quick or repeats < REPEATS else goals_of(table)
    facts = {"seed": common.SEED, "seconds": round(perf_counter() - start, 1), "rows": rows, "mix": MIX}
    if options.json:
        said = facts | {"simulated": table, "real": sets, "densratio": beside, "goals": goals}
        print(json.dumps(said, indent=2))
    else:
        print(f"{repeats} repeats of {rows:,} rows; {facts['seconds']} s; seed {common.SEED}\n")
        print("\n".join(lines(table, sets, beside)))
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
