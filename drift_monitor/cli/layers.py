"""The layers of `check-config`: syntax and meaning of the text, then the world that it speaks of."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from drift_monitor.config.document import Document
from drift_monitor.config.file import examine, try_read
from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.models import Columns, Config, Monitor, covered
from drift_monitor.config.problem import Location, Problem, dotted, printable
from drift_monitor.config.sentences import unknown
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import BadReferenceError, DriftMonitorError
from drift_monitor.core.policy import format_duration
from drift_monitor.core.types import Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from drift_monitor.reference import Reference

_EVIDENTLY = "evidently:"
_LIBRARIES = {"dask": "distributed", "spark": "pyspark"}  # of the executors
_CAPTURED_IDS = ("eventId", "inferenceId")  # what an endpoint that captures gives each request
_SETTING = 2  # steps to a setting of a policy; more lead to a name that the user chose


@dataclass
class Findings:
    """What `check-config` found.

    Attributes:
        config: None when the text alone is wrong.
        columns: by monitor: column -> type of its reference or training file, where that could be read.
        kinds: by monitor: feature -> kind, where that is known.
    """

    config: Config | None
    document: Document | None
    problems: list[Problem]
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    kinds: dict[str, dict[str, Kind]] = field(default_factory=dict)

    def say(self, location: Location, message: str, *, key: bool = False, warning: bool = False) -> None:
        """Add a problem with the setting at a location."""
        if self.document is not None:
            self.problems.append(self.document.problem(location, message, key=key, warning=warning))

    def is_wrong(self, location: Location) -> bool:
        """Whether a problem with the setting at a location is known."""
        return any(problem.path == dotted(location) for problem in self.problems)


def examine_file(path: Path, *, offline: bool = False) -> Findings:
    """Check a file; one that cannot be read is a problem like any other."""
    text = try_read(path)
    if isinstance(text, Problem):
        return Findings(None, None, [text])
    return examine_layers(text, path, offline=offline)


def examine_layers(text: str, path: Path, *, offline: bool = False) -> Findings:
    """Check a configuration as far as its layers go: meaning needs correct syntax, the environment a meaning.

    Args:
        text: of the file.
        path: of the file.
        offline: leave the environment out.
    """
    config, document, problems = examine(text, path)
    found = Findings(config, document, problems)
    if config is not None:
        if not offline:
            _environment(found, config)
        for name, monitor in config.monitors.items():
            _policy(found, name, monitor)
            _schedule(found, name, monitor)
            _columns_agree(found, name, monitor.columns, monitor.source.timestamp)
            _refresh(found, name, monitor)
    found.problems.sort(key=lambda p: (p.line, p.column))
    return found


# -- meaning -------------------------------------------------------------------------------------------


def _policy(found: Findings, name: str, monitor: Monitor) -> None:
    """Say which methods and features of the policies fit nothing; features need a readable reference."""
    from drift_monitor.core.misfits import find_misfits

    alarm = monitor.alarm
    for place, message in find_misfits(found.kinds.get(name), alarm, monitor.quality):
        found.say(("monitors", name, *place), message, key=isinstance(place[-1], str) and len(place) > _SETTING)
    named: list[tuple[Location, str, Kind | None]] = [
        *((("methods", kind, i), m, kind) for kind, ms in alarm.methods.items() for i, m in enumerate(ms)),
        *((("report", i), m, None) for i, m in enumerate(alarm.report)),
        *((("thresholds", m), m, None) for m in alarm.thresholds),
        *((("features", f, m), m, None) for f, ms in alarm.features.items() for m in ms),
    ]
    for location, method, kind in named:
        problem = _evidently_problem(method, kind) if method.startswith(_EVIDENTLY) else None
        if problem is not None:
            found.say(("monitors", name, "alarm", *location), problem, key=isinstance(location[-1], str))


def _evidently_problem(method: str, kind: Kind | None) -> str | None:
    """What is wrong with naming this test of Evidently, for features of this kind."""
    from drift_monitor.evidently_tests import EVIDENTLY_TESTS

    short = method.removeprefix(_EVIDENTLY)
    usable = [n for n, test in EVIDENTLY_TESTS.items() if kind is None or test.takes(kind)]
    if short in usable:
        return None
    if short in EVIDENTLY_TESTS:
        return f"is not for {kind} features: {', '.join(usable)} are"
    return unknown("test of Evidently", short, usable)


def _schedule(found: Findings, name: str, monitor: Monitor) -> None:
    at, schedule, window = ("monitors", name), monitor.schedule, monitor.window
    if schedule.every is not None and schedule.every > window.length and monitor.source.timestamp is not None:
        found.say(
            (*at, "schedule"),
            f"a window of {format_duration(window.length)} every {format_duration(schedule.every)} "
            "leaves rows between the windows unwatched",
            warning=True,
        )
    if not next_windows(monitor, datetime.now(UTC), 1):
        found.say((*at, "schedule"), f"cron {schedule.cron!r} never fires")
    quality = monitor.quality
    if quality.min_rows is not None and quality.max_rows is not None and quality.min_rows > quality.max_rows:
        found.say((*at, "quality"), f"min_rows {quality.min_rows:,} is above max_rows {quality.max_rows:,}")


def next_windows(monitor: Monitor, now: datetime, count: int) -> list[tuple[datetime, datetime, datetime]]:
    """The next windows of a monitor: (due at, start, end)."""
    from itertools import islice

    from drift_monitor.service.scheduler import fires_after

    window = monitor.window
    fires = islice(fires_after(monitor.schedule, now - window.delay), count)
    return [(end + window.delay, end - window.length, end) for end in fires]


def _refresh(found: Findings, name: str, monitor: Monitor) -> None:
    """Say what a refreshed training set lacks, before a retraining finds out."""
    from drift_monitor.reference.version import is_reference

    at, settings = ("monitors", name, "refresh"), monitor.refresh
    if not settings.enabled:
        return
    if settings.policy == "sliding" and monitor.source.timestamp is None:
        found.say((*at, "policy"), "sliding needs event times: set source.timestamp")
    if monitor.training is None and name in found.columns and is_reference(monitor.reference):
        found.say((*at, "enabled"), "`reference` is a folder, which keeps no rows: set `training` too")
    for index, column in enumerate(settings.by):
        if column not in (known := found.columns.get(name, {column: ""})):
            found.say((*at, "by", index), unknown("column in the reference", column, list(known)))


def _columns_agree(found: Findings, name: str, columns: Columns, timestamp: str | None) -> None:
    at = ("monitors", name, "columns")
    roles = {"prediction": columns.prediction, "label": columns.label, "id": columns.id, "timestamp": timestamp}
    seen: dict[str, str] = {}
    for role, column in roles.items():
        location = (*at, role) if role != "timestamp" else ("monitors", name, "source", "timestamp")
        if column is None:
            continue
        if column in seen:
            found.say(location, f"column {printable(column, 60)} is the {seen[column]} already")
        seen.setdefault(column, role)
        if column in columns.ignore and role == "prediction":
            found.say(location, "the prediction is watched, so it cannot be ignored too")
    for index, column in enumerate(columns.features or ()):
        if column in columns.ignore:
            found.say((*at, "features", index), "a feature cannot be ignored too")
        elif column in seen:
            found.say((*at, "features", index), f"column {printable(column, 60)} is the {seen[column]} already")


# -- environment ---------------------------------------------------------------------------------------


def _environment(found: Findings, config: Config) -> None:
    _state(found, config.state)
    if config.server.token_file is not None:
        message = token_problem(config.server.token_file)
        if message:
            found.say(("server", "token_file"), message)
    _receivers(found, config)
    for name, monitor in config.monitors.items():
        _reference(found, name, monitor)
        _source(found, name, monitor)
        _labels(found, name, monitor)
        _executor(found, name, monitor)


def _receivers(found: Findings, config: Config) -> None:
    from drift_monitor.receivers import probe, unsuited

    for name, receiver in config.receivers.items():
        message = probe(receiver)
        if message:
            found.say(("receivers", name), message)
    for name, monitor in config.monitors.items():
        asked: list[tuple[Location, str]] = [(("notify", i), r) for i, r in enumerate(monitor.notify)]
        if monitor.retrain is not None:
            asked.append((("retrain", "receiver"), monitor.retrain.receiver))
        for place, receiver_name in asked:
            setting = "notify" if place[0] == "notify" else "retrain.receiver"
            message = unsuited(config.receivers[receiver_name], setting)
            if message:
                found.say(("monitors", name, *place), message)


def _state(found: Findings, state: Path) -> None:
    nearest = next(p for p in (state, *state.parents) if p.exists())
    if not nearest.is_dir():
        found.say(("state",), f"{nearest} is not a folder")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        found.say(("state",), f"{nearest} cannot be written by this user")


def token_problem(path: Path) -> str | None:
    """What is wrong with a file that holds a bearer token."""
    try:
        token = path.read_text("ascii").strip()
    except UnicodeDecodeError:
        return f"{path} holds something that is not ASCII: a token is letters, digits and signs"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if len(token) < 16:
        return (
            f"{path} holds a token of {len(token)} characters: use 16 or more, such as from `openssl rand -hex 32`"
        )
    return f"{path} holds more than one word: a token has no blanks" if len(token.split()) > 1 else None


def _reference(found: Findings, name: str, monitor: Monitor) -> None:
    from drift_monitor.reference import open_reference
    from drift_monitor.reference.segments import refuse_unbuilt
    from drift_monitor.reference.version import is_reference

    path = monitor.reference
    try:
        if is_reference(path):
            opened = open_reference(path)
            manifest = opened.manifest
            found.columns[name], found.kinds[name] = dict(manifest.schema_), manifest.kinds
            _columns_exist(found, name, monitor, list(manifest.schema_))
            refuse_unbuilt(monitor.segmented, manifest)
            _promise(found, name, monitor, opened)
        elif path.exists():
            _training_file(found, name, monitor)
        else:
            raise BadReferenceError(f"{path}: no such file or folder")
    except (DriftMonitorError, OSError) as error:
        found.say(("monitors", name, "reference"), str(error))


def _promise(found: Findings, name: str, monitor: Monitor, reference: Reference) -> None:
    """Warn where the reference's days cannot carry the promise about false alerts, or the settings rule it out."""
    from drift_monitor.core.promise import promise
    from drift_monitor.service.calibrations import NO_TIMES, foreseen, obstacle

    alarm, at = monitor.alarm, ("monitors", name, "alarm")
    if alarm.false_alerts_per_month is None:
        return  # that is how to ask for no promise
    if (missing := obstacle(monitor, reference)) is not None:
        assumed = "the promise about false alerts assumes independent rows"
        what = assumed if missing.why == NO_TIMES else "there is no promise about false alerts"
        found.say(at, f"{what}: {missing.why}; {missing.advice}", warning=True)
    elif (threshold := foreseen(name, monitor, reference)) is not None and threshold.needed:
        found.say((*at, "false_alerts_per_month"), promise(threshold, alarm), warning=True)


