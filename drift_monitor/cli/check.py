"""`drift-monitor check`: one evaluation, without a daemon."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_monitor.cli.options import (
    BROKEN,
    DRIFT,
    NOT_JUDGED,
    OK,
    config_option,
    examples,
    latest_window,
    pick_monitor,
    progress_bar,
    read_time,
    read_window,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from drift_monitor.core.types import CheckResult, Window


_EXIT_CODES = """\b
Exit codes:
  0   judged
  1   error
  2   drift, 4 broken data (with --detailed-exitcode; else 0)
  3   could not judge: no or too little data, or the source is down
  64  wrong usage, 78 bad configuration

"""


@click.command(
    epilog=_EXIT_CODES
    + examples(
        "drift-monitor check",
        "drift-monitor check flight-delay --window 2013-04-01/2013-04-02",
        "drift-monitor check flight-delay --at 2013-04-02T06:00Z --json | jq .verdict",
        "drift-monitor check --detailed-exitcode || echo 'look at it'",
    )
)
@click.argument("monitor", required=False)
@config_option
@click.option(
    "--window",
    metavar="START/END",
    callback=read_window,
    help="Judge this stretch of event time; UTC where no zone is given.",
)
@click.option(
    "--at",
    metavar="TIME",
    callback=read_time,
    help="Judge the window that was the latest complete one at this time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object (see docs/json.md).")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 for drift and 4 for broken data.")
@click.option("-v", "--verbose", is_flag=True, help="Show every feature and every expectation.")
def check(
    monitor: str | None,
    config_path: Path,
    window: Window | None,
    at: datetime | None,
    *,
    as_json: bool,
    detailed_exitcode: bool,
    verbose: bool,
) -> int:
    """Judge one window now, without a daemon.

    Without --window or --at it is the latest window that is complete. MONITOR may be left out when the
    configuration has only one. The result is not stored and nobody is told; a reference that is needed
    first is built below the state folder.
    """
    if window is not None and at is not None:
        raise click.UsageError("give --window or --at, not both")
    from drift_monitor.config.file import load

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    if chosen.source.timestamp is None:
        if window is not None or at is not None:
            raise click.UsageError(
                f"monitors.{name}.source has no timestamp, so there are no windows to choose from"
            )
    elif window is None:
        window = latest_window(chosen, at or datetime.now(UTC))

    from drift_monitor.service.evaluate import CheckRequest, evaluate

    request = CheckRequest(name=name, monitor=chosen, state=config.state, window=window)
    # stdout is for the result alone
    with redirect_stdout(sys.stderr), progress_bar(f"reading {name}") as progress:
        result = evaluate(request, progress=progress)
    if as_json:
        click.echo(result.model_dump_json(indent=2).encode())  # JSON is UTF-8, whatever the terminal is
    else:
        from drift_monitor.cli.draw import draw_check

        stdout().print(draw_check(result, everything=verbose))
        if window is not None and result.failure is None and not result.rows:
            stderr().print("--window START/END or --at TIME judge another stretch of time", style="dim")
    return exit_code(result, detailed=detailed_exitcode)


def exit_code(result: CheckResult, *, detailed: bool) -> int:
    """What a verdict means to a script."""
    from drift_monitor.core.types import Outcome

    if result.verdict in (Outcome.NO_DATA, Outcome.CANNOT_JUDGE):
        return NOT_JUDGED
    return {Outcome.DRIFT: DRIFT, Outcome.BROKEN: BROKEN}.get(result.verdict, OK) if detailed else OK
