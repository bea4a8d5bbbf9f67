"""The calibration of a monitor on its reference: looked up beside the reference, or made and kept there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Monitor
from drift_monitor.core.alarm import baselines, phase_counts
from drift_monitor.core.calibration import FORMAT, Calibration, Watch, calibrate
from drift_monitor.core.history import DAY, Baseline, Context, window_sums
from drift_monitor.core.policy import format_duration
from drift_monitor.core.profile import Ints, Spec
from drift_monitor.core.resample import resample
from drift_monitor.core.scores import STATISTICS
from drift_monitor.core.threshold import DRIFT_SHARE, LEAST_DAYS, Threshold, choose_threshold
from drift_monitor.reference import Reference
from drift_monitor.reference.version import write_durably
from drift_monitor.service.channels import replay_channels
from drift_monitor.service.lock import locked
from drift_monitor.service.packages import versions
from drift_monitor.service.references import quality_of
from drift_monitor.service.scheduler import EPOCH, fires_after

FOLDER: Final = "calibrations"
SHORT: Final = timedelta(hours=1)
"""The further window that is looked at where the data carry it."""
WORKERS: Final = 2
NO_TIMES: Final = "the data have no times"
_KEPT: Final = 16
_resampled: dict[tuple[str, int], Known] = {}
_watches: dict[tuple[str, str, str], Watch] = {}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is known of a monitor's alarms before any window is read.

    Attributes:
        watch: how it looks at its data.
        calibration: None where there can be none.
        yardsticks: what live windows are compared with, by feature.
        why_not: why there is no calibration, in words.
        path: the file that the calibration is kept in.
    """

    watch: Watch
    calibration: Calibration | None
    yardsticks: dict[str, Baseline]
    why_not: str = ""
    path: Path | None = None


class Obstacle(NamedTuple):
    """Why a monitor's thresholds cannot be calibrated, and what would change that."""

    why: str
    advice: str


def watch_of(name: str, monitor: Monitor, reference: Reference) -> Watch:
    """How a monitor looks at its data, with what is not set inferred from the reference."""
    settings = monitor.model_dump_json(include={"alarm", "quality", "schedule", "window"})
    key = (name, settings, reference.id.sha256)
    if key not in _watches:  # a worker asks at every check
        if len(_watches) >= _KEPT:
            _watches.pop(next(iter(_watches)))
        _watches[key] = _watch(name, monitor, reference)
    return _watches[key]


def _watch(name: str, monitor: Monitor, reference: Reference) -> Watch:
    bucket = reference.manifest.bucket_length
    step, offset = _pace(monitor, bucket)
    main = monitor.window.length
    wanted = monitor.alarm.windows
    if wanted is None:
        wanted = (SHORT,) if _carries(reference, SHORT, monitor) else ()
    lengths = sorted({n for n in wanted if n < main and not n % bucket} | {main})
    return Watch(name, monitor.alarm, quality_of(monitor, reference), tuple(lengths), step, offset)


def obstacle(monitor: Monitor, reference: Reference) -> Obstacle | None:
    """What keeps a monitor's thresholds from being calibrated; None when nothing does."""
    alarm, length, bucket = monitor.alarm, monitor.window.length, reference.manifest.bucket_length
    if alarm.false_alerts_per_month is None:
        return Obstacle(
            "alarm.false_alerts_per_month is null", "set it to the number of false alerts that you can bear"
        )
    if alarm.thresholds or any(alarm.features.values()):
        return Obstacle(
            "fixed thresholds are set", "remove alarm.thresholds and alarm.features to have them calibrated"
        )
    others = sorted({m for kind, names in alarm.methods.items() for m in names if m not in STATISTICS[kind]})
    if others:
        return Obstacle(
            f"alarm.methods has {', '.join(others)}, which cannot be calibrated",
            "move them to alarm.report, where they are computed and shown but do not decide",
        )
    if monitor.source.timestamp is None or reference.manifest.timestamp is None:
        return Obstacle(
            NO_TIMES,
            "name the column of event times in source.timestamp, and build the version again",
        )
    if length % bucket:
        return Obstacle(
            f"the reference's buckets are of {format_duration(bucket)}, which do not fill a window",
            "make window.length a whole number of buckets, or build the reference with another window.bucket",
        )
    return None


