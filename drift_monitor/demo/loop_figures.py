"""The loop demo's figures: windows in alarm and live errors, before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import CheckResult, Outcome
from drift_monitor.demo.daemon import WindowDone
from drift_monitor.demo.data import LABEL, TIMESTAMP, between
from drift_monitor.demo.loop_plan import DECIDED, ENDS, FIRST_VERSION, JOINED, LIVE_START, NEW_AIRPORT
from drift_monitor.demo.model import SCORE
from drift_monitor.demo.plan import DAY, NEW_YORK
from drift_monitor.demo.retraining_pipeline import Models, measures

WEIGHTED: Final = "weighted"
_AIRPORTS: Final = ("EWR", "LGA", "JFK")
_TOLD: Final = 3  # problems of a kind
_QUIET: Final = frozenset({Outcome.OK})


def unquiet(before: Sequence[WindowDone]) -> list[str]:
    """What did not happen as it should until the decision, as sentences.

    Args:
        before: the windows until then.
    """
    early = [w for w in before if w.end <= JOINED]
    problems = [] if early else ["no window was judged before the change"]
    problems += [
        f"{w.end:%Y-%m-%d} is {w.verdict.value}, where nothing had changed: {w.reason}"
        for w in early
        if w.verdict not in _QUIET or w.opened
    ]
    missed = [
        f"{w.end:%Y-%m-%d} is {w.verdict.value}, where the flights from {NEW_AIRPORT} are drift: {w.reason}"
        for w in before
        if w.end > JOINED and w.verdict is not Outcome.DRIFT
    ]
    return [*_first(problems), *_first(missed)]


def not_quiet_again(after: Sequence[CheckResult], retraining: Retraining) -> list[str]:
    """What did not happen as it should after the promotion, as sentences.

    Args:
        after: the windows since.
        retraining: that led to it.
    """
    problems = [] if after else ["no window was judged after the promotion"]
    for result in after:
        end, previous = f"{result.window.end:%Y-%m-%d}", result.previous
        used = result.reference.version if result.reference else "none"
        if used != retraining.reference:
            problems.append(f"{end} was compared with reference {used}, not with {retraining.reference}")
        if result.verdict not in _QUIET:
            problems.append(f"{end} is {result.verdict.value} against the new reference: {result.reason}")
        if previous is not None and previous.verdict is not Outcome.DRIFT:
            problems.append(f"{end} is {previous.verdict.value} with the reference before, where it is drift")
    if not any(result.previous for result in after):
        problems.append("no window was compared with the reference before")
    return _first(problems)


def draw_windows(before: Sequence[WindowDone], after: Sequence[CheckResult], retraining: Retraining) -> Table:
    """How many days were drift, against which reference."""
    table = _table()
    for name in ("days", "served", "reference", "drift", "of"):
        table.add_column(name, justify="right" if name in {"drift", "of"} else "left")
    trial = [(r.window.end, r.previous) for r in after if r.previous]
    reference = trial[0][1].reference if trial else None
    old = reference.version if reference else "?"
    rows: list[tuple[tuple[datetime, datetime], str, str, list[Outcome]]] = [
        ((LIVE_START, JOINED), f"without {NEW_AIRPORT}", old, [w.verdict for w in before if w.end <= JOINED]),
        ((JOINED, DECIDED), f"with {NEW_AIRPORT}", old, [w.verdict for w in before if w.end > JOINED]),
        (
            (DECIDED, max((end for end, _ in trial), default=DECIDED)),
            f"with {NEW_AIRPORT}",
            f"{old} (on trial)",
            [previous.verdict for _, previous in trial],
        ),
        ((DECIDED, ENDS), f"with {NEW_AIRPORT}", f"{retraining.reference} (new)", [r.verdict for r in after]),
    ]
    for stretch, what, against, verdicts in rows:
        judged = [v for v in verdicts if v not in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}]
        drifted = sum(v is Outcome.DRIFT for v in judged)
        table.add_row(_stretch(stretch), what, against, str(drifted), str(len(judged)))
    return table


@dataclass(frozen=True)
class Errors:
    """How well a model did on a stretch of flights that arrived.

    Attributes:
        late: share of them.
        overall: log loss (nats), Brier score, AUC.
        airports: log loss by airport, where there were flights.
    """

    stretch: tuple[datetime, datetime]
    model: str
    flights: int
    late: float
    overall: dict[str, float]
    airports: dict[str, float]


def live_errors(log: pd.DataFrame, models: Models, version: str) -> list[Errors]:
    """The live error before and after, and that of the other models on the flights after.

    Args:
        log: with the score that was live.
        models: all versions.
        version: that went live.
    """
    log = log[log[LABEL].notna()]
    found = [
        _errors((start, end), f"{FIRST_VERSION} (live)", rows := between(log, start, end), rows[SCORE].to_numpy())
        for start, end in ((LIVE_START, JOINED), (JOINED, DECIDED))
    ]
    after, stretch = between(log, DECIDED, ENDS), (DECIDED, ENDS)
    found.append(_errors(stretch, f"{version} (live)", after, after[SCORE].to_numpy()))
    found.append(_errors(stretch, FIRST_VERSION, after, models.load(FIRST_VERSION).score(after)))
    if models.has(version, WEIGHTED):
        found.append(
            _errors(stretch, "challenger with weights", after, models.load(version, WEIGHTED).score(after))
        )
    return found


def _errors(
    stretch: tuple[datetime, datetime], model: str, rows: pd.DataFrame, scores: NDArray[np.float64]
) -> Errors:
    truth = rows[LABEL].astype(bool).to_numpy()
    airports = {}
    for airport in _AIRPORTS:
        there = (rows["origin"] == airport).to_numpy()
        if there.any():
            airports[airport] = measures(truth[there], scores[there])["log_loss"]
    return Errors(stretch, model, len(rows), float(truth.mean()), measures(truth, scores), airports)


def gain(log: pd.DataFrame, models: Models) -> tuple[float, float]:
    """How much smaller the log loss is than that of the first model, on the same flights.

    Args:
        log: with the score that was live.
        models: all versions.

    Returns:
        The mean over the flights since the new model went live, in nats, and its standard error. Flights of a day
        share its weather, so that is the error of a mean of days: sd of the daily means / sqrt(days).
    """
    rows = between(log[log[LABEL].notna()], DECIDED, ENDS)
    truth = rows[LABEL].astype(bool).to_numpy()
    losses = [
        -np.log(np.clip(np.where(truth, scores, 1 - scores), 1e-15, 1))
        for scores in (models.load(FIRST_VERSION).score(rows), rows[SCORE].to_numpy())
    ]
    difference = pd.Series(losses[0] - losses[1])
    daily = difference.groupby(((rows[TIMESTAMP] - DECIDED) // DAY).to_numpy()).mean()
    return float(difference.mean()), float(daily.std(ddof=1) / len(daily) ** 0.5)


def draw_errors(errors: Iterable[Errors]) -> Table:
    """A row a stretch and model."""
    table = _table()
    table.add_column("days")
    table.add_column("model")
    for name in ("flights", "late", "log loss", "Brier", "AUC", *_AIRPORTS):
        table.add_column(name, justify="right")
    for each in errors:
        table.add_row(
            _stretch(each.stretch),
            each.model,
            f"{each.flights:,}",
            f"{each.late:.1%}",
            *(f"{each.overall[name]:.4f}" for name in ("log_loss", "brier", "auc")),
            *(f"{each.airports[a]:.4f}" if a in each.airports else "" for a in _AIRPORTS),
        )
    return table


def read_log(folder: Path) -> pd.DataFrame:
    """All of an inference log."""
    rows: pd.DataFrame = pq.read_table(folder).to_pandas()
    return rows


def _first(sentences: list[str]) -> list[str]:
    """The first ones, and how many there are more."""
    more = len(sentences) - _TOLD
    return sentences if more <= 0 else [*sentences[:_TOLD], f"and {more} more windows like these"]


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))


def _stretch(stretch: tuple[datetime, datetime]) -> str:
    start, end = (t.astimezone(NEW_YORK) for t in stretch)
    return f"{start:%d %b} - {end:%d %b}"
