"""`drift-monitor doctor`: is everything here that the daemon needs, and what to do about what is not."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from drift_monitor.cli.options import ERROR, OK, config_option, examples, stdout

if TYPE_CHECKING:
    from drift_monitor.config.models import Config

_PACKAGES = (
    "drift-monitor",
    "pydantic",
    "apscheduler",
    "numpy",
    "pyarrow",
    "pandas",
    "scipy",
    "scikit-learn",
    "evidently",
)
_DISK_FAIL, _DISK_WARN = 50 * 2**20, 500 * 2**20  # bytes free: too few for a report, for a month of results
_BUILT = datetime(2025, 1, 1, tzinfo=UTC)  # no machine that runs this has an earlier date
_NOT_SYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        advice: what to do next; empty when all is well.
    """

    status: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    advice: str = ""


@click.command(
    epilog=examples("drift-monitor doctor", "drift-monitor doctor --json | jq '.[] | select(.status != \"ok\")'")
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def doctor(config_path: Path, *, as_json: bool) -> int:
    """Find out what the daemon lacks and what to do about it.

    Looks at packages, clock, configuration, references, state, disk, memory and receivers. Changes nothing.
    Exits with 1 when something fails.
    """
    findings = list(examine(config_path))
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        from rich.table import Table
        from rich.text import Text

        from drift_monitor.config.problem import printable

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("", "what", "found", "what to do"):
            table.add_column(heading, overflow="fold")
        for f in findings:
            mark = Text(f.status, style=_STYLES[f.status])
            table.add_row(mark, f.what, Text(printable(f.detail, 2000)), Text(f.advice))
        stdout().print(table)
    return ERROR if any(f.status == "fail" for f in findings) else OK


def examine(config_path: Path) -> Iterator[Finding]:
    """Every finding, in the order of the table."""
    from drift_monitor.config.file import load
    from drift_monitor.core.errors import ConfigError

    yield _python()
    yield _packages()
    yield clock(datetime.now(UTC), kernel_clock())
    try:
        config = load(config_path)
    except ConfigError as error:
        advice = (
            "run drift-monitor check-config" if config_path.exists() else "run drift-monitor init TRAINING_FILE"
        )
        yield Finding("fail", "configuration", "\n".join(error.problems), advice)
        return
    yield from _configuration(config_path)
    yield from _references(config)
    yield _state(config.state)
    yield _disk(config.state)
    yield _database(config.state)
    yield _daemon(config)
    yield _memory(config)


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    if sys.platform != "linux":
        return Finding("fail", "python", found, "run it on Linux: workers need its process controls")
    return Finding("ok", "python", found)


def _packages() -> Finding:
    versions: dict[str, str] = {}
    missing = []
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(f"{name} {version}" for name, version in versions.items())
    if missing:
        return Finding(
            "fail", "packages", f"missing: {', '.join(missing)}; {detail}", "install drift-monitor again"
        )
    if tuple(int(part) for part in versions["pandas"].split(".")[:2]) >= (3, 1):
        return Finding(
            "fail", "packages", detail, "pip install 'pandas<3.1': evidently 0.7 does not import under 3.1"
        )
    return Finding("ok", "packages", detail)


def kernel_clock() -> int:
    """What adjtimex(2) says of the clock, changing nothing; 0 to 4 when it is synchronised, -1 when not told."""
    with suppress(OSError, AttributeError):
        timex = ctypes.create_string_buffer(
            512
        )  # larger than struct timex; its first field, modes, is 0: only read
        return int(ctypes.CDLL(None, use_errno=True).adjtimex(timex))
    return -1


def clock(now: datetime, synchronised: int) -> Finding:
    """Whether the clock can be trusted.

    Args:
        now: what it says.
        synchronised: from `kernel_clock`.
    """
    found = f"{now:%Y-%m-%d %H:%M:%S}Z"
    if now < _BUILT:
        return Finding("fail", "clock", found, "set the clock: windows would be taken from the wrong time")
    if synchronised == _NOT_SYNCHRONISED:
        advice = "let chrony or systemd-timesyncd set it, unless the host of this container does"
        return Finding("warn", "clock", f"{found}, not synchronised", advice)
    return Finding("ok", "clock", found)


def _configuration(path: Path) -> Iterator[Finding]:
    from drift_monitor.cli.layers import examine_file

    problems = examine_file(path).problems
    if not problems:
        yield Finding("ok", "configuration", f"{path}: files, secrets and receivers are as it says")
    for problem in problems:
        yield Finding("warn" if problem.warning else "fail", "configuration", str(problem), "see the message")


def _references(config: Config) -> Iterator[Finding]:
    from drift_monitor.core.errors import BadReferenceError
    from drift_monitor.reference import open_reference
    from drift_monitor.reference.version import is_reference

    for name, monitor in config.monitors.items():
        if not is_reference(monitor.reference):
            continue  # training data: check-config has looked at it
        try:
            manifest = open_reference(monitor.reference).manifest
        except BadReferenceError as error:
            yield Finding(
                "fail", f"reference of {name}", str(error), "restore it, or build it again from its training file"
            )
        else:
            detail = f"{manifest.version}, {manifest.rows:,} rows, intact"
            yield Finding("ok", f"reference of {name}", detail)


def _state(state: Path) -> Finding:
    if not state.exists():
        return Finding("ok", "state folder", f"{state} is not there yet: the first run makes it")
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "fail", "state folder", f"{state} cannot be written by this user", "change its owner or `state`"
        )
    return Finding("ok", "state folder", str(state))


