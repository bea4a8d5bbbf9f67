"""What the benchmarks share: children measured by the kernel, medians, a table of ratios."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

SEED = 20130101


@dataclass(frozen=True)
class Cost:
    """What one run of a command took.

    Attributes:
        cpu: seconds of processor time, user and system, of the process and its children.
        wall: seconds.
        peak: largest resident memory of any of its processes, in MB.
    """

    cpu: float
    wall: float
    peak: float


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small data: shows that it works, proves nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each cheap command; medians are shown")
    return parser


def measure(command: Sequence[str], environment: Mapping[str, str], *, allowed: Collection[int] = (0,)) -> Cost:
    """Run a command and ask the kernel what it took.

    Args:
        command: with its arguments.
        environment: variables.
        allowed: exit codes that are no failure.

    Raises:
        SystemExit: it failed; its error output is shown.
    """
    start = perf_counter()
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in allowed:
        sys.exit(f"{' '.join(command)} failed ({process.returncode}):\n{b''.join(said).decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, perf_counter() - start, usage.ru_maxrss / 1024)


def environment(folder: Path) -> dict[str, str]:
    """The caller's, but with compiled modules kept, as they are in an installed package."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "DO_NOT_TRACK": "1"}


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(statistics.median(getattr(c, field) for c in costs) for field in ("cpu", "wall", "peak")))


def table(costs: Mapping[str, Sequence[Cost]], base: str) -> str:
    """Medians, and CPU time as a multiple of the base's."""
    unit = median(costs[base]).cpu
    lines = [f"{'':34s}{'runs':>5s}{'CPU s':>9s}{'x ' + base:>12s}{'wall s':>9s}{'peak MB':>9s}"]
    for name, runs in costs.items():
        m = median(runs)
        lines.append(f"{name:34s}{len(runs):5d}{m.cpu:9.2f}{m.cpu / unit:12.2f}{m.wall:9.2f}{m.peak:9.0f}")
    return "\n".join(lines)


def told(goals: Mapping[str, bool]) -> str:
    """A line a goal, with whether it is met."""
    return "\n".join(f"{'yes' if met else 'NO ':4s}{goal}" for goal, met in goals.items())


def as_json(costs: Mapping[str, Sequence[Cost]], **facts: object) -> str:
    """Medians and single runs, for programs."""
    runs = {name: {"median": asdict(median(c)), "runs": [asdict(run) for run in c]} for name, c in costs.items()}
    return json.dumps(facts | {"costs": runs}, indent=2)
