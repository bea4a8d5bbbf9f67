"""`check-config --explain`: everything that was not written down but follows from the reference."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_monitor.cli.layers import next_windows
from drift_monitor.config.models import Monitor
from drift_monitor.config.problem import printable
from drift_monitor.core.expectations import Expectations, Limit, expectations
from drift_monitor.core.policy import format_duration
from drift_monitor.core.verdict import deciding_methods, promise
from drift_monitor.reference import Reference, build_reference, open_reference
from drift_monitor.reference.version import is_reference

if TYPE_CHECKING:
    from rich.console import RenderableType

_WINDOWS = 3
_SLICES = 100  # windows of the reference that expectations are learnt from


@dataclass(frozen=True)
class Watched:
    """A column that is watched.

    Attributes:
        alarm: method -> fixed threshold, or None for the size-aware default.
        expectations: check -> the rate that is accepted; for `constant_gain`, how much a single value's share may
            grow over the reference. One of 1 accepts everything.
        warning: why it may be of little use.
    """

    name: str
    kind: str
    role: str
    type: str
    alarm: dict[str, float | None]
    expectations: dict[str, float]
    warning: str | None


@dataclass(frozen=True)
class Explained:
    """What a monitor will do.

    Attributes:
        reference: which one, in words.
        not_watched: column -> why.
        whole_window: expectations of the window as a whole, in words.
        windows: the next ones: when each is due, its start and its end.
    """

    name: str
    reference: str
    features: tuple[Watched, ...]
    not_watched: dict[str, str]
    whole_window: tuple[str, ...]
    windows: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    promise: str

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def drawn(self) -> RenderableType:
        """For people."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("feature", "kind", "judged by", "expected at most"):
            table.add_column(heading, overflow="fold")
        for each in self.features:
            methods = ", ".join(m if t is None else f"{m} {t:g}" for m, t in each.alarm.items())
            rates = ", ".join(f"{check} {rate:.2%}" for check, rate in each.expectations.items() if rate < 1)
            kind = each.kind if each.role == "feature" else f"{each.kind} {each.role}"
            table.add_row(Text(printable(each.name, 60)), kind, methods, rates)
        lines = [
            *(f"{column} is not watched: {why}" for column, why in self.not_watched.items()),
            *(f"{each.name}: {each.warning}" for each in self.features if each.warning),
            *self.warnings,
            *self.whole_window,
            *(f"window {w['start']} .. {w['end']}, due at {w['due']}" for w in self.windows),
            self.promise,
        ]
        return Group(
            Text(""),
            Text(self.name, style="bold"),
            Text(printable(self.reference, 1000)),
            table,
            *(Text(printable(line, 1000)) for line in lines),
        )


def explain_monitor(name: str, monitor: Monitor, now: datetime) -> Explained:
    """What follows from a monitor's section and its reference.

    A training file is read once, into a temporary version; nothing is kept.

    Raises:
        BadReferenceError: there is no usable reference.
    """
    if is_reference(monitor.reference):
        return _explain(name, monitor, open_reference(monitor.reference), now, "")
    with tempfile.TemporaryDirectory(prefix="drift-monitor-") as folder:
        built = build_reference(
            monitor.reference,
            Path(folder),
            columns=monitor.columns,
            timestamp=monitor.source.timestamp,
            bucket=monitor.window.bucket,
            timezone=monitor.source.timezone,
            created=now,
        )
        return _explain(name, monitor, built, now, f", as the first check will build it from {monitor.reference}")


def _explain(name: str, monitor: Monitor, reference: Reference, now: datetime, how: str) -> Explained:
    manifest, length = reference.manifest, monitor.window.length
    expected = expectations(
        reference.specs,
        reference.profile,
        monitor.quality,
        windows=reference.windows(length, at_most=_SLICES) if monitor.source.timestamp else None,
        length=length,
    )
    features = {feature.name: feature for feature in manifest.features}
    watched = tuple(
        Watched(
            name=spec.name,
            kind=spec.kind,
            role=spec.role,
            type=features[spec.name].type,
            alarm=deciding_methods(spec, monitor.alarm),
            expectations=_rates(expected, spec.name),
            warning=features[spec.name].warning,
        )
        for spec in reference.specs
    )
    return Explained(
        name=name,
        reference=f"reference {manifest.version} of {manifest.rows:,} rows{how}",
        features=watched,
        not_watched=_not_watched(monitor, reference),
        whole_window=tuple(_whole_window(expected, monitor)),
        windows=tuple(
            {"due": _stamp(due), "start": _stamp(start), "end": _stamp(end)}
            for due, start, end in (next_windows(monitor, now, _WINDOWS) if monitor.source.timestamp else ())
        ),
        warnings=manifest.warnings,
        promise=promise(monitor.alarm),
    )


def _rates(expected: Expectations, feature: str) -> dict[str, float]:
    lanes = {"null_rate": expected.null_rate, "unseen": expected.unseen, "out_of_range": expected.out_of_range}
    rates = {check: limits[feature].rate for check, limits in lanes.items() if feature in limits}
    if (spike := expected.constant.get(feature)) is not None:
        rates["constant" if spike.fixed else "constant_gain"] = min(1.0, spike.rate)
    return rates


def _not_watched(monitor: Monitor, reference: Reference) -> dict[str, str]:
    columns, manifest = monitor.columns, reference.manifest
    watched = {feature.name for feature in manifest.features}
    roles = {columns.label: "the label", columns.id: "the id", manifest.timestamp: "the timestamp"}
    return {
        column: roles.get(
            column, "ignored" if column in columns.ignore else "see the warnings, or not in `features`"
        )
        for column in manifest.schema_
        if column not in watched
    }


def _whole_window(expected: Expectations, monitor: Monitor) -> list[str]:
    alarm = monitor.alarm
    lines = [f"fewer than {alarm.min_rows:,} rows cannot be judged"]
    if expected.min_rows is not None or expected.max_rows is not None:
        low = f"{expected.min_rows or 0:,.0f}"
        lines.append(
            f"expected rows: {low} to {'any' if expected.max_rows is None else f'{expected.max_rows:,.0f}'}"
        )
    if isinstance(expected.duplicates, Limit):
        lines.append(f"expected duplicates: {expected.duplicates.rate:.2%} at most")
    if expected.freshness is not None:
        lines.append(f"the newest event may be {format_duration(expected.freshness)} old at the window's end")
    lines.append(f"an alert opens after {alarm.persistence.hits} of {alarm.persistence.of} windows")
    return lines


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
