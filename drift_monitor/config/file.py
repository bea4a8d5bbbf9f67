"""A configuration file -> `Config`, or every problem in it as `file:line:column: path: message (got value)`."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from drift_monitor.config import sentences
from drift_monitor.config.document import MAX_BYTES, Document, Node, compose, decode
from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.models import Config
from drift_monitor.config.problem import Location, Problem
from drift_monitor.config.receivers import RECEIVER_TYPES, misplaced
from drift_monitor.config.sources import FilesSource
from drift_monitor.config.tables import VARIABLE, DeltaSource, SqlSource, scheme
from drift_monitor.core.errors import ConfigError

_MOST = 100  # problems that are listed
_M = TypeVar("_M", bound=BaseModel)


def load(path: Path) -> Config:
    """Read a configuration file. Relative paths in it become absolute, from the file's own folder.

    Raises:
        ConfigError: the file cannot be read or used; holds every problem found.
    """
    return parse(read_text(path), path)


def parse(text: str, path: Path) -> Config:
    """Read the text of a configuration file.

    Args:
        text: YAML 1.2.
        path: names the file in problems; its folder is where relative paths begin.

    Raises:
        ConfigError: holds every problem found.
    """
    config, _, found = examine(text, path)
    if config is None or found:
        raise ConfigError(lines(found))
    return config


def lines(found: Sequence[Problem]) -> list[str]:
    """Problems as lines, a bounded number of them."""
    more = [f"... and {len(found) - _MOST:,} more"] if len(found) > _MOST else []
    return [str(p) for p in found[:_MOST]] + more


def examine(text: str, path: Path) -> tuple[Config | None, Document | None, list[Problem]]:
    """Read the text of a configuration file and keep the places, so that later checks can point at them.

    Returns:
        The configuration, or None when there are problems; the document, or None after a syntax error; the
        problems in the order of the file.
    """
    document, found = compose(text, str(path))
    if document is None:
        return None, None, found
    config = None
    try:
        config = Config.model_validate_json(json.dumps(document.root.data()))
    except ValidationError as error:
        found += sentences.problems(error, document, ignore=("unknown_receiver", "misplaced_receiver"))
    found += _unknown_receivers(document)
    if config is not None and not found:
        try:
            config = _with_spools(_absolute(config, path.absolute().parent))
        except RuntimeError as error:  # expanduser: no such user
            found.append(document.problem((), f"{error}: write `~` paths out", key=True))
    found.sort(key=lambda p: (p.line, p.column))
    return (None if found else config), document, found


def read_text(path: Path) -> str:
    """The text of a file of bounded size in UTF-8.

    Raises:
        ConfigError: it is missing, unreadable, too long or not UTF-8.
    """
    text = try_read(path)
    if isinstance(text, Problem):
        raise ConfigError([str(text)])
    return text


def try_read(path: Path) -> str | Problem:
    """The same, or what is wrong with the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Problem(str(path), 1, 1, "", "no such file: `drift-monitor init TRAINING_FILE` writes one")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return Problem(str(path), 1, 1, "", f"cannot be read: {reason}")
    return decode(raw, str(path))


def _unknown_receivers(document: Document) -> list[Problem]:
    """What `Config` also refuses, but here for every item, with its place, whatever else is wrong."""
    sections = document.root.mapping
    receivers = sections["receivers"].mapping if "receivers" in sections else {}
    found = []
    for name, monitor in (sections["monitors"].mapping if "monitors" in sections else {}).items():
        notify, retrain = monitor.mapping.get("notify"), monitor.mapping.get("retrain")
        asked: list[tuple[Location, Node]] = [
            (("notify", index), item) for index, item in enumerate(notify.items if notify is not None else ())
        ]
        if retrain is not None and "receiver" in retrain.mapping:
            asked.append((("retrain", "receiver"), retrain.mapping["receiver"]))
        for place, item in asked:
            location = ("monitors", name, *place)
            if not isinstance(item.value, str) or item.refused:
                continue
            if item.value not in receivers:
                found.append(
                    document.problem(location, sentences.unknown("receiver", item.value, list(receivers)))
                )
            elif (kind := receivers[item.value].mapping.get("type")) is not None and kind.text in RECEIVER_TYPES:
                setting = "notify" if place[0] == "notify" else "retrain.receiver"
                if why := misplaced(setting, kind.text):
                    found.append(document.problem(location, why))
    return found


def _absolute(model: _M, folder: Path) -> _M:
    """A copy in which every path is absolute."""
    update: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path | BaseModel):
            update[name] = _absolute_value(value, folder)
        elif isinstance(value, dict):
            update[name] = {k: _absolute_value(v, folder) for k, v in value.items()}
    if isinstance(model, FilesSource) and "://" not in model.path:
        pattern = Path(model.path).expanduser()
        base = glob.escape(str(folder)) if glob.has_magic(model.path) else str(folder)
        update["path"] = str(Path(base) / pattern)
    if isinstance(model, DeltaSource) and not VARIABLE.match(model.path) and "://" not in model.path:
        update["path"] = str(folder / Path(model.path).expanduser())
    if isinstance(model, SqlSource) and scheme(model.uri) in ("duckdb", "sqlite"):
        kind, _, path = model.uri.partition("://")
        if path and not VARIABLE.match(path):
            update["uri"] = f"{kind}://{folder / Path(path).expanduser()}"
    return model.model_copy(update={k: v for k, v in update.items() if v != getattr(model, k)})


def _absolute_value(value: object, folder: Path) -> object:
    if isinstance(value, BaseModel):
        return _absolute(value, folder)
    return folder / value.expanduser() if isinstance(value, Path) else value


def _with_spools(config: Config) -> Config:
    """A copy in which every source whose rows are kept says where."""
    monitors = {
        name: monitor.model_copy(
            update={"source": monitor.source.model_copy(update={"spool": config.state / "spool" / name})}
        )
        for name, monitor in config.monitors.items()
        if isinstance(monitor.source, SpooledSource) and monitor.source.spool is None
    }
    return config.model_copy(update={"monitors": {**config.monitors, **monitors}}) if monitors else config
