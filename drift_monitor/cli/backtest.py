"""`drift-monitor backtest`: what a monitor would have said of the past."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path

import click

from drift_monitor.cli.options import OK, examples, pick_monitor, read_time, stdout, steps_bar

_EXIT_CODES = """\b
Exit codes:
  0   done, whatever was found
  1   error: the log cannot be read, or has no whole window
  64  wrong usage, 78 bad configuration

"""


@click.command(
    epilog=_EXIT_CODES
    + examples(
        "drift-monitor backtest drift-monitor.yaml",
        "drift-monitor backtest drift-monitor.yaml flight-delay --from 2013-05-01 --to 2013-06-01",
        "drift-monitor backtest drift-monitor.yaml --json | jq '.alert_days, .rivals.psi.alert_days'",
    )
)
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.argument("monitor", required=False)
@click.option(
    "--from",
    "start",
    metavar="DATE",
    callback=read_time,
    help="Windows begin here or later; UTC where no zone is given. Default: the start of the log.",
)
@click.option(
    "--to",
    "end",
    metavar="DATE",
    callback=read_time,
    help="Windows end here or earlier. Default: its end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-rivals", is_flag=True, help="Leave out the comparison with the usual alarm rules.")
def backtest(
    config_path: Path,
    monitor: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    as_json: bool,
    no_rivals: bool,
) -> int:
    """Replay the past: how many alerts there would have been, when and why.

    Judges every window that MONITOR's schedule would have had in the log that its source names, by the rules
    that `run` follows, and says beside it what the usual alarm rules would have done, once a day. MONITOR may be
    left out when the configuration has only one. Nothing is stored as a run, and nobody is told.
    """
    if start is not None and end is not None and end <= start:
        raise click.UsageError(f"--to {end:%Y-%m-%dT%H:%MZ} is not after --from {start:%Y-%m-%dT%H:%MZ}")
    from drift_monitor.config.file import load

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    if chosen.source.timestamp is None:
        raise click.UsageError(f"monitors.{name}.source has no timestamp, so there is no past to replay")

    from drift_monitor.service.backtest import backtest as replay

    with redirect_stdout(sys.stderr), steps_bar(name) as progress:  # stdout is for the result alone
        found = replay(name, chosen, config.state, start, end, rivals=not no_rivals, progress=progress)
    if as_json:
        click.echo(found.model_dump_json(indent=2, by_alias=True).encode())
    else:
        from drift_monitor.cli.draw_backtest import draw_backtest

        stdout().print(draw_backtest(found))
    return OK
