"""How many rows of a window have a label."""

from __future__ import annotations

from drift_monitor.actions.refresh import LabelsRequest, LabelsResult, RefreshError
from drift_monitor.core.errors import SchemaError


def count_labels(request: LabelsRequest) -> LabelsResult:
    """Count them, reading the label's column and the event time only.

    Raises:
        RefreshError: the configuration names no label.
        DriftMonitorError: the rows cannot be read, or have no such column.
    """
    from drift_monitor.actions.training_keys import has_value  # noqa: PLC0415
    from drift_monitor.core.arrow import is_missing  # noqa: PLC0415
    from drift_monitor.sources import SOURCES  # noqa: PLC0415

    monitor = request.monitor
    label, timestamp = monitor.columns.label, monitor.source.timestamp
    if label is None:
        raise RefreshError(f"monitors.{request.name}.columns.label is not set: no column has the truth")
    source = SOURCES[monitor.source.type](monitor.source, monitor.columns.kinds)
    found = source.columns(request.window, [label]).names
    if label not in found:
        listed = ", ".join(repr(name) for name in found[:20])
        raise SchemaError(f"the live data has no column {label!r} (columns.label); it has {listed}")
    rows = labelled = 0
    for split in source.splits(request.window):
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
