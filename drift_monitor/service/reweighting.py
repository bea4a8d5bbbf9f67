"""Weights for the training rows of a monitor, and their process: `python -m drift_monitor.service.reweighting`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from drift_monitor.actions.reweight import (
    MANIFEST,
    WEIGHTS,
    ReweightError,
    ReweightRequest,
    ReweightResult,
)
from drift_monitor.actions.weights_manifest import WeightsManifest
from drift_monitor.core.types import CheckResult, Outcome
from drift_monitor.service.answer import answer

MEMORY: Final = 4 * 2**30
"""Bytes: the samples of both sides at their default sizes take a quarter of it."""


def perform_reweight(
    request: ReweightRequest, progress: Callable[[int, int], None] | None = None
) -> ReweightResult:
    """Check the window, and make weights by it; or say why not.

    Written to `request.output`: `weights.parquet`, `weights.svg` and `USE.txt` where weights were made, and
    `manifest.json` in any case. The same files, settings and seed give the same bytes.

    Args:
        request: the monitor, the window and where to write.
        progress: called with (steps done, steps in all).

    Raises:
        DriftMonitorError: data or settings cannot be used; the message names file, column or setting.
        OSError: something cannot be written.
    """
    from drift_monitor.actions.weighting import make_weights, write_manifest  # noqa: PLC0415 - heavy
    from drift_monitor.core.profile import whole_columns  # noqa: PLC0415
    from drift_monitor.service.evaluate import CheckRequest, evaluate  # noqa: PLC0415
    from drift_monitor.service.references import reference_of, training_of, watched_specs  # noqa: PLC0415

    def now() -> datetime:
        return datetime.now(UTC)

    name, monitor, state = request.name, request.monitor, request.state
    training = training_of(name, monitor, state, now=now)
    request.output.mkdir(parents=True, exist_ok=True)
    result = evaluate(CheckRequest(name=name, monitor=monitor, state=state, window=request.window))
    if result.failure is not None:
        raise ReweightError(f"the window of {name} could not be checked: {result.reason}")
    packages = _packages(result)
    against = _against(result)
    if against:
        manifest = WeightsManifest(
            monitor=name,
            model=" ".join(part for part in (monitor.model.name, monitor.model.version) if part),
            verdict=result.verdict,
            verdict_reason=result.reason,
            method="none",
            method_why="the window cannot be trusted",
            mix=monitor.reweight.mix,
            seed=monitor.reweight.seed,
            refused=(against,),
            adopt=False,
            why=against,
            packages=packages,
        )
        write_manifest(request.output, manifest, request.output)
    else:
        reference = reference_of(name, monitor, state, now=now)
        specs = whole_columns(watched_specs(monitor, reference))
        manifest = make_weights(request, reference, specs, training, result, packages, progress)
    made = {file.name: file.sha256 for file in manifest.files}
    found = manifest.diagnostics
    return ReweightResult(
        path=request.output / WEIGHTS if WEIGHTS in made else None,
        manifest=request.output / MANIFEST,
        rows=0 if found is None else found.rows,
        sha256=made.get(WEIGHTS, ""),
        effective_sample_size=0.0 if found is None else found.effective_sample_size,
        method=manifest.method,
        adopt=manifest.adopt,
        why=manifest.why,
        refused=manifest.refused,
    )


def read_weights_manifest(folder: Path) -> WeightsManifest:
    """The manifest of weights.

    Args:
        folder: that they are in.

    Raises:
        ReweightError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return WeightsManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ReweightError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _against(result: CheckResult) -> str:
    """Why no weights may be made for a window; empty when they may."""
    if result.verdict is Outcome.BROKEN:
        return f"the window's data is broken, and weights would learn that: {result.reason}"
    if result.verdict in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}:
        return f"the window could not be judged: {result.reason}"
    return ""


def _packages(result: CheckResult) -> dict[str, str]:
    """The versions that the numbers depend on."""
    from importlib.metadata import version  # noqa: PLC0415

    return {**result.versions, "scikit-learn": version("scikit-learn")}


if __name__ == "__main__":
    sys.exit(answer(ReweightRequest, perform_reweight, MEMORY))
