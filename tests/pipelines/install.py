"""Sets up one environment for each pipeline: `python tests/pipelines/install.py [NAME...]`.

They are kept in `$DRIFT_MONITOR_PIPELINES`, or in the user's cache folder, and set up again when their
requirements change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))


def folder() -> Path:
    """Where the environments are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("DRIFT_MONITOR_PIPELINES") or cache / "drift-monitor-pipelines")


def is_installed(name: str) -> bool:
    """Whether an environment is there, with the requirements of now."""
    stamp = folder() / name / "installed.txt"
    return stamp.exists() and stamp.read_text() == (REQUIREMENTS / f"{name}.txt").read_text()


def install(name: str) -> None:
    """Set up an environment from nothing, if it is not there."""
    place, requirements = folder() / name, REQUIREMENTS / f"{name}.txt"
    if is_installed(name):
        print(f"{name}: in {place}")
        return
    began = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--requirement", requirements], check=True)
    (place / "installed.txt").write_text(requirements.read_text())
    print(f"{name}: set up in {place}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(install, sys.argv[1:] or NAMES))
