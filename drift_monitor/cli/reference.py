"""`drift-monitor reference`: versions of the training data's summary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_monitor.cli.options import OK, config_option, examples, pick_monitor, stderr, stdout

if TYPE_CHECKING:
    from drift_monitor.reference import Manifest

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(
    epilog=examples(
        "drift-monitor reference build training.parquet references/flight-delay",
        "drift-monitor reference list references/flight-delay",
        "drift-monitor reference show references/flight-delay",
    )
)
def reference() -> None:
    """Build and inspect references.

    A reference is the immutable summary of the data that a model was trained on.
    """


@reference.command(
    epilog=examples(
        "drift-monitor reference build training.parquet references/flight-delay",
        "drift-monitor reference build training.csv references/flight-delay --monitor flight-delay --seed 1",
    )
)
@click.argument("training_file", type=click.Path(path_type=Path))
@click.argument("folder", type=_FOLDER)
@config_option
@click.option("--monitor", help="Whose columns to use; may be left out when there is only one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the row sample.")
@click.option("--sample-rows", type=click.IntRange(100), default=20_000, show_default=True)
@click.option("--split", default="", help="A note on how the rows were chosen, kept in the manifest.")
def build(
    training_file: Path,
    folder: Path,
    config_path: Path,
    monitor: str | None,
    seed: int,
    sample_rows: int,
    split: str,
) -> int:
    """Build a new version in FOLDER from TRAINING_FILE (Parquet or CSV).

    What the columns mean is read from a monitor of the configuration. The last step calibrates that monitor on
    the new version, and tells what its alarms promise.
    """
    from drift_monitor.cli.calibrate import calibrated
    from drift_monitor.config.file import load
    from drift_monitor.reference import build_reference

    config = load(config_path)
    name, chosen = pick_monitor(config, monitor)
    with stderr().status(f"reading {training_file}"):
        built = build_reference(
            training_file,
            folder,
            columns=chosen.columns,
            timestamp=chosen.source.timestamp,
            bucket=chosen.window.bucket,
            segments=chosen.segmented,
            timezone=chosen.source.timezone,
            created=datetime.now(UTC),
            seed=seed,
            sample_rows=sample_rows,
            split=split,
        )
    _show(built.manifest)
    found = calibrated(name, chosen, built, config.state)
    console = stdout()
    console.print()
    console.print(found.drawn())
    return OK


@reference.command("list", epilog=examples("drift-monitor reference list references/flight-delay --json"))
@click.argument("folder", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of manifests.")
def list_(folder: Path, *, as_json: bool) -> int:
    """List the versions in FOLDER."""
    from drift_monitor.reference import list_references

    manifests = list_references(folder)
    if as_json:
        click.echo(json.dumps([m.model_dump(mode="json", by_alias=True) for m in manifests], indent=2))
        return OK
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("version", "rows", "created", "sha256"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for m in manifests:
        table.add_row(m.version, f"{m.rows:,}", f"{m.created:%Y-%m-%d %H:%M}Z", m.sha256[:16])
    stdout().print(table)
    return OK


@reference.command(epilog=examples("drift-monitor reference show references/flight-delay --version v1"))
@click.argument("folder", type=_FOLDER)
@click.option("--version", help="Default: the current one.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def show(folder: Path, version: str | None, *, as_json: bool) -> int:
    """Check a version in FOLDER for damage and show what it is."""
    from drift_monitor.reference import open_reference

    manifest = open_reference(folder, version).manifest
    if as_json:
        click.echo(manifest.model_dump_json(indent=2, by_alias=True).encode())
    else:
        _show(manifest)
    return OK


def _show(manifest: Manifest) -> None:
    from rich.table import Table
    from rich.text import Text

    from drift_monitor.config.problem import printable
    from drift_monitor.core.policy import format_duration

    columns = manifest.columns.model_dump(exclude_defaults=True)
    columns = {"timestamp": manifest.timestamp, **{k: v for k, v in columns.items() if k != "kinds"}}
    facts = {
        "version": manifest.version,
        "sha256": manifest.sha256,
        "created": f"{manifest.created:%Y-%m-%d %H:%M}Z",
        "built from": f"{_in_words(manifest.training.files)}, {manifest.training.bytes:,} bytes",
        "rows": f"{manifest.rows:,}, and {manifest.invalid_rows:,} left out without a readable time",
        "from, to": f"{manifest.start:%Y-%m-%d %H:%M}Z, {manifest.end:%Y-%m-%d %H:%M}Z"
        if manifest.start and manifest.end
        else "no event times",
        **{name: _in_words(value) for name, value in columns.items() if value},
        **{
            f"segments of {each.column}": ", ".join(f"{value} ({n:,} rows)" for value, n in each.rows.items())
            for each in manifest.segments
        },
        "time zone": f"{manifest.timezone}, where a time has none of its own",
        "bucket": format_duration(manifest.bucket_length),
        "split": manifest.split or "not told",
        "sample": f"{manifest.sample_rows:,} rows, seed {manifest.seed}",
        "packages": ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
        "on disk": f"{sum(file.bytes for file in manifest.files.values()):,} bytes, all hashes right",
    }
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, text in facts.items():
        table.add_row(Text(printable(name, 60)), Text(printable(text, 300)))
    features = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("feature", "kind", "type", ""):
        features.add_column(heading, overflow="fold")
    for feature in manifest.features:
        kind = feature.kind if feature.role == "feature" else f"{feature.kind} {feature.role}"
        cells = (feature.name, kind, feature.type, feature.warning or "")
        features.add_row(*(Text(printable(cell, 300)) for cell in cells))
    console = stdout()
    console.print(table, Text(), features, *(Text(printable(line, 300)) for line in manifest.warnings))


def _in_words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