def _training_file(found: Findings, name: str, monitor: Monitor) -> None:
    from drift_monitor.core.fold import accepts
    from drift_monitor.reference.features import plan
    from drift_monitor.reference.segments import unfit
    from drift_monitor.sources import SOURCES

    source = FilesSource(path=str(monitor.reference))
    schema = SOURCES[source.type](source, {}).columns()
    found.columns[name] = {field.name: str(field.type) for field in schema}
    at, columns, timestamp = ("monitors", name), monitor.columns, monitor.source.timestamp
    wrong = not _columns_exist(found, name, monitor, schema.names)
    if timestamp is not None and timestamp not in schema.names:
        found.say((*at, "source", "timestamp"), unknown("column in the reference", timestamp, schema.names))
        wrong = True
    for column, kind in columns.kinds.items():
        if column in schema.names and not accepts(kind, schema.field(column).type):
            message = f"the column is {schema.field(column).type}, which cannot be read as {kind}"
            found.say((*at, "columns", "kinds", column), message)
            wrong = True
    if not wrong:
        features, _ = plan(schema, columns, timestamp)
        kinds = found.kinds[name] = {feature.name: feature.kind for feature in features}
        for column in monitor.segmented:
            if why := unfit(column, kinds, schema.names):
                found.say((*at, "segments"), f"{column!r} {why}")


