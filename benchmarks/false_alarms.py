"""Whether "at most 1 false alert a month, all features together" holds where nothing ever drifts.

    python benchmarks/false_alarms.py [--quick] [--json] [--universes 200] [--cells 10/independent/8 ...]

A universe is a reference of some weeks and the 30 days after it, about 200 rows an hour, in which nothing
happens. Its features are normal; every fifth is rounded to whole numbers of a tenth of a standard deviation, so
that single values have rows enough for the quality lane to look at. In an `independent` universe rows are
independent. In a `seasonal` one the mean of each feature has a daily season (0.3 standard deviations times a
uniform number from 0.3 to 1.7, with a phase of its own) and wanders about it (AR(1) by the hour, remembered for
12 hours, 0.15 standard deviations). The monitor is calibrated on the reference and evaluates windows of 1 and 24
hours every hour. Both lanes are counted: every alert is false. On every fifth universe the usual rules of the
field judge the same 30 days, in windows of 24 hours once a day.

The mean number of episodes a month comes with its 95% interval, by the normal approximation: 1.96 standard
errors of the mean over the universes.

The goal, at 200 universes a cell: where the promise is calibrated, the upper end of the interval is 1 or less, for
drift and for data quality.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from time import process_time

import common
import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from drift_monitor.core import excess
from drift_monitor.core.alarm import Live, baselines, live_of, phase_counts, score_runs
from drift_monitor.core.calibration import Calibration, Watch, calibrate
from drift_monitor.core.history import Baseline, Grid, History, window_sums
from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import NumericProfile, NumericSpec, Profile, Spec
from drift_monitor.core.replay import Runs, choose_context
from drift_monitor.core.rivals import RIVALS, fit
from drift_monitor.core.scores import STEP, TAIL
from drift_monitor.core.threshold import replay_episodes
from drift_monitor.core.types import Lane, Outcome, Window

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FULL_UNIVERSES, QUICK_UNIVERSES = 200, 2
RIVALS_EVERY = 5
AT_MOST = 1.0
PROCESSES = 2

HOUR = 3_600_000_000
START = (datetime(2024, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
LIVE_DAYS = 30
ROWS = 200  # an hour, on average
SEASON, WANDER, MEMORY = 0.3, 0.15, 12
ROUNDED_EVERY = 5

FINE, REACH = 256, 8  # values are kept as whole 256ths of a standard deviation, from -8 to 8
PLACES = 2 * REACH * FINE
TENTH = 26  # of those
SLAB = 32  # hours drawn at a time: what is made of them stays in the processor's cache
UNIT = 2.0**-12
LEVELS = np.concatenate((TAIL, np.arange(1, round(1 / STEP)) * STEP, 1 - np.array(TAIL)[::-1]))

WATCH = Watch(
    "universe", Alarm(), Quality(), (timedelta(hours=1), timedelta(hours=24)), timedelta(hours=1), timedelta(0)
)


@dataclass(frozen=True)
class Cell:
    """One kind of universe.

    Attributes:
        features: how many.
        rows: `independent` or `seasonal`.
        weeks: of the reference.
    """

    features: int
    rows: str
    weeks: int

    @property
    def name(self) -> str:
        """As `--cells` takes it."""
        return f"{self.features}/{self.rows}/{self.weeks}"

    @property
    def hours(self) -> int:
        """Of the reference."""
        return self.weeks * 168


CELLS = {c.name: c for c in (Cell(*of) for of in product((10, 40), ("independent", "seasonal"), (4, 8, 16)))}
QUICK_CELLS = ("10/seasonal/4", "10/seasonal/8")


# -- a universe ------------------------------------------------------------------------------------------


class World:
    """The features of a universe, drawn one after the other.

    Attributes:
        rows: by hour, of the reference and the live days, shape (hours,).
        grid: of the reference.
        live_grid: of the live days and the day before them, which the first windows reach into.
        live: of each feature drawn so far.
        specs: the same.
    """

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self._cell, self._rng = cell, rng
        self.grid = Grid(START, HOUR, cell.hours)
        self.live_grid = Grid(self.grid.end, HOUR, (1 + LIVE_DAYS) * 24)
        self.rows: Ints = rng.poisson(ROWS, self.grid.size + self.live_grid.size)
        self.specs: list[Spec] = []
        self.live: dict[str, History] = {}
        self.whole: dict[str, Ints] = {}
        self.days: dict[str, Ints] = {}
        self.phases: dict[str, Ints] = {}
        self._places = np.empty(int(self.rows.sum()), np.int16)
        self._starts = np.concatenate(([0], np.cumsum(self.rows)))

    def features(self) -> Iterator[tuple[Spec, History]]:
        """Each feature's reference; what else is needed of it is kept."""
        context = choose(self.grid)
        for j in range(self._cell.features):
            spec, fine = self._feature(f"feature {j}", rounded=j % ROUNDED_EVERY == ROUNDED_EVERY - 1)
            none = np.zeros(len(fine), np.int64)
            history = History(fine[: self.grid.size], none[: self.grid.size])
            self.specs.append(spec)
            self.live[spec.name] = History(fine[self.grid.size :], none[self.grid.size :])
            self.days[spec.name] = history.fine.reshape(-1, 24, fine.shape[1]).sum(axis=1)
            self.whole[spec.name] = self.days[spec.name].sum(axis=0)
            if context != "none":
                self.phases[spec.name] = phase_counts(spec, history, self.grid, context)
            yield spec, history

    def _feature(self, name: str, *, rounded: bool) -> tuple[NumericSpec, Ints]:
        """Its cells, which its reference lays down, and its rows by hour and cell."""
        before = self._draw()
        if rounded:
            step = np.arange(PLACES) // TENTH
            values = np.flatnonzero(np.bincount(step, before))
            edges = values - float(PLACES // 2 // TENTH)
            at = np.searchsorted(values, step)
            exact = values[np.minimum(at, len(values) - 1)] == step
            cell = 2 * at + exact
        else:
            running = np.cumsum(before)
            ends = np.searchsorted(running, np.concatenate(([1], LEVELS * running[-1], [running[-1]])))
            ends[1:] += 1
            places = np.unique(ends)
            edges = places / FINE - REACH
            cell = 2 * np.searchsorted(places, np.arange(PLACES), "right")
        return NumericSpec(name, edges, 0.0, UNIT, exact=rounded), self._count(cell, 2 * len(edges) + 1)

    def _draw(self) -> Ints:
        """Draw the rows of a feature; how many of the reference's are at each place."""
        before = np.zeros(PLACES, np.int64)
        means = (REACH + self._means()).astype(np.float32) * FINE
        for low in range(0, len(self.rows), SLAB):
            high = min(low + SLAB, len(self.rows))
            first, last = self._starts[low], self._starts[high]
            x = self._rng.standard_normal(last - first, np.float32)
            x *= FINE
            x += np.repeat(means[low:high], self.rows[low:high])
            np.clip(x, 0, PLACES - 1, out=x)
            self._places[first:last] = x
            inside = min(last, self._starts[self.grid.size])
            if inside > first:
                before += np.bincount(self._places[first:inside], minlength=PLACES)
        return before

    def _means(self) -> Floats:
        hours = len(self.rows)
        if self._cell.rows == "independent":
            return np.zeros(hours)
        season = SEASON * self._rng.uniform(0.3, 1.7)
        kept = np.exp(-1 / MEMORY)
        shocks = self._rng.normal(size=hours) * WANDER
        shocks[1:] *= np.sqrt(1 - kept**2)
        phase = self._rng.random()
        return season * np.sin(2 * np.pi * (np.arange(hours) / 24 + phase)) + lfilter([1], [1, -kept], shocks)

    def _count(self, cell: Ints, cells: int) -> Ints:
        counts = np.empty((len(self.rows), cells), np.int64)
        cell = cell.astype(np.int32)
        for low in range(0, len(self.rows), SLAB):
            high = min(low + SLAB, len(self.rows))
            at = cell[self._places[self._starts[low] : self._starts[high]]]
            at += np.repeat(np.arange(0, (high - low) * cells, cells, dtype=np.int32), self.rows[low:high])
            counts[low:high] = np.bincount(at, minlength=(high - low) * cells).reshape(-1, cells)
        return counts


def choose(grid: Grid) -> str:
    return choose_context(WATCH.alarm.context, grid)


def profile_of(spec: Spec, counts: Ints) -> NumericProfile:
    """With every row in the middle of its cell."""
    assert isinstance(spec, NumericSpec)
    middle = np.empty(len(counts))
    middle[1::2] = spec.edges
    middle[2:-1:2] = (spec.edges[1:] + spec.edges[:-1]) / 2
    middle[0], middle[-1] = spec.edges[0], spec.edges[-1]
    units = spec.units(middle).astype(np.int64)
    seen = middle[counts > 0] if counts.any() else np.full(1, np.nan)
    sums = counts * units
    return NumericProfile(
        counts, sums, squares=int((sums * units).sum()), minimum=float(seen[0]), maximum=float(seen[-1])
    )


# -- one universe watched --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What the monitor, and perhaps its rivals, said of one universe.

    Attributes:
        basis, rank: of the drift lane's threshold.
        episodes, alarm_days: by lane, in 30 days.
        rivals: episodes and alarm days by rule, in 30 days; empty where they were not asked.
        seconds: processor time without the rivals.
    """

    basis: str
    rank: int | None
    episodes: Mapping[str, int]
    alarm_days: Mapping[str, int]
    rivals: Mapping[str, tuple[int, int]]
    seconds: float


def watch(task: tuple[str, int, bool]) -> Found:
    """Draw a universe, calibrate, and evaluate its 30 days."""
    name, number, with_rivals = task
    cell = CELLS[name]
    start = process_time()
    world = World(cell, np.random.default_rng([common.SEED, list(CELLS).index(name), number]))
    found = calibrate(
        WATCH, "0" * 64, world.grid, world.rows[: world.grid.size], world.features(), features=cell.features
    )
    whole = Profile(
        int(world.rows[: world.grid.size].sum()),
        {spec.name: profile_of(spec, world.whole[spec.name]) for spec in world.specs},
    )
    known = baselines(world.specs, whole, found.context, world.phases or None)
    hours = np.arange(25, world.live_grid.size + 1)  # the first that is over a whole window after the reference
    runs = Runs(hours, world.live_grid, (1, 24), 1)
    live = live_of(runs, world.live)
    outcomes = judge(found, world, known, runs, live)
    episodes, alarm_days = {}, {}
    width = 24 * HOUR
    windows = [
        Window.model_construct(start=moment(end - width), end=moment(end))
        for end in (world.live_grid.time(int(hour)) for hour in hours)
    ]
    lanes: tuple[tuple[Lane, Outcome], ...] = (("drift", Outcome.DRIFT), ("quality", Outcome.BROKEN))
    for lane, failing in lanes:
        episodes[lane] = len(replay_episodes(lane, WATCH.monitor, windows, outcomes, WATCH.alarm))
        alarm_days[lane] = len({int(d) for d, o in zip(runs.days, outcomes, strict=True) if o is failing})
    seconds = process_time() - start
    rivals = ask_rivals(world, whole) if with_rivals else {}
    return Found(found.drift.basis, found.drift.rank, episodes, alarm_days, rivals, seconds)


def judge(
    found: Calibration, world: World, known: Mapping[str, Baseline], runs: Runs, live: Live
) -> list[Outcome]:
    """The verdicts of the live runs."""
    broken = is_broken(found, world, runs, live)
    scored = score_runs(found, WATCH, world.specs, known, live)
    outcomes = []
    for run, bad in zip(scored, broken.tolist(), strict=True):
        limit = found.drift.value
        if bad:
            outcomes.append(Outcome.BROKEN)
        elif run.score is None or limit is None:
            outcomes.append(Outcome.CANNOT_JUDGE)
        else:
            outcomes.append(Outcome.DRIFT if run.score > limit else Outcome.OK)
    return outcomes


def is_broken(found: Calibration, world: World, runs: Runs, live: Live) -> npt.NDArray[np.bool_]:
    """Runs that fail in the quality lane: too many or too few rows, or too many of one value.

    The rows are sound otherwise: no value is missing, and none lies far out.
    """
    limit = found.quality.value
    broken = np.zeros(live.runs, bool)
    if limit is None:
        return broken
    if found.volume is not None:
        middle, away, spread = found.volume
        rows = window_sums(world.rows[world.grid.size :], runs.ends, 24)
        broken |= np.abs(np.log(rows) - middle) > away + spread * limit
    for spec in world.specs:
        scales = found.features[spec.name].excess
        if not isinstance(spec, NumericSpec) or not spec.exact:
            continue  # no value has a cell of its own
        counts, whole = live.counts[spec.name][24 * 3600], world.whole[spec.name]
        expected = counts.sum(axis=1, keepdims=True) * (whole[1::2] / whole.sum())
        more = excess.root_excess(counts[:, 1::2], expected)
        broken |= more.max(axis=1) > excess.bound(scales["constant"], limit)
        zero = np.flatnonzero(spec.edges == 0)
        broken |= (more[:, zero] > excess.bound(scales["zero"], limit)).any(axis=1)
    return broken


def moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def ask_rivals(world: World, whole: Profile) -> dict[str, tuple[int, int]]:
    """Episodes and alarm days of each rule over the live days."""

    def profiles(days: Mapping[str, Ints]) -> list[Profile]:
        count = len(next(iter(days.values())))
        return [
            Profile(
                int(days[world.specs[0].name][i].sum()),
                {spec.name: profile_of(spec, days[spec.name][i]) for spec in world.specs},
            )
            for i in range(count)
        ]

    alarms = fit(world.specs, whole, profiles(world.days))
    live = {name: history.fine[24:].reshape(LIVE_DAYS, 24, -1).sum(axis=1) for name, history in world.live.items()}
    said = [alarms(day) for day in profiles(live)]
    found = {}
    for rule in RIVALS:
        on = np.array([day[rule] for day in said])
        found[rule] = (int((on & ~np.concatenate(([False], on[:-1]))).sum()), int(on.sum()))
    return found


# -- the report ------------------------------------------------------------------------------------------


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """A mean and half the width of its 95% interval by the normal approximation."""
    a = np.array(values, np.float64)
    return float(a.mean()), float(1.96 * a.std(ddof=1) / np.sqrt(len(a))) if len(a) > 1 else 0.0


def figures(all_found: Sequence[Found]) -> dict[str, object]:
    """What is shown of one cell."""
    row: dict[str, object] = {
        "universes": len(all_found),
        "basis": dict(Counter(f.basis for f in all_found)),
        "rank": float(np.mean([f.rank or 0 for f in all_found])),
        "seconds": float(np.mean([f.seconds for f in all_found])),
    }
    for lane in ("drift", "quality"):
        mean, half = mean_and_half([f.episodes[lane] for f in all_found])
        days, _ = mean_and_half([f.alarm_days[lane] for f in all_found])
        row[lane] = {"episodes": mean, "low": max(0.0, mean - half), "high": mean + half, "alarm_days": days}
    asked = [f.rivals for f in all_found if f.rivals]
    row["rivals_universes"] = len(asked)
    row["rivals"] = {
        rule: {
            "episodes": float(np.mean([a[rule][0] for a in asked])),
            "alarm_days": float(np.mean([a[rule][1] for a in asked])),
        }
        for rule in (RIVALS if asked else ())
    }
    return row


HEADER = (
    f"{'features/rows/weeks':22s}{'n':>5s} {'basis':13s}{'rank':>5s}{'episodes a month':>22s}{'days':>6s}"
    f"{'quality episodes':>22s}{'days':>6s}{'s each':>8s}"
)


def shown(name: str, row: Mapping[str, object]) -> str:
    """A line of the table."""
    basis = "/".join(row["basis"])
    line = f"{name:22s}{row['universes']:5d} {basis:13s}{row['rank']:5.1f}"
    for lane in ("drift", "quality"):
        f = row[lane]
        line += f"{f['episodes']:8.2f} ({f['low']:.2f} to {f['high']:.2f}){f['alarm_days']:6.2f}"
    return line + f"{row['seconds']:8.2f}"


def goals_of(rows: Mapping[str, Mapping[str, object]]) -> dict[str, bool]:
    """The promise in each cell in which it is calibrated."""
    return {
        f"{name}: {lane} episodes a month up to {row[lane]['high']:.2f} (at most {AT_MOST:g})": row[lane]["high"]
        <= AT_MOST
        for name, row in rows.items()
        for lane in ("drift", "quality")
        if set(row["basis"]) == {"calibrated"}
    }


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--universes", type=int, help=f"of each kind, {FULL_UNIVERSES} unless --quick; fewer prove nothing"
    )
    parser.add_argument(
        "--cells", nargs="+", choices=CELLS, metavar="CELL", help=f"features/rows/weeks, of {', '.join(CELLS)}"
    )
    options = parser.parse_args()
    universes = options.universes or (QUICK_UNIVERSES if options.quick else FULL_UNIVERSES)
    names = options.cells or (QUICK_CELLS if options.quick else tuple(CELLS))
    if not options.json:
        print(f"{universes} universes of each kind; seed {common.SEED}\n\n{HEADER}", flush=True)
    rows = {}
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name in names:
            tasks = [(name, number, number % RIVALS_EVERY == 0) for number in range(universes)]
            rows[name] = figures(list(pool.map(watch, tasks)))
            if not options.json:
                print(shown(name, rows[name]), flush=True)
    return report(rows, full=universes >= FULL_UNIVERSES, as_json=options.json)


def report(rows: dict[str, dict[str, object]], *, full: bool, as_json: bool) -> int:
    """Print the rivals and whether the goals are met; the exit code says the same."""
    goals = goals_of(rows) if full else {}
    if as_json:
        print(json.dumps({"seed": common.SEED, "cells": rows, "goals": goals}, indent=2))
        return 0 if all(goals.values()) else 1
    print(
        f"\nAlarm days (episodes) in 30 days of the usual rules\n{'':22s}" + "".join(f"{r:>20s}" for r in RIVALS)
    )
    for name, row in rows.items():
        said = (f"{f['alarm_days']:12.1f} ({f['episodes']:4.1f})" for f in row["rivals"].values())
        print(f"{name:22s}" + "".join(f"{text:>20s}" for text in said))
    print()
    print("\n".join(f"{rule}: {rival.title} ({rival.source})" for rule, rival in RIVALS.items()))
    print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
