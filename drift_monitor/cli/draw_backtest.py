"""A backtest drawn for people: a calendar, the alerts and why, and the usual rules beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from drift_monitor.config.problem import printable
from drift_monitor.core.tally import Alert, Backtest, Mark

MARKS: Final[Mapping[Mark, tuple[str, str, str]]] = {
    "quiet": (".", "green", "quiet"),
    "drift": ("D", "bold red", "drift"),
    "broken": ("B", "bold magenta", "broken data"),
    "both": ("X", "bold red", "drift and broken data"),
    "cannot_judge": ("?", "yellow", "could not be judged"),
    "no_data": ("-", "yellow", "no data"),
}
_DAY: Final = timedelta(days=1)
_WEEKDAYS: Final = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_ALERTS = 50  # shown
_NAMES = 3  # features of an alert
_NAME = 40  # characters of a name
_LANES: Final = {"drift": ("drift", "red"), "quality": ("broken", "magenta")}


def draw_backtest(found: Backtest) -> RenderableType:
    """The whole of it."""
    parts = [_head(found), Text(), _calendar(found.calendar)]
    parts += [Text(), _alerts(found.episodes[:_ALERTS])] if found.episodes else [Text("no alert", "bold green")]
    if len(found.episodes) > _ALERTS:
        parts.append(Text(f"and {len(found.episodes) - _ALERTS} more alerts (--json has them)", style="dim"))
    if found.days:
        parts += [Text(), _comparison(found)]
    return Group(*parts)


def _head(found: Backtest) -> RenderableType:
    windows = [
        f"{count:,} {verdict.replace('_', ' ')}"
        for verdict, count in found.windows.items()
        if count and verdict != "judged"
    ]
    reference = found.reference
    return Group(
        Text.assemble((found.monitor, "bold"), f"  {found.from_:%Y-%m-%dT%H:%MZ} .. {found.to:%Y-%m-%dT%H:%MZ}"),
        Text(f"{found.days} days judged; windows: {', '.join(windows)}"),
        Text(f"reference {reference.version} of {reference.rows:,} rows"),
        Text(found.promise, style="dim"),
    )


def _calendar(calendar: Mapping[date, Mark]) -> RenderableType:
    """A line a week, a mark a day."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", style="dim")
    for weekday in _WEEKDAYS:
        table.add_column(weekday, justify="center")
    first, last = min(calendar), max(calendar)
    monday = first - first.weekday() * _DAY
    while monday <= last:
        week = [calendar.get(monday + i * _DAY) for i in range(7)]
        table.add_row(str(monday), *(Text() if mark is None else Text(*MARKS[mark][:2]) for mark in week))
        monday += 7 * _DAY
    seen = [mark for mark in MARKS if mark in calendar.values()]
    legend = Text("   ").join(Text.assemble(MARKS[mark][:2], f" {MARKS[mark][2]}") for mark in seen)
    return Group(table, legend)


def _alerts(alerts: Sequence[Alert]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("opened", "closed"):
        table.add_column(heading, no_wrap=True)
    table.add_column("alert", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("blamed", overflow="fold", max_width=_NAME)
    table.add_column("why, when it opened", overflow="fold", min_width=20)
    for alert in alerts:
        names = [printable(name, _NAME) for name in alert.features[:_NAMES]]
        more = len(alert.features) - len(names)
        table.add_row(
            f"{alert.opened:%Y-%m-%d %H:%M}",
            f"{alert.closed:%Y-%m-%d %H:%M}" if alert.closed else "still open",
            Text(*_LANES[alert.lane]),
            *("-" if value is None else f"{value:.3g}" for value in (alert.score, alert.threshold)),
            Text(", ".join(names) + (f" and {more} more" if more else "")),
            Text(printable(alert.reason, 300)),
        )
    return table


def _comparison(found: Backtest) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("in a month of 30 days", overflow="fold")
    table.add_column("alert days", justify="right", no_wrap=True)
    table.add_column("alerts", justify="right", no_wrap=True)
    table.add_row(
        Text("this monitor", "bold"), f"{found.alert_days_per_month:.1f}", f"{found.alerts_per_month:.1f}"
    )
    for rival in found.rivals.values():
        table.add_row(rival.title, f"{rival.alert_days_per_month:.1f}", f"{rival.per_month:.1f}")
    return table