def _columns_exist(found: Findings, name: str, monitor: Monitor, known: Sequence[str]) -> bool:
    """Say which columns of the configuration the reference does not have; whether all it needs are there."""
    at, columns, complete = ("monitors", name), monitor.columns, True
    lists: dict[str, Iterable[str]] = {"ignore": columns.ignore, "features": columns.features or ()}
    named: list[tuple[Location, str, bool]] = [
        *(((*at, "columns", role), c, False) for role, c in _roles(columns)),
        *(((*at, "columns", key, i), c, False) for key, cs in lists.items() for i, c in enumerate(cs)),
        *(((*at, "columns", "kinds", c), c, True) for c in columns.kinds),
    ]
    for location, column, key in named:
        is_list = location[-2] in ("ignore", "features")
        if column not in known and not (is_list and covered([column], known)):
            if location[-1] == "id" and column in _CAPTURED_IDS and _captured(monitor):
                continue  # the endpoint makes it
            # a label arrives later and an id may be made by the service: neither has to be in the training data
            optional = location[-1] in ("label", "id") or location[-2] == "ignore"
            found.say(location, unknown("column in the reference", column, known), key=key, warning=optional)
            complete = complete and optional
    return complete


def _captured(monitor: Monitor) -> bool:
    return isinstance(monitor.source, FilesSource) and monitor.source.format == "sagemaker"


