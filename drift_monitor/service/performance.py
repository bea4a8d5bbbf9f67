"""How good the model was: the predictions of the newest stretch whose labels are complete, against these labels.

It decides nothing, and whatever goes wrong with labels costs the performance and not the check.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from drift_monitor import __version__
from drift_monitor.config.labels import Labels
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError, SchemaError
from drift_monitor.core.performance import Decision, Losses, Mean, complete_stretch
from drift_monitor.core.policy import format_duration
from drift_monitor.core.types import Kind, Loss, Performance, Value, Window
from drift_monitor.reference import Reference
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.sources.labelled import Labelled, open_labelled

_LONGEST_NOTE = 500
_AROUND: Final = timedelta(days=30)
"""Labels outside the horizon are looked for so far."""
_log = logging.getLogger(__name__)


class _Cached(Value):
    """What was computed last; the key says of what."""

    key: str
    performance: Performance


def performance(request: CheckRequest, reference: Reference, live: Any) -> Performance | None:
    """The model's performance at a window; None where no labels are configured, or there is no window.

    Files that are as they were are not read again.

    Args:
        request: of the check.
        reference: of the monitor.
        live: the source of the live rows, opened.
    """
    monitor, window = request.monitor, request.window
    if monitor.labels is None or window is None:
        return None
    stretch = complete_stretch(window.end, monitor.window.length, monitor.labels.horizon)
    try:
        return _cached(request, monitor.labels, reference, live, stretch)
    except (DriftMonitorError, MemoryError) as error:
        note = " ".join(str(error).split()) or type(error).__name__
        _log.warning("%s: no performance: %s", request.name, note)
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs no verdict
        _log.exception("%s: no performance", request.name)
        note = f"it failed with {type(error).__name__}: {error}"
    return Performance(window=stretch, rows=0, labelled=0, scored=0, note=note[:_LONGEST_NOTE])


def _cached(
    request: CheckRequest, labels: Labels, reference: Reference, live: Any, stretch: Window
) -> Performance:
    monitor = request.monitor
    kind = _kind(reference.manifest.schema_.get(monitor.columns.label or ""))
    rows = open_labelled(live, labels, monitor.columns, monitor.source.timestamp, kind)
    path = request.state / "cache" / f"performance-{request.name}.json"
    until = Window(start=stretch.start, end=stretch.end + labels.horizon)
    wide = Window(start=until.start - _AROUND, end=until.end + _AROUND)
    known = _read(path)
    few = known is not None and _few(known.performance.labelled, known.performance.rows)
    # where few predictions have a label, those outside the horizon were looked at, too
    key = _key(monitor, reference, stretch, [*live.splits(stretch), *rows.truth.splits(wide if few else until)])
    if known is not None and key and known.key == key:
        return known.performance
    found = _measured(monitor, labels, reference.sample(), rows, stretch)
    if _few(found.labelled, found.rows) != few:
        span = until if few else wide
        key = _key(monitor, reference, stretch, [*live.splits(stretch), *rows.truth.splits(span)])
    if key:
        _write(path, _Cached(key=key, performance=found))
    return found


def _measured(monitor: Monitor, labels: Labels, sample: pa.Table, rows: Labelled, stretch: Window) -> Performance:
    columns, costs = monitor.columns, labels.costs
    decision = Decision(
        labels.threshold,
        None if costs is None else costs.false_negative,
        None if costs is None else costs.false_positive,
    )
    prediction, label = columns.prediction, columns.label or ""
    losses, usual = Losses(decision), Losses(decision)
    rows.look_up(stretch)
    wanted = [label] if prediction is None else [label, prediction]
    missing = {*wanted} - {*rows.columns(stretch, wanted).names}
    if missing:
        raise SchemaError(f"the live data has no column {missing.pop()!r}")
    notes = []
    for split in rows.splits(stretch):
        for batch in rows.batches(split, wanted):
            batch = batch.filter(batch.column(monitor.source.timestamp or "").is_valid())  # noqa: PLW2901
            nothing = pa.nulls(batch.num_rows)
            losses.add(nothing if prediction is None else batch.column(prediction), batch.column(label))
    if _few(losses.labelled, losses.rows):
        notes.append(_outside(rows, labels, stretch))
    if prediction is None:
        notes.append("columns.prediction is not set: only labels are counted")
    elif {label, prediction} <= {*sample.column_names}:
        for batch in sample.select([label, prediction]).to_batches():
            usual.add(batch.column(1), batch.column(0))
    if not usual.labelled:
        notes.append(f"the reference has no labels in column {label!r} beside its predictions")
    truth = usual.truth if usual.labelled else losses.truth
    means, before = losses.means(truth), usual.means(truth)
    if prediction is not None:
        notes += _unscored(losses, usual, means)
    return Performance(
        window=stretch,
        rows=losses.rows,
        labelled=losses.labelled,
        scored=max((mean.count for mean in means.values()), default=0),
        losses=tuple(
            Loss(
                metric=name,
                value=mean.value,
                standard_error=mean.standard_error,
                reference=before[name].value if name in before else None,
            )
            for name, mean in means.items()
        ),
        reference_rows=max((mean.count for mean in before.values()), default=0),
        note="; ".join(notes),
    )


def _unscored(losses: Losses, usual: Losses, means: Mapping[str, Mean]) -> list[str]:
    """What is odd about labels and predictions of one kind or another."""
    if losses.labelled and not means:
        return [f"nothing could be scored: labels are {losses.truth}, and those of the reference {usual.truth}"]
    if losses.truth == "classes" and means and means["error_rate"].value == 1:
        return ["no prediction is the text of its label: are both the names of classes?"]
    return []


def _few(labelled: int, rows: int) -> bool:
    return 2 * labelled < rows


def _outside(rows: Labelled, labels: Labels, stretch: Window) -> str:
    """Why so few predictions have a label: the horizon, or ids that do not meet."""
    horizon, around = format_duration(labels.horizon), format_duration(_AROUND)
    try:
        delays = rows.outside(stretch, _AROUND)
    except (DriftMonitorError, MemoryError) as error:
        return f"labels outside the horizon are not counted: {str(error) or type(error).__name__}"
    if not len(delays):
        return (
            f"no other has a label up to {around} before this window or after the horizon of {horizon}: "
            "they are not there yet, or the ids of the two sources do not meet (columns.id, labels.id)"
        )
    later = delays[delays > 0]
    middle = ""
    if len(later):
        minutes = max(round(float(np.median(later)) / 60e6), 1)
        typical = timedelta(minutes=minutes) if minutes < 1440 else timedelta(hours=round(minutes / 60))
        middle = f", half of these {format_duration(typical)} after their prediction or earlier"
    return (
        f"of the others, {len(later):,} have a label after the horizon of {horizon}{middle}, and "
        f"{len(delays) - len(later):,} one before the prediction alone: see labels.horizon"
    )


def _kind(dtype: str | None) -> Kind | None:
    """How labels are read where they are text, by the type that they have in the training rows."""
    if dtype is None:
        return None
    if dtype == "bool":
        return "boolean"
    return "numeric" if dtype.startswith(("int", "uint", "float", "double", "half", "decimal")) else "categorical"


def _key(monitor: Monitor, reference: Reference, stretch: Window, splits: Sequence[Any]) -> str:
    """Of everything that decides; empty where a source does not know its rows again."""
    digest = hashlib.sha256()
    settings = monitor.model_dump_json(include={"labels", "columns", "source"})
    for text in (__version__, settings, reference.id.sha256, str(stretch)):
        digest.update(f"{text}\0".encode())
    for split in splits:
        if not (identity := getattr(split, "identity", b"")):
            return ""
        digest.update(identity)
    return digest.hexdigest()


def _read(path: Path) -> _Cached | None:
    try:
        return _Cached.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # not there, or of another version: it is computed anew
        return None


def _write(path: Path, cached: _Cached) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(cached.model_dump_json(), "utf-8")
        temporary.replace(path)
    except OSError as error:
        _log.warning("%s cannot be written, so it is computed anew: %s", path, error)
