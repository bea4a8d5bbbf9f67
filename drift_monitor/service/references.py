"""The reference of a monitor: opened where it lies, or built once from its training file and kept in the state."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from drift_monitor.config.models import Monitor
from drift_monitor.config.sources import sample_of
from drift_monitor.core.errors import BadReferenceError, ConfigError
from drift_monitor.core.policy import Quality
from drift_monitor.core.profile import Spec
from drift_monitor.core.types import Segment, Value
from drift_monitor.reference import Reference, build_reference, open_reference
from drift_monitor.reference.segments import refuse_unbuilt
from drift_monitor.reference.version import hash_file, write_durably
from drift_monitor.service.lock import locked
from drift_monitor.service.promotions import promoted_folder, promotion_of

_RECORD: Final = "training.json"
_SPARSE: Final = timedelta(hours=4)
"""Windows shorter than this have too few hours for a freshness that a sample misses by one."""
_log = logging.getLogger(__name__)


class _Record(Value):
    """What the version in use was built from.

    Attributes:
        recipe: hash of the settings that shape a reference.
        size, changed: bytes and modification time (ns) of the training file.
        sha256: of its content.
        version: that was built.
    """

    recipe: str
    size: int
    changed: int
    sha256: str
    version: str


def reference_of(
    name: str,
    monitor: Monitor,
    state: Path,
    *,
    now: Callable[[], datetime],
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Open the reference that a monitor has now: the configured one, or that of the model which replaced it.

    Args:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder; versions built here are in `references/<name>`.
        now: the time, for what is built.
        progress: called with (steps done, steps in all) of a build.

    Raises:
        BadReferenceError: there is none, it is damaged, or it cannot be built.
    """
    base = configured_reference(name, monitor, state, now=now, progress=progress)
    promotion = promotion_of(state, name)
    if promotion is None:
        return base
    if promotion.base != base.manifest.sha256:
        _log.warning("monitor %s: another reference is configured: that of the retraining is not used", name)
        return base
    return open_reference(promoted_folder(state, name), promotion.version, thorough=False)


