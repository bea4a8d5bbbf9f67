"""What the commands share: exit codes, options, and how a value on the command line is read."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from drift_monitor.config.models import Config, Monitor
    from drift_monitor.core.types import Window

OK, ERROR, DRIFT, NOT_JUDGED, BROKEN, USAGE, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 3, 4, 64, 78, 130

_F = TypeVar("_F", bound=Callable[..., Any])
_PIPE_WIDTH = 140  # columns of a table that goes into a file or pipe


def examples(*lines: str) -> str:
    """The end of a command's help: lines to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def config_option(function: _F) -> _F:
    """`--config FILE`."""
    option: Callable[[_F], _F] = click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        default=Path("drift-monitor.yaml"),
        show_default=True,
        envvar="DRIFT_MONITOR_CONFIG",
        show_envvar=True,
        help="The configuration file.",
    )
    return option(function)


def read_time(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """Callback of an option that takes a point in time: ISO 8601, UTC where it has no zone."""
    del ctx
    return None if text is None else _time(text, param)


def read_window(ctx: click.Context, param: click.Parameter, text: str | None) -> Window | None:
    """Callback of an option that takes `START/END`; the end is not part of the window."""
    del ctx
    if text is None:
        return None
    from drift_monitor.core.types import Window

    start, slash, end = text.partition("/")
    if not slash:
        raise click.BadParameter(f"{text!r} is not START/END, such as 2013-04-01/2013-04-02", param=param)
    window = Window(start=_time(start, param), end=_time(end, param))
    if window.end <= window.start:
        raise click.BadParameter(f"{text!r} ends before it starts", param=param)
    return window


def _time(text: str, param: click.Parameter) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"{text!r} is not a time such as 2013-04-01 or 2013-04-01T06:00Z"
        raise click.BadParameter(message, param=param) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def pick_monitor(config: Config, name: str | None) -> tuple[str, Monitor]:
    """The monitor that is meant; the only one when none is named.

    Raises:
        UsageError: there is none of this name, or several to choose from.
    """
    from drift_monitor.config.sentences import unknown

    if name is None and len(config.monitors) == 1:
        name = next(iter(config.monitors))
    if name is None:
        raise click.UsageError(f"name one of the monitors: {', '.join(config.monitors)}")
    if name not in config.monitors:
        raise click.UsageError(f"{name!r}: {unknown('monitor', name, list(config.monitors))}")
    return name, config.monitors[name]


def latest_window(monitor: Monitor, now: datetime) -> Window | None:
    """The newest window that is complete at a time; None for a source without event times.

    Raises:
        UsageError: the schedule never fires.
    """
    from drift_monitor.service.scheduler import due_windows

    if monitor.source.timestamp is None:
        return None
    windows = due_windows(monitor.schedule, monitor.window, None, now).windows
    if not windows:
        raise click.UsageError(f"the schedule {monitor.schedule.cron!r} never fires: give --window START/END")
    return windows[0]


def stdout() -> Console:
    """Where tables go."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no bars shows something else
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def stderr() -> Console:
    """Where progress and remarks go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr where that is a terminal; yields what is called with (steps done, steps in all)."""
    with steps_bar(text) as tell:
        yield None if tell is None else partial(tell, "")


@contextmanager
def steps_bar(text: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """The same for several tasks in turn: what is yielded is called with (what is being done, done, in all)."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda what, done, total: bar.update(
            task, description=f"{text}: {what}" if what else text, completed=done, total=total
        )
