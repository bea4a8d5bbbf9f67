"""`check-config --explain`: everything that was not written down but follows from the reference."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_monitor.cli.calibrate import calibrated
from drift_monitor.cli.layers import next_windows
from drift_monitor.cli.promised import STYLES, Calibrated, Promised
from drift_monitor.config.models import Monitor, covered
from drift_monitor.config.problem import printable
from drift_monitor.core.calibration import Calibration
from drift_monitor.core.expectations import Expectations, Limit, expectations
from drift_monitor.core.expectations import calibrated as with_calibration
from drift_monitor.core.policy import format_duration
from drift_monitor.core.profile import Profile, Spec
from drift_monitor.core.types import Segment
from drift_monitor.core.verdict import deciding_methods
from drift_monitor.reference import Reference, build_reference, open_reference
from drift_monitor.reference.version import is_reference
from drift_monitor.service.references import watched_specs

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WINDOWS = 3
_SLICES = 100  # windows of the reference that expectations are learnt from


@dataclass(frozen=True)
class Watched:
    """A column that is watched.

    Attributes:
        alarm: method -> fixed threshold, or None for one that is calibrated or follows from the number of rows.
        expectations: check -> the rate that is accepted, where calibrated of a usual number of rows; for
            `constant_gain` and `zero_gain`, how much the share of any value, or of 0, may grow over the reference.
            One of 1 accepts everything.
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
        promise: of the drift lane, in a sentence.
        promises: of each lane.
    """

    name: str
    reference: str
    features: tuple[Watched, ...]
    not_watched: dict[str, str]
    whole_window: tuple[str, ...]
    windows: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    promise: str
    promises: tuple[Promised, ...]

    def data(self) -> dict[str, Any]:
        """As JSON."""
        lanes = {each.lane: {k: v for k, v in each.data().items() if k != "daily"} for each in self.promises}
        return {**asdict(replace(self, promises=())), "promises": lanes}

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
        ]
        return Group(
            Text(""),
            Text(self.name, style="bold"),
            Text(printable(self.reference, 1000)),
            table,
            *(Text(printable(line, 1000)) for line in lines),
            *(line for each in self.promises for line in _promise_lines(each)),
        )


def _promise_lines(each: Promised) -> Iterator[Text]:
    from rich.text import Text

    lane = "false alerts of drift: " if each.lane == "drift" else "false alerts of broken data: "
    yield Text.assemble(lane, (each.label, STYLES[each.basis]), "; ", each.promise.removeprefix("no promise: "))
    if each.advice:
        yield Text(f"    what to do: {each.advice}")


def explain_monitor(name: str, monitor: Monitor, now: datetime, state: Path) -> Explained:
    """What follows from a monitor's section and its reference, once it is calibrated.

    A calibration that is not there yet is made and kept, as the first check would. A training file is read
    once, into a temporary version; nothing of that is kept.

    Args:
        name: of the monitor.
        monitor: its section.
        now: the windows after this are shown.
        state: the state folder.

    Raises:
        BadReferenceError: there is no usable reference.
    """
    if is_reference(monitor.reference):
        reference = open_reference(monitor.reference)
        return _explain(calibrated(name, monitor, reference, state), monitor, now, "")
    with tempfile.TemporaryDirectory(prefix="drift-monitor-") as folder:
        built = build_reference(
            monitor.reference,
            Path(folder),
            columns=monitor.columns,
            timestamp=monitor.source.timestamp,
            bucket=monitor.window.bucket,
            segments=monitor.segmented,
            timezone=monitor.source.timezone,
            created=now,
        )
        found = calibrated(name, monitor, built, Path(folder))
        return _explain(found, monitor, now, f", as the first check will build it from {monitor.reference}")


def _explain(found: Calibrated, monitor: Monitor, now: datetime, how: str) -> Explained:
    reference, calibration, watch = found.reference, found.known.calibration, found.known.watch
    manifest, length = reference.manifest, monitor.window.length
    expected = expectations(
        reference.specs,
        reference.profile,
        monitor.quality,
        windows=reference.windows(length, at_most=_SLICES) if monitor.source.timestamp else None,
        length=length,
    )
    specs = watched_specs(monitor, reference)
    if calibration is not None:
        expected = with_calibration(expected, specs, reference.profile, monitor.quality, calibration)
    features = {feature.name: feature for feature in manifest.features}
    rows = _usual_rows(calibration)

    def methods(spec: Spec) -> dict[str, float | None]:
        decides = calibration is not None and calibration.drift.value is not None
        return dict.fromkeys(watch.methods(spec)) if decides else deciding_methods(spec, monitor.alarm)

    watched = tuple(
        Watched(
            name=spec.name,
            kind=spec.kind,
            role=spec.role,
            type=features[spec.column].type,
            alarm=methods(spec),
            expectations=_rates(expected, spec.name, rows),
            warning=features[spec.column].warning if spec.segment is None else None,
        )
        for spec in specs
    )
    return Explained(
        name=found.monitor,
        reference=f"reference {manifest.version} of {manifest.rows:,} rows{how}",
        features=watched,
        not_watched=_not_watched(monitor, reference, {spec.column for spec in specs}),
        whole_window=tuple(_whole_window(expected, monitor, watch.lengths, rows)),
        windows=tuple(
            {"due": _stamp(due), "start": _stamp(start), "end": _stamp(end)}
            for due, start, end in (next_windows(monitor, now, _WINDOWS) if monitor.source.timestamp else ())
        ),
        warnings=(*manifest.warnings, *_small_segments(specs, reference.profile, rows, monitor.alarm.min_rows)),
        promise=found.lanes[0].promise,
        promises=found.lanes,
    )


def _small_segments(specs: Sequence[Spec], profile: Profile, rows: int | None, least: int) -> list[str]:
    """Which segments have fewer rows in a usual window than are judged, by their share of the reference's rows."""
    if rows is None:
        return []
    shares: dict[Segment, float] = {}
    for spec in specs:
        if spec.segment is not None and spec.name in profile.features:
            shares[spec.segment] = profile.features[spec.name].rows / profile.rows
    return [
        f"segment {segment}: a usual window has about {rows * share:,.0f} of its rows, and fewer than {least:,} "
        "are not judged: make window.length longer or alarm.min_rows smaller"
        for segment, share in shares.items()
        if rows * share < least
    ]


