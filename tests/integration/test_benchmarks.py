"""The benchmarks run, and print one JSON object. What they measure is for their readers, not for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


def figures(script: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_check_cost_measures_the_check_beside_the_read() -> None:
    found = figures("check_cost.py", "--without-evidently")
    assert {"read", "check"} <= set(found["costs"])


def test_the_idle_daemon_holds_no_numeric_library() -> None:
    found = figures("idle.py")
    assert found["libraries"] == []
    assert set(found["verdicts"]) == {"ok"}


def test_every_bracket_of_the_short_run_holds_scipys_value() -> None:
    found = figures("exactness.py")
    assert found["failures"] == []
    for name in ("ks", "wasserstein"):
        row = found["statistics"][name]
        assert row["cases"] == 200
        assert row["contained"] == row["answered"] > 100
        assert row["brackets"] > 20