def _disk(state: Path) -> Finding:
    nearest = next(p for p in (state, *state.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    found = f"{free / 2**30:.1f} GiB free at {nearest}"
    status: Literal["ok", "warn", "fail"] = "fail" if free < _DISK_FAIL else "warn" if free < _DISK_WARN else "ok"
    advice = "" if status == "ok" else "free some space, or shorten `retention`"
    return Finding(status, "disk", found, advice)


def _database(state: Path) -> Finding:
    from drift_monitor.core.errors import StoreError
    from drift_monitor.service.database import inspect
    from drift_monitor.service.lock import read_lock
    from drift_monitor.service.store import FILE

    path = state / FILE
    if not path.exists():
        return Finding("ok", "database", "none yet: the first run makes it")
    try:
        if read_lock(state) is not None:  # a second connection is a risk that a look is not worth
            return Finding("ok", "database", "in use by the running daemon, which checked it when it started")
        version = inspect(path)
    except StoreError as error:
        return Finding("fail", "database", str(error), "see the message; nothing was changed")
    return Finding("ok", "database", f"{path.stat().st_size / 2**20:.1f} MiB, version {version}, intact")


def _daemon(config: Config) -> Finding:
    from drift_monitor.core.errors import StoreError
    from drift_monitor.service.lock import read_lock

    try:
        holder = read_lock(config.state)
    except StoreError as error:
        return Finding("fail", "daemon", str(error), "see the message")
    if holder is None:
        return Finding("warn", "daemon", "not running", "start it with drift-monitor run")
    found = f"pid {holder.pid} since {holder.started:%Y-%m-%d %H:%M}Z at {holder.address or 'no address'}"
    if not holder.address:
        return Finding("ok", "daemon", found)
    for page in ("/-/healthy", "/-/ready"):
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(holder.address.rstrip("/") + page, timeout=5) as answer:
                answer.read(1)
        except (OSError, ValueError) as error:
            return Finding("fail", "daemon", f"{found}: {page} says {error}", "look at its log, or start it again")
    return Finding("ok", "daemon", found)


def _memory(config: Config) -> Finding:
    import psutil

    available = int(psutil.virtual_memory().available)
    wanted = config.workers.count * config.workers.memory
    found = f"{available / 2**30:.1f} GiB available, workers may use {wanted / 2**30:.1f} GiB"
    if available < wanted:
        return Finding("warn", "memory", found, "lower workers.memory or workers.count, or stop something else")
    return Finding("ok", "memory", found)
