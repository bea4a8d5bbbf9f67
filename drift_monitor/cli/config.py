"""`drift-monitor init`, `check-config` and `schema`: everything about the configuration file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from drift_monitor.cli.options import BAD_CONFIG, OK, config_option, examples, stdout


@click.command(epilog=examples("drift-monitor init training.parquet", "drift-monitor init training.csv -o -"))
@click.argument("training_file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("drift-monitor.yaml"),
    show_default=True,
    help="Where to write it; - for the terminal.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(training_file: Path, output: Path, *, force: bool) -> int:
    """Write a configuration inferred from a training file.

    TRAINING_FILE is Parquet, CSV or JSONL. What each column means is guessed from names and values, and
    every guess has a comment that says why.
    """
    from drift_monitor.config.file import parse
    from drift_monitor.config.infer import infer, write_config

    to_terminal = str(output) == "-"
    target = Path("drift-monitor.yaml") if to_terminal else output
    text = write_config(infer(training_file), training_file, target)
    parse(text, target)  # what we write, we can read
    if to_terminal:
        click.echo(text, nl=False)
        return OK
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{output} exists already: give --force to replace it") from None
    click.echo(f"{output} is written. Read it once, set source.path, then:\n")
    click.echo(f"  drift-monitor check-config --explain --config {output}")
    click.echo(f"  drift-monitor check --config {output}")
    return OK


@click.command("schema", epilog=examples("drift-monitor schema > drift-monitor.schema.json"))
def schema() -> int:
    """Print the JSON Schema of the configuration file."""
    from drift_monitor.config.describe import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
    return OK


@click.command(
    "check-config",
    epilog=examples(
        "drift-monitor check-config",
        "drift-monitor check-config --explain",
        "drift-monitor check-config --offline --config deploy/drift-monitor.yaml",
        "drift-monitor check-config --json | jq '.problems[].message'",
    ),
)
@config_option
@click.option("--offline", is_flag=True, help="Check the text alone: no data, no secrets, no receivers.")
@click.option("--explain", is_flag=True, help="Show everything that is inferred and promised.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check_config(config_path: Path, *, offline: bool, explain: bool, as_json: bool) -> int:
    """Check the configuration and print every problem.

    Syntax, then meaning, then the environment: files, columns, secrets, the state folder, receivers.
    A warning does not make the configuration wrong. Exits with 78 on an error. With --explain monitors
    are calibrated that are not yet, which may take a while.
    """
    from datetime import UTC, datetime

    from drift_monitor.cli.layers import examine_file

    found = examine_file(config_path, offline=offline)
    errors = [p for p in found.problems if not p.warning]
    explained = None
    if explain and found.config is not None and not errors:
        from drift_monitor.cli.explain import explain_monitor

        now, state = datetime.now(UTC), found.config.state
        explained = {n: explain_monitor(n, m, now, state) for n, m in found.config.monitors.items()}
    if as_json:
        from dataclasses import asdict

        answer = {
            "ok": not errors,
            "problems": [asdict(p) for p in found.problems],
            **({"monitors": {n: e.data() for n, e in explained.items()}} if explained else {}),
        }
        click.echo(json.dumps(answer, indent=2))
        return BAD_CONFIG if errors else OK
    for problem in found.problems:
        click.echo(("warning: " if problem.warning else "") + str(problem), err=True)
    if errors:
        return BAD_CONFIG
    checked = "text" if offline else "text, files and receivers"
    click.echo(f"{config_path}: fine ({checked}; {_count(len(found.problems), 'warning')})")
    for each in (explained or {}).values():
        stdout().print(each.drawn())
    return OK


def _count(n: int, noun: str) -> str:
    return f"{n or 'no'} {noun}{'' if n == 1 else 's'}"