def _roles(columns: Columns) -> list[tuple[str, str]]:
    roles = {"prediction": columns.prediction, "label": columns.label, "id": columns.id}
    return [(role, column) for role, column in roles.items() if column is not None]


def _source(found: Findings, name: str, monitor: Monitor) -> None:
    at, source = ("monitors", name, "source"), monitor.source
    if isinstance(source, SpooledSource):
        return  # the rows come to the daemon, which refuses those that do not fit
    place = (*at, "path") if isinstance(source, FilesSource) else at
    if isinstance(source, FilesSource) and "://" not in source.path:
        path = Path(source.path)
        matches = path.exists() or (glob.has_magic(source.path) and any(glob.iglob(source.path, recursive=True)))
        if not matches:
            found.say(place, "no file matches yet: until one does, checks say cannot_judge", warning=True)
            return
    from drift_monitor.sources import SOURCES

    try:
        schema = SOURCES[source.type](source, monitor.columns.kinds).columns()
    except DriftMonitorError as error:
        found.say(place, str(error), warning=True)
    else:
        _source_columns(found, name, monitor, schema, place)


def _executor(found: Findings, name: str, monitor: Monitor) -> None:
    kind = monitor.executor.type
    library = _LIBRARIES.get(kind)
    if library is not None and find_spec(library) is None:
        message = f"{kind} needs {library}: pip install 'drift-monitor[{kind}]'"
        found.say(("monitors", name, "executor"), message, warning=True)


def _labels(found: Findings, name: str, monitor: Monitor) -> None:
    """Say what the source of late labels lacks."""
    from drift_monitor.sources import SOURCES

    labels, at = monitor.labels, ("monitors", name, "labels")
    if labels is None:
        return
    try:
        schema = SOURCES[labels.source.type](labels.source, {}).columns()
    except DriftMonitorError as error:
        found.say((*at, "source"), str(error), warning=True)
        return
    roles = {"id": monitor.columns.id, "label": monitor.columns.label}
    for role, default in roles.items():
        if (column := getattr(labels, role) or default) not in schema.names:
            place = (*at, role) if getattr(labels, role) is not None else (*at, "source")
            found.say(place, unknown("column in labels.source", column or "", schema.names))
    if labels.source.timestamp not in schema.names:
        where = (*at, "source", "timestamp")
        found.say(where, unknown("column in labels.source", labels.source.timestamp or "", schema.names))


def _source_columns(found: Findings, name: str, monitor: Monitor, schema: pa.Schema, place: Location) -> None:
    """Say what the columns of the live rows lack; `place` is the setting that says where the rows are."""
    from drift_monitor.core.fold import accepts

    at, source = ("monitors", name, "source"), monitor.source
    at_timestamp = (*at, "timestamp")
    if source.timestamp not in (None, *schema.names) and not found.is_wrong(at_timestamp):
        found.say(at_timestamp, unknown("column in the source", source.timestamp or "", schema.names))
    columns, known = monitor.columns, found.columns.get(name, {})
    for role, column in _roles(columns):
        if column not in schema.names and role != "label" and (column in known or role == "id"):
            message = unknown("column in the source", column, schema.names)
            found.say(("monitors", name, "columns", role), message)
    expected = columns.watched(known, source.timestamp)
    missing = [c for c in expected if c != columns.prediction and c not in schema.names]
    if missing:
        shown = ", ".join(printable(c, 60) for c in missing[:10]) + (", ..." if len(missing) > 10 else "")
        message = f"the source lacks columns that the reference has: {shown}"
        found.say(place, message, warning=True)
    for column, kind in found.kinds.get(name, {}).items():
        if column in schema.names and not accepts(kind, schema.field(column).type):
            message = (
                f"column {printable(column, 60)} is {schema.field(column).type}, "
                f"which cannot be read as the {kind} feature of the reference"
            )
            found.say(place, message, warning=True)
