"""`drift-monitor calibrate`: from a reference to thresholds, and what they promise."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_monitor.cli.options import ERROR, OK, config_option, examples, pick_monitor, progress_bar, stdout

if TYPE_CHECKING:
    from drift_monitor.cli.promised import Calibrated
    from drift_monitor.config.models import Monitor
    from drift_monitor.reference import Reference


@click.command(
    epilog=examples(
        "drift-monitor calibrate",
        "drift-monitor calibrate flight-delay",
        "drift-monitor calibrate --json | jq '.[].lanes.drift.promise'",
    )
)
@click.argument("monitor", required=False)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, by monitor.")
def calibrate(monitor: str | None, config_path: Path, *, as_json: bool) -> int:
    """Make the calibration of a monitor and tell what it promises.

    A calibration replays the reference as if it were live, and sets the thresholds so that no more false
    alerts open than the configuration allows. It is kept beside the reference and made once for the same
    settings; a check that finds none makes it too. Without MONITOR all monitors are calibrated. Exits with 1
    when a reference cannot be used.
    """
    from drift_monitor.config.file import load
    from drift_monitor.core.errors import DriftMonitorError
    from drift_monitor.service.references import reference_of

    config = load(config_path)
    chosen = dict([pick_monitor(config, monitor)]) if monitor is not None else config.monitors
    found: dict[str, Calibrated] = {}
    failed: dict[str, str] = {}
    for name, each in chosen.items():
        try:
            with progress_bar(f"reading {name}") as progress:
                reference = reference_of(
                    name, each, config.state, now=lambda: datetime.now(UTC), progress=progress
                )
            found[name] = calibrated(name, each, reference, config.state)
        except (DriftMonitorError, OSError) as error:
            failed[name] = str(error)
    if as_json:
        answer = {name: each.data() for name, each in found.items()}
        answer |= {name: {"calibrated": False, "error": why} for name, why in failed.items()}
        click.echo(json.dumps(answer, indent=2))
    else:
        console = stdout()
        for i, each_found in enumerate(found.values()):
            if i:
                console.print()
            console.print(each_found.drawn())
    for name, why in failed.items():
        click.echo(f"drift-monitor: {name}: {why}", err=True)
    return ERROR if failed else OK


def calibrated(name: str, monitor: Monitor, reference: Reference, state: Path) -> Calibrated:
    """The calibration of a monitor on a reference, made now with a bar on stderr if there is none.

    Raises:
        BadReferenceError: the reference is damaged, or has none of the monitor's features.
    """
    from drift_monitor.cli.promised import Calibrated, promised
    from drift_monitor.service.calibrations import known_of
    from drift_monitor.service.references import watched_specs

    steps: list[int] = []
    with progress_bar(f"calibrating {name}") as bar:

        def progress(done: int, total: int) -> None:
            steps.append(done)
            if bar is not None:
                bar(done, total)

        known = known_of(name, monitor, reference, state, watched_specs(monitor, reference), progress=progress)
    return Calibrated(name, reference, known, promised(monitor, reference, known), made=bool(steps))
