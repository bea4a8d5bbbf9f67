"""The child that makes one Evidently report: `python -m drift_monitor.service.report_worker`.

It reads a `ReportRequest` on standard input and writes a `ReportResult` on standard output. Evidently takes
seconds and hundreds of megabytes to import, which is why the daemon does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_monitor.actions.report import ReportRequest, ReportResult
from drift_monitor.core.errors import SchemaError
from drift_monitor.service.answer import answer

if TYPE_CHECKING:
    import pyarrow as pa

    from drift_monitor.reference import Manifest
    from drift_monitor.sources import Source

MEMORY = 2 * 2**30  # bytes; Evidently takes 0.3 GiB to import and more to draw


def make_report(request: ReportRequest) -> ReportResult:
    """Make a report in this process, importing Evidently.

    Raises:
        DriftMonitorError: the reference or the rows cannot be read.
        OSError: the page cannot be written.
    """
    from drift_monitor.actions.evidently_page import render  # noqa: PLC0415 - seconds
    from drift_monitor.service.references import reference_of  # noqa: PLC0415
    from drift_monitor.sources import SOURCES  # noqa: PLC0415
    from drift_monitor.sources.sample import sample_rows  # noqa: PLC0415

    monitor = request.monitor
    reference = reference_of(request.name, monitor, request.state, now=lambda: datetime.now(UTC))
    features = _features(request, reference.manifest)
    kinds = reference.manifest.kinds
    source = SOURCES[monitor.source.type](monitor.source, kinds)
    readable, omitted = _readable(source, request, features)
    live = sample_rows(source, request.window, readable, monitor.report.rows, timestamp=monitor.source.timestamp)
    page = render(
        _head(reference.sample(), monitor.report.rows),
        live,
        {name: kinds[name] for name in features if name not in omitted},
        title=f"Drift of {request.name}",
        facts=_facts(request, reference.manifest, live.num_rows),
        omitted=omitted,
    )
    _write(request.output, page.html)
    return ReportResult(path=request.output, omitted=dict(page.omitted))


def _features(request: ReportRequest, manifest: Manifest) -> list[str]:
    """The features that the monitor watches, those that are to come first in front."""
    monitor = request.monitor
    watched = monitor.columns.watched(manifest.kinds, monitor.source.timestamp)
    return [*(name for name in request.first if name in watched), *(n for n in watched if n not in request.first)]


def _readable(
    source: Source[Any], request: ReportRequest, features: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The columns that the live rows have, and why the others cannot be read."""
    readable: list[str] = []
    omitted: dict[str, str] = {}
    for name in features:
        try:
            found = source.columns(request.window, [name]).names
        except SchemaError as error:
            omitted[name] = str(error)
        else:
            if name in found:
                readable.append(name)
    return readable, omitted


def _head(sample: pa.Table, rows: int) -> pa.Table:
    """A sample's first rows: it lies in the order of hashes, so they are a sample too."""
    return sample.slice(0, rows)


def _facts(request: ReportRequest, manifest: Manifest, live_rows: int) -> dict[str, str]:
    model = " ".join(part for part in (request.monitor.model.name, request.monitor.model.version) if part)
    facts = {
        "model": model,
        "window": "all of the source" if request.window is None else str(request.window),
        "reference": f"{manifest.version}, {manifest.rows:,} rows",
        "shown": f"a sample of {live_rows:,} live rows and of {manifest.sample_rows:,} training rows",
        "run": "" if request.run is None else str(request.run),
        "note": "Evidently's own tests, on these samples; the monitor's verdict has others, on all rows",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _write(path: Path, html: str) -> None:
    """Write the page so that a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(answer(ReportRequest, make_report, MEMORY))
