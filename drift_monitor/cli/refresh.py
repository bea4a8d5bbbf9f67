"""`drift-monitor refresh`: a new version of the training set."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_monitor.cli.options import (
    OK,
    config_option,
    examples,
    latest_window,
    pick_monitor,
    progress_bar,
    read_time,
    stdout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from drift_monitor.actions.refresh import RefreshResult
    from drift_monitor.config.loop import Refresh
    from drift_monitor.config.models import Monitor
    from drift_monitor.core.types import Window
    from drift_monitor.service.refresh_manifest import Counts, LiveWindow, RefreshManifest

_WINDOWS = 10  # left out, that are listed
_GROUPS = 10
_REASONS = {
    "no_id": "have no id",
    "no_time": "have no readable time",
    "no_label": "have no label",
    "duplicate": "are there again, later",
    "replaced": "are replaced by live ones",
    "before_span": "are older than the span",
    "over_cap": "are over the cap",
}


@click.command(
    epilog=examples(
        "drift-monitor refresh",
        "drift-monitor refresh flight-delay --until 2013-05-01 --live 28d",
        "drift-monitor refresh flight-delay --policy sliding --span 90d --max-rows 1000000",
        "drift-monitor refresh flight-delay --policy stratified --by carrier --by month --max-rows 200000",
        "drift-monitor refresh --rebuild state/training/flight-delay/2013-04-30-3f9c21aa07be/manifest.json",
    )
)
@click.argument("monitor", required=False)
@config_option
@click.option(
    "--until",
    metavar="TIME",
    callback=read_time,
    help="End of the live stretch.  [default: that of the latest complete window]",
)
@click.option("--live", metavar="DURATION", help="Length of the live stretch, such as 28d.")
@click.option(
    "--policy", type=click.Choice(["append", "sliding", "stratified"]), help="How the set is put together."
)
@click.option("--span", metavar="DURATION", help="What a sliding set covers, such as 90d.")
@click.option("--max-rows", type=click.IntRange(1), help="Rows of the new set.")
@click.option("--by", metavar="COLUMN", multiple=True, help="Column that makes groups; may be repeated.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of versions.  [default: training/MONITOR in the state folder]",
)
@click.option(
    "--rebuild",
    metavar="MANIFEST",
    type=click.Path(path_type=Path),
    help="Make this version again and make sure that its bytes are the same.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, with the folder as `path`.")
def refresh(
    monitor: str | None,
    config_path: Path,
    until: datetime | None,
    live: str | None,
    policy: str | None,
    span: str | None,
    max_rows: int | None,
    by: tuple[str, ...],
    output: Path | None,
    rebuild: Path | None,
    *,
    as_json: bool,
) -> int:
    """Make a new version of the training set: the old rows and labelled live ones.

    What is not given comes from MONITOR's `refresh` section. Live windows whose data is broken are left out. The
    same inputs and settings give the same bytes; docs/refresh.md tells how.
    """
    changes = {"live": live, "policy": policy, "span": span, "max_rows": max_rows, "by": by or None}
    given = {name: value for name, value in changes.items() if value is not None}
    if rebuild is not None:
        if monitor is not None or until is not None or given:
            raise click.UsageError("--rebuild takes everything but --output from the manifest")
        result = _rebuilt(rebuild, output)
    else:
        result = _refreshed(config_path, monitor, until, given, output)
    from drift_monitor.service.refresh_manifest import read_manifest

    manifest = read_manifest(result.path)
    if as_json:
        content = {"path": str(result.path), **manifest.model_dump(mode="json")}
        click.echo(json.dumps(content, indent=2).encode())
        return OK
    if rebuild is not None:
        click.echo("the same bytes as before")
    else:
        stdout().print(_drawn(manifest))
    click.echo(result.path)
    return OK


def _refreshed(
    config_path: Path, monitor: str | None, until: datetime | None, given: dict[str, Any], output: Path | None
) -> RefreshResult:
    from drift_monitor.actions.refresh import RefreshRequest
    from drift_monitor.config.file import load
    from drift_monitor.service.refreshing import refresh as make

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    request = RefreshRequest(
        name=name,
        monitor=chosen.model_copy(update={"refresh": _settings(chosen.refresh, given)}),
        state=config.state,
        window=_window(name, chosen, until),
        output=(output or config.state / "training" / name).absolute(),
    )
    # stdout is for the result alone
    with redirect_stdout(sys.stderr), progress_bar(f"refreshing the training set of {name}") as progress:
        return make(request, progress=progress)


def _rebuilt(manifest: Path, output: Path | None) -> RefreshResult:
    from drift_monitor.service.refreshing import rebuild

    with redirect_stdout(sys.stderr), progress_bar("making the training set again") as progress:
        return rebuild(manifest, None if output is None else output.absolute(), progress=progress)


def _settings(configured: Refresh, given: dict[str, Any]) -> Refresh:
    from pydantic import ValidationError

    from drift_monitor.config.loop import Refresh

    settings = configured.model_dump(mode="json")
    if given.get("policy", settings["policy"]) != "sliding":
        settings["span"] = None  # of the configured policy
    try:
        return Refresh.model_validate_json(json.dumps(settings | given))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise click.UsageError(f"{where}{first['msg'].removeprefix('Value error, ')}") from None


def _window(name: str, monitor: Monitor, until: datetime | None) -> Window | None:
    from drift_monitor.core.types import Window

    if monitor.source.timestamp is None:
        if until is not None:
            raise click.UsageError(f"monitors.{name}.source has no timestamp, so all of it is taken in")
        return None
    if until is None:
        return latest_window(monitor, datetime.now(UTC))
    return Window(start=until - monitor.window.length, end=until)


def _drawn(manifest: RefreshManifest) -> RenderableType:
    """The rows by side, the parts, and what was left out."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from drift_monitor.config.problem import printable

    sides = Table(box=None, pad_edge=False, header_style="dim")
    for column, right in (("", False), ("read", True), ("taken", True), ("left out", False)):
        sides.add_column(column, justify="right" if right else "left")
    for name, counts in (("training", manifest.training), ("live", manifest.live)):
        sides.add_row(name, f"{counts.read:,}", f"{counts.taken:,}", _reasons(counts))
    parts = Table(box=None, pad_edge=False, header_style="dim")
    for column, right in (("part", False), ("rows", True), ("share", True), ("file", False)):
        parts.add_column(column, justify="right" if right else "left")
    total = sum(part.rows for part in manifest.parts)
    for part in manifest.parts:
        parts.add_row(part.name, f"{part.rows:,}", f"{part.rows / max(total, 1):.1%}", part.file)
    stretch = "all of the source" if manifest.stretch is None else str(manifest.stretch)
    policy = manifest.settings.policy
    lines: list[RenderableType] = [
        Text.assemble((manifest.monitor, "bold"), f"  {policy}, live rows of {stretch}"),
        Text(f"{manifest.labelled:.1%} of the live rows have a label"),
        Text(),
        sides,
        Text(),
        parts,
    ]
    if manifest.groups:
        smallest = sorted(manifest.groups, key=lambda group: group.taken)[:_GROUPS]
        lines += [Text(), Text(f"{len(manifest.groups):,} groups, the smallest first:", style="dim")]
        for group in smallest:
            values = ", ".join("-" if value is None else printable(value, 40) for value in group.values)
            lines.append(Text(f"  {values}: {group.taken:,} of {group.rows:,}"))
    if manifest.dropped_columns:
        names = ", ".join(printable(name, 40) for name in manifest.dropped_columns[:20])
        lines += [Text(), Text(f"not in the training file, so not taken over: {names}")]
    return Group(*lines, *_left_out(manifest.windows))


def _reasons(counts: Counts) -> str:
    return ", ".join(f"{rows:,} {_REASONS[reason]}" for reason, rows in counts.dropped.items())


def _left_out(windows: Sequence[LiveWindow]) -> list[RenderableType]:
    from rich.text import Text

    from drift_monitor.config.problem import printable

    out = [window for window in windows if not window.taken]
    if not out:
        return []
    lines: list[RenderableType] = [Text(), Text(f"{len(out)} of {len(windows)} live windows are left out:")]
    lines += [Text(f"  {printable(str(window), 300)}") for window in out[:_WINDOWS]]
    if len(out) > _WINDOWS:
        lines.append(Text(f"  and {len(out) - _WINDOWS} more (in the manifest)", style="dim"))
    return lines
