"""The child that makes a new reference: `python -m drift_monitor.service.promoting`.

It reads a `PromoteRequest` on standard input and writes a `PromoteResult` on standard output.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from drift_monitor.actions.promote import PromoteRequest, PromoteResult
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.service.answer import answer
from drift_monitor.service.lock import locked
from drift_monitor.service.promotions import RECORD, Promotion, promoted_folder, promotion_of

MEMORY: Final = 4 * 2**30  # bytes


def promote(request: PromoteRequest) -> PromoteResult:
    """Build, calibrate and record the new reference. Until the record is written the old one is in use.

    One process does this at a time; another, of a daemon that was killed, may be about to end.

    Raises:
        DriftMonitorError: the training data cannot be used.
        OSError: the state cannot be written.
    """
    folder = promoted_folder(request.state, request.name)
    with locked(folder, ".promoting"):  # apart from that of the versions, which is taken in between
        return _promote(request, folder)


def _promote(request: PromoteRequest, folder: Path) -> PromoteResult:
    from drift_monitor.reference import build_reference  # noqa: PLC0415
    from drift_monitor.reference.version import sync_folder, write_durably  # noqa: PLC0415
    from drift_monitor.service.calibrations import known_of  # noqa: PLC0415
    from drift_monitor.service.references import (  # noqa: PLC0415
        configured_reference,
        reference_of,
        watched_specs,
    )

    def now() -> datetime:
        return datetime.now(UTC)

    name, monitor = request.name, request.monitor
    recorded = promotion_of(request.state, name)
    if recorded is not None and (recorded.retraining, recorded.training) == (request.retraining, request.training):
        return PromoteResult(version=recorded.version)  # and then the process died
    if not request.training.is_absolute():
        raise BadReferenceError(f"{str(request.training)!r} is no absolute path of a training file")
    base = configured_reference(name, monitor, request.state, now=now)
    before = reference_of(name, monitor, request.state, now=now)
    built = build_reference(
        request.training,
        folder,
        columns=monitor.columns,
        timestamp=monitor.source.timestamp,
        bucket=monitor.window.bucket,
        segments=monitor.segmented,
        timezone=monitor.source.timezone,
        created=now(),
        sample_rows=monitor.report.rows,
        split=f"training data of model version {request.model_version}",
        model_version=request.model_version,
    )
    specs = watched_specs(monitor, built)
    lost = sorted({s.column for s in watched_specs(monitor, before)} - {s.column for s in specs})
    if lost:
        raise BadReferenceError(
            f"{request.training} lacks {', '.join(lost[:5])}, which the monitor watches: name the file that the "
            "model was trained on, or take the columns out of the configuration"
        )
    known_of(name, monitor, built, request.state, specs)  # calibrated before the first window needs it
    promotion = Promotion(
        base=base.manifest.sha256,
        version=built.manifest.version,
        model_version=request.model_version,
        retraining=request.retraining,
        training=request.training,
        at=request.at,
        previous=before.folder,
        trial_until=request.at + request.trial,
    )
    temporary = folder / f".{RECORD}"
    write_durably(temporary, promotion.model_dump_json(indent=1).encode() + b"\n")
    temporary.replace(folder / RECORD)
    sync_folder(folder)
    return PromoteResult(version=built.manifest.version)


if __name__ == "__main__":
    sys.exit(answer(PromoteRequest, promote, MEMORY))
