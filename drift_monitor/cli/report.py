"""`drift-monitor report`: the Evidently report of one window."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_monitor.cli.options import (
    OK,
    config_option,
    examples,
    latest_window,
    pick_monitor,
    read_window,
    stderr,
)

if TYPE_CHECKING:
    from drift_monitor.core.types import Window


@click.command(
    epilog=examples(
        "drift-monitor report",
        "drift-monitor report flight-delay --window 2013-04-01/2013-04-02 -o april-1.html",
    )
)
@click.argument("monitor", required=False)
@config_option
@click.option("--window", metavar="START/END", callback=read_window, help="Default: the latest complete window.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("drift-report.html"),
    show_default=True,
    help="The HTML file to write.",
)
def report(monitor: str | None, config_path: Path, window: Window | None, output: Path) -> int:
    """Write an Evidently report of one window.

    Shows the rows of MONITOR's window against its reference. The page needs nothing else: it can be mailed
    or opened from disk.
    """
    from drift_monitor.actions.report import ReportRequest, run_report
    from drift_monitor.config.file import load

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    if chosen.source.timestamp is None and window is not None:
        raise click.UsageError(f"monitors.{name}.source has no timestamp, so it has only one window: all of it")
    request = ReportRequest(
        name=name,
        monitor=chosen,
        state=config.state,
        window=window or latest_window(chosen, datetime.now(UTC)),
        output=output.absolute(),
    )
    with stderr().status(f"writing {output}"):
        result = run_report(request, chosen.report.deadline)
    for column, why in result.omitted.items():
        click.echo(f"left out {column!r}: {why}", err=True)
    click.echo(result.path)
    return OK
