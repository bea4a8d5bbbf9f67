"""A worker child whose verdicts come from a script: `source.path` is JSON, hour of the window's end -> deed.

Deeds: ok, drift, broken, hang, die. Hours that the script does not name are ok.
"""

import json
import os
import time
from pathlib import Path

from drift_monitor.core.types import CheckResult, FeatureResult, Histogram, Outcome, QualityResult
from drift_monitor.service.worker import serve

HOSTILE = 'dist<script>"\n'


def evaluate(request):
    script = Path(request.monitor.source.path)
    hour = f"{request.window.end:%dT%H}"
    deed = json.loads(script.read_text()).get(hour, "ok") if script.exists() else "ok"
    if deed == "hang":
        time.sleep(3600)
    if deed == "die":
        os._exit(3)
    if deed == "slow":
        time.sleep(2)
        deed = "ok"
    drifted = deed == "drift"
    return CheckResult(
        monitor=request.name,
        window=request.window,
        rows=1000,
        verdict=Outcome(deed),
        reason=f"by script: {deed}",
        score=2.0 if drifted else 0.5,
        threshold=1.0,
        promise="none: a stand-in",
        features=(
            FeatureResult(
                name=HOSTILE,
                kind="numeric",
                drifted=drifted,
                method="ks",
                score=2.0 if drifted else 0.5,
                threshold=1.0,
                null_ratio=0.0,
                effect="median 1 -> 2",
                histogram=Histogram(labels=("a", "b"), reference=(0.5, 0.5), current=(0.25, 0.75)),
            ),
        ),
        quality=(
            QualityResult(check="null_rate", feature=HOSTILE, failed=deed == "broken", message="nulls: 40%"),
        ),
        newest_event=request.window.end,
        seconds={"source": 0.01, "judge": 0.02},
    )


if __name__ == "__main__":
    serve(evaluate)
