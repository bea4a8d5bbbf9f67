"""`drift-monitor reweight`: weights for the training rows."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
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
    progress_bar,
    read_window,
    stdout,
)

if TYPE_CHECKING:
    from drift_monitor.config.models import Monitor
    from drift_monitor.core.types import Window

NOT_ADOPTED, REFUSED = 2, 3
_EXIT_CODES = f"""\b
Exit codes:
  {OK}   the weights help: use them
  1   error
  {NOT_ADOPTED}   not adopted: nothing speaks against them, but the gate found no gain
  {REFUSED}   refused: something speaks against any use of them
  64  wrong usage, 78 bad configuration

"""


@click.command(
    epilog=_EXIT_CODES
    + examples(
        "drift-monitor reweight",
        "drift-monitor reweight flight-delay --window 2013-04-01/2013-04-08 --output weights",
        "drift-monitor reweight flight-delay --method raking --columns carrier,month",
        "drift-monitor reweight --learner sklearn.linear_model.LogisticRegression",
        "drift-monitor reweight --json | jq '.adopt, .why'",
    )
)
@click.argument("monitor", required=False)
@config_option
@click.option(
    "--window",
    metavar="START/END",
    callback=read_window,
    help="Weigh towards this stretch of event time.  [default: the latest complete window]",
)
@click.option("--method", type=click.Choice(["auto", "classifier", "raking"]), help="How the weights are made.")
@click.option("--columns", metavar="A,B", help="To rake.  [default: those that drifted]")
@click.option(
    "--learner",
    metavar="PATH",
    help="Import path of the scikit-learn estimator that you train, on which the gate decides.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to.  [default: weights/MONITOR in the state folder]",
)
@click.option("--seed", type=click.IntRange(0), help="Of samples, folds and models.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, with the folder as `path`.")
def reweight(
    monitor: str | None,
    config_path: Path,
    window: Window | None,
    method: str | None,
    columns: str | None,
    learner: str | None,
    output: Path | None,
    seed: int | None,
    *,
    as_json: bool,
) -> int:
    """Weigh the training rows so that they look like the live ones, and find out whether that helps.

    What is not given comes from MONITOR's `reweight` section. Writes weights.parquet (row_id, weight; in the
    order of the training rows), a manifest, a picture of every feature and three lines that show how to use the
    weights. The same inputs and seed give the same bytes; docs/reweighting.md tells how to read it all.
    """
    from drift_monitor.config.file import load

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    if chosen.source.timestamp is None and window is not None:
        raise click.UsageError(f"monitors.{name}.source has no timestamp, so it has only one window: all of it")
    names = None if columns is None else tuple(part.strip() for part in columns.split(",") if part.strip())
    changes = {"method": method, "columns": names, "learner": learner, "seed": seed}
    chosen = _changed(chosen, {key: value for key, value in changes.items() if value is not None})

    from drift_monitor.actions.reweight import ReweightRequest
    from drift_monitor.service.reweighting import perform_reweight

    request = ReweightRequest(
        name=name,
        monitor=chosen,
        state=config.state,
        window=window or latest_window(chosen, datetime.now(UTC)),
        output=(output or config.state / "weights" / name).absolute(),
    )
    # stdout is for the result alone
    with redirect_stdout(sys.stderr), progress_bar(f"weighting {name}") as progress:
        result = perform_reweight(request, progress)

    from drift_monitor.cli.draw_weights import as_text, draw_weights
    from drift_monitor.service.reweighting import read_weights_manifest

    manifest = read_weights_manifest(request.output)
    if as_json:
        click.echo(as_text(manifest, request.output).encode())
    else:
        stdout().print(draw_weights(manifest, request.output))
    return OK if result.adopt else REFUSED if result.refused else NOT_ADOPTED


def _changed(monitor: Monitor, changes: dict[str, object]) -> Monitor:
    """The monitor with some settings of its `reweight` section replaced.

    Raises:
        UsageError: a value does not fit the setting.
    """
    from pydantic import ValidationError

    from drift_monitor.config.loop import Reweight

    try:
        section = Reweight.model_validate({**monitor.reweight.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0])
        raise click.UsageError(f"--{setting} {changes.get(setting)!r}: {first['msg']}") from None
    return monitor.model_copy(update={"reweight": section})
