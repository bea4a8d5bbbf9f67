"""Weights drawn for people: the decision, what the weights do, each feature before and after, how to use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from drift_monitor.config.problem import printable
from drift_monitor.core.policy import format_duration

if TYPE_CHECKING:
    from drift_monitor.actions.weights_manifest import Diagnostics, Gate, Inputs, Raked, WeightsManifest

_FEATURES: Final = 20
_FACTORS: Final = 40
_NAME: Final = 40


def as_text(manifest: WeightsManifest, folder: Path) -> str:
    """The manifest as one JSON object, with its folder."""
    return json.dumps({"path": str(folder), **manifest.model_dump(mode="json")}, indent=2)


def draw_weights(manifest: WeightsManifest, folder: Path) -> RenderableType:
    """The whole of it.

    Args:
        manifest: of the weights.
        folder: that they are in.
    """
    parts: list[RenderableType] = [_decision(manifest)]
    if manifest.inputs is not None and manifest.diagnostics is not None:
        parts += [_inputs(manifest, manifest.inputs), Text(), _diagnostics(manifest, manifest.diagnostics)]
        parts += [Text(), _features(manifest)]
    if manifest.raked is not None:
        parts += [Text(), *_raked(manifest.raked)]
    if manifest.gate is not None and manifest.gate.trials:
        parts += [Text(), _gate(manifest.gate)]
    if manifest.again is not None:
        parts += [
            Text(),
            Text("The verdict again, on samples, with thresholds for independent rows", style="bold"),
        ]
        parts += [Text(f"  without weights  {printable(manifest.again.before, 300)}")]
        parts += [Text(f"  with weights     {printable(manifest.again.after, 300)}")]
    if manifest.files:
        parts += [Text(), Text(f"{folder}: {', '.join(f.name for f in manifest.files)}, manifest.json")]
        parts += list(_use(folder))
    return Group(*parts)


def _decision(manifest: WeightsManifest) -> RenderableType:
    said, style = "not adopted", "bold yellow"
    if manifest.adopt:
        said, style = "adopt", "bold green"
    elif manifest.refused:
        said, style = "refused", "bold red"
    lines = [Text.assemble((said, style), "  ", (printable(manifest.monitor, _NAME), "bold"))]
    reasons = manifest.refused or (manifest.why,)
    lines += [Text(printable(reason, 600)) for reason in reasons]
    if manifest.refused and manifest.gate is not None:
        lines.append(Text(f"The gate: {printable(manifest.gate.why, 600)}", style="dim"))
    return Group(*lines)


def _inputs(manifest: WeightsManifest, inputs: Inputs) -> Text:
    window = "the whole source"
    if inputs.window is not None:
        window = f"{inputs.window} ({format_duration(inputs.window.length)})"
    return Text(
        f"{sum(1 for _ in inputs.training)} training file{'s' * (len(inputs.training) > 1)}, "
        f"{manifest.diagnostics.rows if manifest.diagnostics else 0:,} rows; {inputs.live_rows:,} live rows of "
        f"{window}; method {manifest.method}, because {printable(manifest.method_why, 300)}"
    )


def _diagnostics(manifest: WeightsManifest, found: Diagnostics) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", style="dim", overflow="fold")
    share = found.effective_sample_size / found.rows
    allowed = 0.01 + found.outside_by_chance
    for name, value, meaning in (
        ("effective sample size", f"{found.effective_sample_size:,.0f}", f"Kish's; {share:.1%} of the rows"),
        ("design effect", f"{found.design_effect:.3g}", "by what weighting multiplies the variance of a mean"),
        (
            "largest weight",
            f"{found.largest:.3g}",
            f"{found.skew:.3g} times the mean; the bound is {1 / manifest.mix:g}",
        ),
        ("cut by the bound", f"{found.at_cap:.2%}", "of the rows"),
        (
            "largest difference left",
            f"{found.difference_after:.3g}",
            f"of a standardised mean; {found.difference_before:.3g} without weights, 0.1 may be left",
        ),
        ("AUC, out of fold", f"{found.auc:.3f}", f"{found.auc_after:.3f} with weights; 0.5 is no difference"),
        ("live rows outside", f"{found.outside:.2%}", f"what the training data has; {allowed:.1%} may be"),
    ):
        table.add_row(name, value, meaning)
    return table


def _features(manifest: WeightsManifest) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("feature", overflow="fold")
    for heading in ("sd off", "weighted", "effect", "weighted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what still differs", overflow="fold", min_width=20)
    again = {each.feature: each for each in (manifest.again.features if manifest.again else ())}
    for each in manifest.balance[:_FEATURES]:
        judged = again.get(each.feature)
        worse = Text(f"{each.after:+.2f}", style="red" if abs(each.after) > 0.1 else "")
        table.add_row(
            Text(printable(each.feature, _NAME)),
            f"{each.before:+.2f}",
            worse,
            "-" if judged is None else f"{judged.effect:.3f}",
            "-" if judged is None else f"{judged.effect_after:.3f}",
            Text(printable(judged.moved_after, 120) if judged is not None and judged.drifted_after else ""),
        )
    notes = []
    if len(manifest.balance) > _FEATURES:
        notes.append(Text(f"and {len(manifest.balance) - _FEATURES} that are shifted less", style="dim"))
    for name, why in list(manifest.left_out.items())[:_FEATURES]:
        notes.append(Text(f"without {printable(name, _NAME)}: {why}", style="dim"))
    return Group(table, *notes)


def _raked(raked: Raked) -> list[RenderableType]:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("raked to", overflow="fold")
    for heading in ("factor", "training", "live"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in raked.factors[:_FACTORS]:
        table.add_row(
            Text(printable(each.cell, 2 * _NAME)),
            f"{each.factor:.2g}x",
            f"{each.training:.1%}",
            f"{each.live:.1%}",
        )
    parts: list[RenderableType] = [table]
    if len(raked.factors) > _FACTORS:
        parts.append(Text(f"and {len(raked.factors) - _FACTORS} more cells in the manifest", style="dim"))
    parts.append(Text(f"shares agree to {raked.error:.1g} after {raked.rounds} rounds", style="dim"))
    if len(raked.columns) > 1:
        parts.append(Text("groups whose share changes most", style="bold"))
        for group in raked.groups[:8]:
            cells = ", ".join(printable(cell, _NAME) for cell in group.cells)
            parts.append(Text(f"  {cells}: {group.weight:.2g}x ({group.share:.1%} of the training rows)"))
    return parts


def _gate(gate: Gate) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(f"gate: {printable(gate.learner, 60)}", overflow="fold")
    for heading in ("rows", "loss", "weighted", "gain", "standard error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in gate.trials:
        table.add_row(
            "training rows, cross-validated" if trial.basis == "cross-validation" else "labelled live rows",
            f"{trial.rows:,}",
            f"{trial.unweighted:.4g}",
            f"{trial.weighted:.4g}",
            Text(f"{trial.gain:+.3g}", style="green" if trial.helps else ""),
            f"{trial.error:.2g}",
        )
    return table


def _use(folder: Path) -> Iterator[Text]:
    for line in (folder / "USE.txt").read_text("utf-8").splitlines():
        yield Text(f"  {line}")
