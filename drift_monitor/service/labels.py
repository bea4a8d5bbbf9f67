"""How many live rows have a label."""

from __future__ import annotations

from typing import Any

from drift_monitor.actions.refresh import LabelsRequest, LabelsResult, RefreshError
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import Kind, Window


def count_labels(request: LabelsRequest) -> LabelsResult:
    """Count them, reading the label's column and the event time only.

    Labels of a window are in its rows. Late ones are not there when it ends, so the rows are counted that a
    training set would be refreshed with: those of `refresh.live` before the window's end.

    Raises:
        RefreshError: the configuration names no label.
        DriftMonitorError: the rows cannot be read, or have no such column.
    """
    from drift_monitor.core.arrow import has_value, is_missing  # noqa: PLC0415
    from drift_monitor.sources import SOURCES  # noqa: PLC0415

    monitor = request.monitor
    label, timestamp = monitor.columns.label, monitor.source.timestamp
    if label is None:
        raise RefreshError(f"monitors.{request.name}.columns.label is not set: no column has the truth")
    ids: dict[str, Kind] = {} if monitor.columns.id is None else {monitor.columns.id: "categorical"}
    source: Any = SOURCES[monitor.source.type](monitor.source, {**monitor.columns.kinds, **ids})
    window = request.window
    if monitor.labels is not None and window is not None:
        from drift_monitor.sources.labelled import MANY, open_labelled  # noqa: PLC0415

        window = Window(start=window.end - monitor.refresh.live, end=window.end)
        source = open_labelled(source, monitor.labels, monitor.columns, timestamp, None, MANY)
        source.look_up(window)
    found = source.columns(window, [label]).names
    if label not in found:
        listed = ", ".join(repr(name) for name in found[:20])
        raise SchemaError(f"the live data has no column {label!r} (columns.label); it has {listed}")
    rows = labelled = 0
    for split in source.splits(window):
        for batch in source.batches(split, [label]):
            there = has_value(batch.column(label))
            if timestamp is not None:  # a row without a time is in no window
                placed = ~is_missing(batch.column(timestamp))
                rows += int(placed.sum())
                labelled += int((there & placed).sum())
            else:
                rows += len(there)
                labelled += int(there.sum())
    return LabelsResult(rows=rows, labelled=labelled)
