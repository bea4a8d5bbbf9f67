"""`drift-monitor backfill`: a monitor's history from its log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from drift_monitor.cli.options import OK, config_option, examples, pick_monitor, read_time, steps_bar

if TYPE_CHECKING:
    from drift_monitor.config.models import Config, Monitor
    from drift_monitor.service.backfill import Backfill
    from drift_monitor.service.store import Store

_SILENT: Final = 3
"""Windows without data at the end, from which on a log may have ended."""
_EXIT_CODES = """\b
Exit codes:
  0    every window has a result
  1    error: the log cannot be read, or a daemon has the state folder
  64   wrong usage, 78 bad configuration
  130  interrupted: what was filled is kept, and a second call goes on

"""


@click.command(
    epilog=_EXIT_CODES
    + examples(
        "drift-monitor backfill --dry-run",
        "drift-monitor backfill",
        "drift-monitor backfill flight-delay --from 2013-05-01 --to 2013-06-01",
    )
)
@config_option
@click.argument("monitors", nargs=-1)
@click.option("--monitor", "more", metavar="NAME", multiple=True, help="The same as a MONITOR that is named.")
@click.option(
    "--from",
    "start",
    metavar="DATE",
    callback=read_time,
    help="Windows begin here or later; UTC where no zone is given. Default: the oldest event of the source that "
    "is not older than the reference's rows.",
)
@click.option("--to", "end", metavar="DATE", callback=read_time, help="Windows end here or earlier. Default: now.")
@click.option("--dry-run", is_flag=True, help="Say how many windows and how much data; judge nothing.")
def backfill(
    config_path: Path,
    monitors: tuple[str, ...],
    more: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    *,
    dry_run: bool,
) -> int:
    """Fill the history of monitors from the logs that their sources name.

    Judges every window of MONITORS (of all that are enabled, where none is named) that is past and has no result
    yet, in order of time, as `run` does, and stores each by itself: interrupt it, and call it again to go on.
    Nobody is told of the past and no retraining is begun; an episode that is still open is told when the daemon's
    next window fails too. Windows that were judged stay as they are. The daemon must not be running on the same
    state folder.
    """
    from drift_monitor.config.file import load

    now = datetime.now(UTC)
    if start is not None and start >= (until := end or now):
        raise click.UsageError(f"--from {start:%Y-%m-%dT%H:%MZ} is not before {until:%Y-%m-%dT%H:%MZ}")
    config = load(config_path)
    chosen = _chosen(config, list(dict.fromkeys((*monitors, *more))))

    from drift_monitor.service.store import Store

    with closing(Store.open(config.state)) as store:
        for name, monitor in chosen:
            until = min(end or now, now - monitor.window.delay)
            if start is not None and start >= until:
                raise click.UsageError(f"no window of {name} that begins at {start:%Y-%m-%dT%H:%MZ} is complete")
            with _working(name, store, config.state, monitor, (start, until)) as work:
                said = _planned(name, work) if dry_run else _filled(name, work, store)
            click.echo(said)
    return OK


def _chosen(config: Config, names: Sequence[str]) -> list[tuple[str, Monitor]]:
    if not names:
        found = [
            (name, monitor)
            for name, monitor in config.monitors.items()
            if monitor.enabled and monitor.source.timestamp is not None
        ]
        if not found:
            raise click.UsageError("no monitor is enabled whose source has a timestamp: there is no past to fill")
        return found
    found = [pick_monitor(config, name) for name in names]
    for name, monitor in found:
        if monitor.source.timestamp is None:
            raise click.UsageError(f"monitors.{name}.source has no timestamp, so there is no past to fill")
    return found


@contextmanager
def _working(
    name: str, store: Store, state: Path, monitor: Monitor, span: tuple[datetime | None, datetime]
) -> Iterator[Backfill]:
    from drift_monitor.service.backfill import Backfill

    judged = store.judged_ends(name)
    try:
        with redirect_stdout(sys.stderr), steps_bar(name) as progress:  # stdout is for the result alone
            yield Backfill(name, monitor, state, judged, span, progress)
    except KeyboardInterrupt:
        new = len(store.judged_ends(name)) - len(judged)
        click.echo(f"{name}: interrupted after {new:,} windows, which are kept: call again to go on", err=True)
        raise


def _planned(name: str, work: Backfill) -> str:
    if not work.windows:
        return f"{name}: nothing to fill: all {work.known:,} windows have a result"
    log = work.log
    rows = "rows that are not counted before they are read" if log.rows is None else f"{log.rows:,} rows"
    files = "" if log.files is None or log.bytes is None else f" in {log.files:,} files of {log.bytes:,} bytes"
    return (
        f"{name}: {len(work.windows):,} windows to fill, {work.windows[0].start:%Y-%m-%dT%H:%MZ} to "
        f"{work.windows[-1].end:%Y-%m-%dT%H:%MZ}, {work.known:,} have a result; at most {rows}{files}"
    )


def _filled(name: str, work: Backfill, store: Store) -> str:
    filled = work.fill(store)
    verdicts = "".join(f", {count:,} {verdict}" for verdict, count in filled.most_common())
    said = f"{name}: {filled.total():,} windows filled{verdicts}; {work.known:,} had a result"
    if len(work.silent) < _SILENT:
        return said
    return (
        f"{said}\n{name}: the last {len(work.silent):,} windows have no data: where a log has ended, "
        f"`--to {work.silent[0].start:%Y-%m-%dT%H:%MZ}` fills until its end"
    )
