"""What a calibration promises, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from drift_monitor.config.models import Monitor
from drift_monitor.config.problem import printable
from drift_monitor.core.policy import format_duration
from drift_monitor.core.promise import promise
from drift_monitor.core.threshold import Threshold
from drift_monitor.core.types import Basis, Lane
from drift_monitor.reference import Reference
from drift_monitor.service.basis import LABELS

if TYPE_CHECKING:
    from drift_monitor.core.calibration import Calibration
    from drift_monitor.service.calibrations import Known

STYLES: Final[dict[Basis, str]] = {
    "calibrated": "green",
    "extrapolated": "yellow",
    "independent_rows": "yellow",
    "none": "bold red",
}
CONTEXTS: Final = {
    "none": "the whole reference",
    "day_of_week": "the same days of the week of the reference",
    "hour_of_week": "the same hours of the week of the reference",
}
"""What windows are compared with, in words."""
_LEVELS: Final = "▁▂▃▄▅▆▇"
_OVER: Final = "█"
_GAP: Final = "·"
_ROW: Final = 28  # days of a line of the plot


@dataclass(frozen=True)
class Promised:
    """What is promised about one lane.

    Attributes:
        lane: drift, or quality for broken data.
        basis: what the promise rests on.
        promise: the whole of it, in a sentence.
        threshold: None where nothing was calibrated.
        advice: what would make it better; empty when nothing is to be done.
    """

    lane: Lane
    basis: Basis
    promise: str
    threshold: Threshold | None = None
    advice: str = ""

    @property
    def label(self) -> str:
        """What it rests on, in words."""
        return LABELS[self.basis]

    def data(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {} if self.threshold is None else self.threshold.model_dump(mode="json", exclude={"basis"})
        return {
            "basis": self.basis,
            "label": self.label,
            "promise": self.promise,
            "advice": self.advice,
            **{("threshold" if key == "value" else key): value for key, value in numbers.items()},
        }


def promised(monitor: Monitor, reference: Reference, known: Known) -> tuple[Promised, ...]:
    """The promise of each lane.

    Args:
        monitor: its configuration.
        reference: what it is compared with.
        known: of its alarms.
    """
    from drift_monitor.service.calibrations import NO_TIMES, obstacle

    found = known.calibration
    if found is None:
        missing = obstacle(monitor, reference)
        why, advice = promise(None, monitor.alarm, known.why_not), missing.advice if missing else ""
        fixed = "no promise: the limits are those that the reference implies, without a calibration"
        basis: Basis = "none"
        if missing is not None and missing.why == NO_TIMES:  # made at each check, for the rows that it has
            budget = monitor.alarm.false_alerts_per_month or 0.0
            assumed = Threshold(value=None, basis="independent_rows", budget=budget, days=0)
            basis, why = assumed.basis, promise(assumed, monitor.alarm)
        return (
            Promised("drift", basis, why, advice=advice),
            Promised("quality", "none", fixed, advice=advice),
        )
    return (
        Promised(
            "drift",
            found.drift.basis,
            promise(found.drift, monitor.alarm),
            found.drift,
            _advice(found.drift),
        ),
        _of_quality(monitor, found.quality),
    )


def _of_quality(monitor: Monitor, threshold: Threshold) -> Promised:
    if monitor.quality.false_alerts_per_month is None:
        why = "no promise: quality.false_alerts_per_month is null"
        advice = "set it to the number of false alerts that you can bear"
        return Promised("quality", "none", why, threshold, advice)
    words = promise(threshold, monitor.alarm)
    return Promised("quality", threshold.basis, words, threshold, _advice(threshold))


def _advice(threshold: Threshold) -> str:
    if not threshold.needed:
        return ""
    return f"build the reference from {threshold.needed} more days, or allow more false_alerts_per_month"


@dataclass(frozen=True)
class Calibrated:
    """The calibration of a monitor, or why there is none.

    Attributes:
        monitor: its name.
        reference: what was replayed.
        known: of its alarms.
        lanes: what is promised.
        made: whether it was made just now.
    """

    monitor: str
    reference: Reference
    known: Known
    lanes: tuple[Promised, ...]
    made: bool

    def data(self) -> dict[str, Any]:
        """As JSON."""
        found, watch = self.known.calibration, self.known.watch
        manifest = self.reference.manifest
        return {
            "calibrated": found is not None,
            "why_not": self.known.why_not or None,
            "reference": {"version": manifest.version, "sha256": manifest.sha256, "rows": manifest.rows},
            "windows": [format_duration(length) for length in watch.lengths],
            "step": format_duration(watch.step),
            "replay": None
            if found is None
            else {
                "start": found.start and found.start.isoformat(),
                "end": found.end and found.end.isoformat(),
                "runs": found.runs,
                "left_out_days": found.block,
                "context": found.context,
                "days": list(found.days),
                "channels": sorted(found.typical),
            },
            "lanes": {each.lane: each.data() for each in self.lanes},
            "file": None if self.known.path is None else str(self.known.path),
            "made_now": self.made,
        }

    def drawn(self) -> RenderableType:
        """For people."""
        manifest, found, watch = self.reference.manifest, self.known.calibration, self.known.watch
        title = Text.assemble(
            (printable(self.monitor, 200), "bold"), f"  on reference {manifest.version} of {manifest.rows:,} rows"
        )
        if found is None:
            drift = self.lanes[0]
            lines = [Text(drift.promise), Text(f"what to do: {drift.advice}")]
            return Group(title, *lines)
        facts = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
        facts.add_row("replayed", _replayed(found, watch.step))
        facts.add_row("windows", f"each run looks at the last {_listed(watch.lengths)}")
        facts.add_row(
            "compared with",
            f"{CONTEXTS[found.context]}, without the {found.block} days around each window",
        )
        if found.typical:
            facts.add_row("signals", ", ".join(_signal(name) for name in sorted(found.typical)))
        facts.add_row("kept in", f"{self.known.path}{' (made just now)' if self.made else ''}")
        parts: list[RenderableType] = [title, facts]
        for each in self.lanes:
            parts += [Text(), *draw_lane(each, found.days)]
        return Group(*parts)


def _replayed(found: Calibration, step: timedelta) -> str:
    between = ""
    if found.start is not None and found.end is not None:
        between = f", {found.start:%Y-%m-%d %H:%M}Z to {found.end:%Y-%m-%d %H:%M}Z"
    return f"{len(found.days)} days{between}: {found.runs:,} runs, one every {format_duration(step)}"


def _listed(lengths: Sequence[timedelta]) -> str:
    return " and the last ".join(format_duration(length) for length in lengths)


def _signal(name: str) -> str:
    kind, _, seconds = name.partition("/")
    return kind + (f" ({format_duration(timedelta(seconds=int(seconds)))})" if seconds else "")


def draw_lane(each: Promised, days: Sequence[str] = ()) -> Iterator[RenderableType]:
    """The promise of a lane and the replayed days against its threshold.

    Args:
        each: the lane.
        days: the dates of its daily scores; they are numbered where these are not of as many days.
    """
    yield Text.assemble((f"{each.lane}  ", "bold"), (each.label, STYLES[each.basis]), f"  {each.promise}")
    threshold = each.threshold
    if threshold is None or not threshold.daily:
        if each.advice:
            yield Text(f"  what to do: {each.advice}")
        return
    if threshold.value is not None:
        of = "drift" if each.lane == "drift" else "broken data"
        alerts = f"{threshold.openings or 'no'} false alert{'s' * (threshold.openings != 1)}"
        yield Text(f"  threshold {threshold.value:.4g}: {_where(threshold)}")
        yield Text(f"  {alerts} of {of} opened in the replay")
    if each.advice:
        yield Text(f"  what to do: {each.advice}")
    yield from plot(threshold, days)


def _where(threshold: Threshold) -> str:
    if threshold.basis == "extrapolated":
        return (
            f"extrapolated beyond the highest of {threshold.days} days ({max(threshold.daily):.3g}), "
            "as their highest scores are distributed (Gumbel)"
        )
    if threshold.rank is None:
        return LABELS[threshold.basis]
    return f"the {_ordinal(threshold.rank)}highest of {threshold.days} days' scores; a run alerts above it"


def _ordinal(n: int) -> str:
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return "" if n == 1 else f"{n}{suffix} "


def plot(threshold: Threshold, days: Sequence[str] = ()) -> Iterator[Text]:
    """One mark a day, four weeks a line: its height is the day's score as a share of the threshold.

    Args:
        threshold: with the daily scores.
        days: their dates, rising; a day between them that has no score is a dot.

    Example:
        >>> lane = Threshold(value=7.0, basis="calibrated", budget=1, days=3, daily=(0.0, 6.9, 9.0))
        >>> [line.plain for line in plot(lane, ("2013-01-01", "2013-01-02", "2013-01-04"))]
        ['  each day against the threshold (█ is over it, · was not judged):', '  2013-01-01  ▁▇·█']
    """
    limit = threshold.value
    daily = threshold.daily
    if limit is None or limit <= 0:
        limit = max((*daily, 1e-9))
        yield Text("  each day against the highest (· was not judged):", style="dim")
    else:
        yield Text("  each day against the threshold (█ is over it, · was not judged):", style="dim")
    known = len(days) == len(daily) > 0
    first = date.fromisoformat(days[0]) if known else None
    places = [(date.fromisoformat(day) - first).days for day in days] if first is not None else range(len(daily))
    marks = dict(zip(places, (_mark(score, limit) for score in daily), strict=True))
    for start in range(0, max(marks, default=-1) + 1, _ROW):
        label = f"{first + timedelta(days=start):%Y-%m-%d}" if first is not None else f"day {start + 1:>6}"
        row = Text(f"  {label}  ")
        for day in range(start, min(start + _ROW, max(marks) + 1)):
            if day > start and (day - start) % 7 == 0:
                row.append(" ")
            mark = marks.get(day, _GAP)
            row.append(mark, style="red" if mark == _OVER else "dim" if mark == _GAP else "")
        yield row


def _mark(score: float, limit: float) -> str:
    if score > limit:
        return _OVER
    return _LEVELS[max(0, min(len(_LEVELS) - 1, math.ceil(score / limit * len(_LEVELS)) - 1))]
