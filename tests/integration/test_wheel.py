"""A wheel built from this tree holds all that the program needs at run time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*args: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(args, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_every_package_file_and_runs_from_elsewhere(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")

    tracked = run("git", "ls-files", "drift_monitor", cwd=ROOT).split()
    assert set(tracked) <= set(zipfile.ZipFile(wheel).namelist())

    installed = tmp_path / "installed"
    run(*pip, "install", "--quiet", "--no-deps", "--target", installed, wheel, cwd=tmp_path)
    where = run(
        sys.executable,
        "-c",
        "import drift_monitor; print(drift_monitor.__file__)",
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )
    assert where.startswith(str(installed))
    schema = run(sys.executable, "-m", "drift_monitor", "schema", cwd=tmp_path, PYTHONPATH=str(installed))
    assert '"monitors"' in schema
    command = [sys.executable, "-m", "drift_monitor", "export"]
    rules = run(*command, "rules", cwd=tmp_path, PYTHONPATH=str(installed))
    assert rules == (ROOT / "alerts" / "drift-monitor.rules.yml").read_text("utf-8")
    run(*command, "dashboards", "--to", tmp_path / "grafana", cwd=tmp_path, PYTHONPATH=str(installed))
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "grafana" / "dashboards").iterdir()}
    committed = (ROOT / "grafana" / "dashboards").glob("*.json")
    assert written == {path.name: path.read_text("utf-8") for path in committed}
