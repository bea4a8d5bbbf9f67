"""Which columns of a monitor's live rows are kept: `python -m drift_monitor.service.live_columns`.

A child of its own, since only the reference knows, and to build one can take minutes and much memory.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.service.evaluate import CheckRequest

if TYPE_CHECKING:
    from drift_monitor.config.models import Columns
    from drift_monitor.core.types import Kind
    from drift_monitor.intake.layout import LiveColumn
    from drift_monitor.reference.manifest import Manifest

COMMAND = (sys.executable, "-m", "drift_monitor.service.live_columns")
_BEGINNINGS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("int", "uint", "float", "double", "halffloat", "decimal"), "numeric"),
    (("string", "large_string", "dictionary<values=string", "dictionary<values=large_string"), "categorical"),
    (("bool",), "boolean"),
    (("timestamp", "date"), "datetime"),
)


def live_columns(manifest: Manifest, columns: Columns) -> list[LiveColumn]:
    """Those of the training data, so that a training set can be made from live rows, and the id and the label.

    Columns of types that cannot be watched are left out.

    Args:
        manifest: of the reference.
        columns: of the configuration.
    """
    from drift_monitor.intake.layout import LiveColumn  # noqa: PLC0415

    kinds: dict[str, Kind] = {}
    for name, dtype in manifest.schema_.items():
        if (kind := kind_of_type(dtype)) is not None:
            kinds[name] = kind
    kinds |= manifest.kinds
    if columns.label is not None:
        kinds.setdefault(columns.label, "categorical")
    if columns.id is not None:
        kinds[columns.id] = "categorical"  # 007 and 7 are two ids
    watched = columns.watched(manifest.kinds, manifest.timestamp)
    features = {f.name for f in manifest.features if f.role == "feature"}.intersection(watched) - {
        columns.prediction
    }
    return [
        LiveColumn(name=name, kind=kind, feature=name in features, path=manifest.stored.get(name, ()))
        for name, kind in kinds.items()
    ]


def kind_of_type(dtype: str) -> Kind | None:
    """The kind that the name of an Arrow type implies.

    Example:
        >>> kind_of_type("timestamp[us, tz=UTC]"), kind_of_type("list<item: double>")
        ('datetime', None)
    """
    return next((kind for beginnings, kind in _BEGINNINGS if dtype.startswith(beginnings)), None)


def main() -> int:
    """Read a request on standard input and write the columns to standard output."""
    from drift_monitor.service.references import reference_of  # noqa: PLC0415

    request = CheckRequest.model_validate_json(sys.stdin.buffer.read())
    try:
        reference = reference_of(request.name, request.monitor, request.state, now=lambda: datetime.now(UTC))
    except DriftMonitorError as error:
        print(" ".join(str(error).split()), file=sys.stderr)  # noqa: T201 - the daemon logs the last line
        return 1
    found = live_columns(reference.manifest, request.monitor.columns)
    sys.stdout.write(json.dumps([column.model_dump() for column in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