def configured_reference(
    name: str,
    monitor: Monitor,
    state: Path,
    *,
    now: Callable[[], datetime],
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Open the configured reference, after building it if it is a training file that is new or has changed.

    Two processes that need the same one wait for each other.

    Args:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder; versions built here are in `references/<name>`.
        now: the time, for what is built.
        progress: called with (steps done, steps in all) of a build.

    Raises:
        BadReferenceError: there is none, it is damaged, or it cannot be built.
    """
    if monitor.reference.is_dir():
        return open_reference(monitor.reference, thorough=False)
    folder = state / "references" / name
    try:
        status = monitor.reference.stat()
    except OSError as error:
        raise BadReferenceError(
            f"reference {str(monitor.reference)!r} cannot be read: {error.strerror}"
        ) from error
    recipe = _recipe(monitor)
    try:
        with locked(folder):
            known = _read(folder / _RECORD)
            if known is not None and known.recipe != recipe:
                known = None
            touched = known is None or (known.size, known.changed) != (status.st_size, status.st_mtime_ns)
            sha256 = hash_file(monitor.reference).sha256 if known is None or touched else known.sha256
            found = _reopened(folder, known.version) if known is not None and known.sha256 == sha256 else None
            if found is not None and not touched:
                return found
            if found is None:
                found = _built(monitor, folder, now(), progress)
            record = _Record(
                recipe=recipe,
                size=status.st_size,
                changed=status.st_mtime_ns,
                sha256=sha256,
                version=found.manifest.version,
            )
            temporary = folder / f".{_RECORD}"
            write_durably(temporary, record.model_dump_json().encode())
            temporary.replace(folder / _RECORD)
            return found
    except OSError as error:
        raise BadReferenceError(
            f"the reference built from {str(monitor.reference)!r} cannot be kept in {folder}: {error.strerror}"
        ) from error


def training_of(name: str, monitor: Monitor, state: Path, *, now: Callable[[], datetime]) -> Path:
    """The rows that the live model was trained on.

    Args:
        name: of the monitor.
        monitor: its configuration.
        state: the state folder.
        now: the time, for a reference that has to be built.

    Raises:
        ConfigError: no setting names them.
        BadReferenceError: what a retraining led to cannot be read.
    """
    promotion = promotion_of(state, name)
    if promotion is not None:
        base = configured_reference(name, monitor, state, now=now)
        if promotion.base == base.manifest.sha256:
            return promotion.training
    if monitor.training is not None:
        return monitor.training
    if monitor.reference.is_file():
        return monitor.reference
    why = f"the reference {str(monitor.reference)!r} has only a summary of them"
    raise ConfigError([f"monitors.{name}.training: name the file of the training rows: {why}"])


def watched_specs(monitor: Monitor, reference: Reference) -> list[Spec]:
    """The reference's features that a monitor watches: columns, and then columns in segments.

    Raises:
        BadReferenceError: it has none of them, or was built with other kinds or without the segments.
    """
    columns = monitor.columns
    kinds = reference.manifest.kinds
    for name, kind in columns.kinds.items():
        if kinds.get(name, kind) != kind:
            raise BadReferenceError(
                f"columns.kinds says that {name!r} is {kind}, but reference {reference.manifest.version} was "
                f"built with {kinds[name]}: build a new version"
            )
    wanted, segments = set(columns.watched(kinds, monitor.source.timestamp)), monitor.segmented
    refuse_unbuilt(segments, reference.manifest)
    specs = [
        spec
        for spec in reference.specs
        if spec.column in wanted and (spec.segment is None or _has(segments, spec.segment))
    ]
    if not specs:
        raise BadReferenceError(f"reference {reference.manifest.version} has none of the monitor's features")
    return specs


def _has(segments: Mapping[str, Sequence[str] | None], segment: Segment) -> bool:
    values = segments.get(segment.column, ())
    return values is None or segment.value in values


def quality_of(monitor: Monitor, reference: Reference) -> Quality:
    """What is asked of the quality of a monitor's data.

    A retraining's set was split, thinned, and left without the rows that have no label: how many rows a day of it
    has says nothing of a live day, so no volume is inferred from it. Nor is it where pages of a live table are
    sampled, since nobody counts its rows. A sample has a row group of each hour but may miss the last events
    of the newest, so no freshness is inferred for windows of a few hours.
    """
    quality, sample = monitor.quality, sample_of(monitor.source)
    given = quality.min_rows is not None or quality.max_rows is not None
    uncounted = sample is not None and monitor.source.type == "sql"
    off = []
    if (reference.manifest.model_version or uncounted) and not given:
        off.append("volume")
    if sample is not None and quality.freshness is None and monitor.window.length < _SPARSE:
        off.append("freshness")
    off = [check for check in off if check not in quality.disable]
    return quality.model_copy(update={"disable": (*quality.disable, *off)}) if off else quality


def _recipe(monitor: Monitor) -> str:
    source = monitor.source
    settings = [
        str(monitor.reference),
        monitor.columns.model_dump(mode="json"),
        source.timestamp,
        source.timezone,
        monitor.window.bucket.total_seconds(),
        monitor.report.rows,
    ]
    if monitor.segments:
        settings.append(monitor.model_dump(mode="json", include={"segments"}))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _built(
    monitor: Monitor, folder: Path, created: datetime, progress: Callable[[int, int], None] | None
) -> Reference:
    return build_reference(
        monitor.reference,
        folder,
        columns=monitor.columns,
        timestamp=monitor.source.timestamp,
        bucket=monitor.window.bucket,
        segments=monitor.segmented,
        timezone=monitor.source.timezone,
        created=created,
        sample_rows=monitor.report.rows,
        progress=progress,
    )


def _reopened(folder: Path, version: str) -> Reference | None:
    """A version built here before; None when it is gone or damaged, since it can be built again."""
    try:
        return open_reference(folder, version, thorough=False)
    except BadReferenceError as error:
        _log.warning("building a reference again: %s", error)
        return None


def _read(path: Path) -> _Record | None:
    """The record; None when there is none that can be read, since it only saves work."""
    try:
        return _Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