def why_none(monitor: Monitor, reference: Reference) -> str | None:
    """Why a monitor's thresholds cannot be calibrated, in words; None when they can."""
    found = obstacle(monitor, reference)
    return None if found is None else found.why


def foreseen(name: str, monitor: Monitor, reference: Reference) -> Threshold | None:
    """What the reference's days will allow to promise, told without a calibration: the value is not known yet.

    A day that the quality lane refuses in the replay is counted here, so it may be a day or two less.

    Args:
        name: of the monitor.
        monitor: its configuration.
        reference: what it is compared with.

    Returns:
        The basis, the days and how many more are needed; None for a monitor that cannot be calibrated.
    """
    budget = monitor.alarm.false_alerts_per_month
    if budget is None or obstacle(monitor, reference) is not None:
        return None
    runs = watch_of(name, monitor, reference).runs(reference.grid)
    rows = window_sums(reference.rows_by_bucket(), runs.ends, runs.lengths[-1])
    days = np.unique(runs.days[rows >= monitor.alarm.min_rows])
    return choose_threshold(np.zeros(len(days)), budget, lambda _: 0, share=DRIFT_SHARE)


def known_of(
    name: str,
    monitor: Monitor,
    reference: Reference,
    state: Path,
    specs: list[Spec],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Known:
    """The calibration of a monitor, made now if there is none for these settings and this reference.

    Two processes that need the same one wait for each other.

    Args:
        name: of the monitor.
        monitor: its configuration.
        reference: what it is compared with.
        state: the state folder, where calibrations are kept if the reference's own folder cannot be written.
        specs: the features that are watched.
        progress: called with (features done, features in all) when one is made.
    """
    watch = watch_of(name, monitor, reference)
    reason = why_none(monitor, reference)
    if reason is not None:
        return Known(watch, None, {}, reason)
    folder = _folder(reference, state)
    names = [spec.name for spec in specs]
    file = f"{recipe(watch, reference, names)}.json"
    path = reference.folder / FOLDER / file  # a reference that cannot be written may have come with one
    found = _read(path)
    if found is None:
        path = folder / file
        found = _read(path)
    if found is None:
        with locked(folder):
            found = _read(path)
            if found is None:
                found = _made(watch, reference, specs, progress)
                _write(path, found.model_dump_json(indent=1).encode() + b"\n")
    phases = None if found.context == "none" else _phases(folder, reference, specs, found.context)
    return Known(watch, found, baselines(specs, reference.profile, found.context, phases), path=path)


def without_times(known: Known, monitor: Monitor, reference: Reference, specs: list[Spec], rows: int) -> Known:
    """The same with a calibration that assumes independent rows, where it is the lack of times that is in the way.

    Args:
        known: of `known_of`.
        monitor: its configuration.
        reference: what it is compared with.
        specs: the features that are watched.
        rows: of the window. Windows of about the same size share a calibration.
    """
    timed = monitor.source.timestamp is not None and reference.manifest.timestamp is not None
    budget = monitor.alarm.false_alerts_per_month
    if timed or known.calibration is not None or budget is None or known.why_not != NO_TIMES:
        return known
    size = max(monitor.alarm.min_rows, 1 << (rows - 1).bit_length())
    key = (recipe(known.watch, reference, [spec.name for spec in specs]), size)
    if key not in _resampled:
        if len(_resampled) >= _KEPT:
            _resampled.pop(next(iter(_resampled)))
        watch = replace(known.watch, lengths=known.watch.lengths[-1:])
        seed = reference.manifest.seed
        found = resample(watch, specs, reference.profile, reference.id.sha256, rows=size, seed=seed)
        _resampled[key] = Known(watch, found, baselines(specs, reference.profile, "none"))
    return _resampled[key]


def recipe(watch: Watch, reference: Reference, features: list[str]) -> str:
    """A name for a calibration: the hash of all that it follows from."""
    alarm = watch.alarm.model_dump(mode="json", exclude={"alpha", "report", "remind", "thresholds", "features"})
    settings = [
        FORMAT,
        reference.id.sha256,
        sorted(features),
        alarm,
        watch.quality.model_dump(mode="json"),
        [n.total_seconds() for n in (*watch.lengths, watch.step, watch.offset)],
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def _made(
    watch: Watch, reference: Reference, specs: list[Spec], progress: Callable[[int, int], None] | None
) -> Calibration:
    """Replay: the days of the classifier, then feature by feature."""
    names, grid = [spec.name for spec in specs], reference.grid
    extra = {}
    if grid.size * grid.width >= LEAST_DAYS * DAY:
        extra = replay_channels(watch, reference, grid, specs, progress)
    with ThreadPoolExecutor(WORKERS) as pool:
        return calibrate(
            watch,
            reference.id.sha256,
            grid,
            reference.rows_by_bucket(),
            reference.histories(names),
            features=len(names),
            extra=extra,
            versions=versions(),
            seed=reference.manifest.seed,
            progress=progress,
            mapper=lambda function, items: _ahead(pool, function, items),
        )


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map` with a few items under way at a time, in their order."""
    source = iter(items)
    waiting = [pool.submit(function, item) for item in islice(source, WORKERS)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, item) for item in islice(source, 1)]


def _pace(monitor: Monitor, bucket: timedelta) -> tuple[timedelta, timedelta]:
    """The usual time between two runs, and the offset of their ends, both in whole buckets."""
    if monitor.schedule.every is not None:
        step, first = monitor.schedule.every, EPOCH
    else:
        fires = list(islice(fires_after(monitor.schedule, EPOCH), 60))
        if len(fires) < 2:
            return monitor.window.length, timedelta(0)
        step, first = timedelta(seconds=median((b - a).total_seconds() for a, b in pairwise(fires))), fires[0]
    step = max(bucket, step // bucket * bucket)
    return step, (first - EPOCH) // bucket * bucket % step


def _carries(reference: Reference, length: timedelta, monitor: Monitor) -> bool:
    """Whether most windows of a length have rows enough to be judged."""
    bucket = reference.manifest.bucket_length
    if reference.manifest.timestamp is None or length % bucket or length >= monitor.window.length:
        return False
    rows = reference.rows_by_bucket()
    width = length // bucket
    if len(rows) < width:
        return False
    sums = np.convolve(rows, np.ones(width, np.int64), "valid")
    return bool(np.median(sums) >= monitor.alarm.min_rows)


def _phases(folder: Path, reference: Reference, specs: list[Spec], context: Context) -> dict[str, Ints]:
    """Counts by time of the week, kept beside the calibrations since to sum them up takes a while."""
    path = folder / f"phases-{reference.id.sha256[:24]}-{context}.parquet"
    if not path.is_file():
        grid = reference.grid
        rows = [
            {"feature": spec.name, "groups": counts.shape[1], "counts": counts.ravel()}
            for spec, history in reference.histories()
            for counts in (phase_counts(spec, history, grid, context),)
        ]
        types = [("feature", pa.string()), ("groups", pa.int32()), ("counts", pa.list_(pa.int64()))]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(types)), sink, compression="zstd")
        _write(path, sink.getvalue().to_pybytes())
    wanted = {spec.name for spec in specs}
    table = pq.read_table(path)
    return {
        row["feature"]: np.array(row["counts"], np.int64).reshape(-1, row["groups"])
        for row in table.to_pylist()
        if row["feature"] in wanted
    }


def _folder(reference: Reference, state: Path) -> Path:
    """Beside the reference's version; below the state where that cannot be written."""
    folder = reference.folder / FOLDER
    if os.access(folder if folder.is_dir() else reference.folder, os.W_OK):
        return folder
    return state / FOLDER / reference.manifest.version


def _read(path: Path) -> Calibration | None:
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.warning("a calibration is damaged and made again: %s: %s", path, error)
        return None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_durably(temporary, content)
    temporary.replace(path)