def _usual_rows(calibration: Calibration | None) -> int | None:
    """Rows of a usual run; None where that was not looked at."""
    if calibration is None or calibration.volume is None:
        return None
    return max(1, round(math.exp(calibration.volume[0])))


def _rates(expected: Expectations, feature: str, rows: int | None) -> dict[str, float]:
    def rate(limit: Limit) -> float:
        return limit.rate if limit.excess is None or rows is None else limit.at(rows)

    lanes = {"null_rate": expected.null_rate, "unseen": expected.unseen, "out_of_range": expected.out_of_range}
    rates = {check: rate(limits[feature]) for check, limits in lanes.items() if feature in limits}
    if (spike := expected.constant.get(feature)) is not None:
        rates["constant" if spike.fixed else "constant_gain"] = min(1.0, rate(spike))
    if (zero := expected.zero.get(feature)) is not None:
        rates["zero_gain"] = min(1.0, rate(zero))
    return rates


def _not_watched(monitor: Monitor, reference: Reference, watched: Collection[str]) -> dict[str, str]:
    columns, manifest = monitor.columns, reference.manifest
    roles = {columns.label: "the label", columns.id: "the id", manifest.timestamp: "the timestamp"}
    ignored = covered(columns.ignore, manifest.schema_)
    return {
        column: roles.get(column, "ignored" if column in ignored else "see the warnings, or not in `features`")
        for column in manifest.schema_
        if column not in watched
    }


def _whole_window(
    expected: Expectations, monitor: Monitor, lengths: Sequence[timedelta], rows: int | None
) -> list[str]:
    alarm = monitor.alarm
    lines = [] if rows is None else [f"the shares above are for {rows:,} rows, as many as a usual window has"]
    lines += [f"fewer than {alarm.min_rows:,} rows cannot be judged"]
    if len(lengths) > 1:
        short = ", ".join(format_duration(length) for length in lengths[:-1])
        lines.append(f"each check also looks at the last {short} alone, where drift may show sooner")
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
