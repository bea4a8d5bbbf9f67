"""`drift-monitor run`: the daemon."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from drift_monitor.cli.options import config_option, examples, read_time

_SPEED = 3600.0  # an hour a second


@click.command(
    epilog=examples(
        "drift-monitor run --config /etc/drift-monitor.yaml",
        "drift-monitor run --log-format json --log-level warning",
        "drift-monitor run --replay-from 2013-04-01 --replay-until 2013-05-01 --replay-speed 86400",
    )
)
@config_option
@click.option("--log-format", type=click.Choice(["logfmt", "json"]), default="logfmt", show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option("--replay-from", callback=read_time, metavar="TIME", help="Begin at this time in the past.")
@click.option("--replay-until", callback=read_time, metavar="TIME", help="Where time stops; needs --replay-from.")
@click.option(
    "--replay-speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Seconds of the past a real second; needs --replay-from. Default: 3600.",
)
def run(
    config_path: Path,
    log_format: Literal["logfmt", "json"],
    log_level: str,
    replay_from: datetime | None,
    replay_until: datetime | None,
    replay_speed: float | None,
) -> int:
    """Run the daemon: watch every monitor until stopped.

    SIGTERM finishes what is in progress and ends, SIGHUP reads the configuration again. Needs the state
    folder for itself. The replay options walk through past data in accelerated time.
    """
    if replay_from is None and (replay_until is not None or replay_speed is not None):
        raise click.UsageError("--replay-until and --replay-speed need --replay-from")
    if replay_from is not None and replay_until is None:
        raise click.UsageError("--replay-from needs --replay-until")
    if replay_from is not None and replay_until is not None and replay_until <= replay_from:
        raise click.UsageError("--replay-until must be after --replay-from")
    import logging

    from drift_monitor.service import logs
    from drift_monitor.service.app import App
    from drift_monitor.service.clock import ReplayClock

    logs.set_up(log_format, logging.getLevelNamesMapping()[log_level.upper()])
    clock = None
    if replay_from is not None and replay_until is not None:
        clock = ReplayClock(replay_from, replay_speed or _SPEED, replay_until)
    return App(config_path, clock).run()
