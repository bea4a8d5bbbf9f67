"""Who may import whom. The core decides and touches nothing; the daemon stays small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import drift_monitor

ROOT = Path(drift_monitor.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
WORLD = {
    "time",
    "pathlib",
    "sqlite3",
    "logging",
    "random",
    "socket",
    "os",
    "http",
    "urllib",
    "subprocess",
    "threading",
}
HEAVY = {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "evidently"}
ROOMS = ("sources", "executors", "receivers", "actions")
DAEMON = (
    "service.app",
    "service.scheduler",
    "service.store",
    "service.outbox",
    "service.metrics",
    "service.server",
    "receivers",
)
# who may import what is large: those that read or judge data, and the commands that do so in their own process
LARGE = (
    "core/",
    "sources/",
    "clusters/",
    "executors/",
    "intake/",
    "actions/",
    "demo/",
    "reference/",
    "evidently_tests.py",
    "config/infer.py",
    "service/bucket_store.py",
    "service/buckets.py",
    "service/kept.py",
    "service/calibrations.py",
    "service/channels.py",
    "service/scoring.py",
    "service/backtest.py",
    "service/backfill.py",
    "service/performance.py",
)
EVIDENTLY = ("actions/evidently_page.py", "evidently_tests.py")


def imports(path: Path, *, lazily: bool = True) -> Iterator[str]:
    """Dotted names that a module imports; those under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text())
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack += node.orelse
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazily:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        stack += ast.iter_child_nodes(node)


def inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", [p for p in MODULES if inside(p).startswith("core/")], ids=inside)
def test_the_core_imports_only_itself_and_touches_nothing(path: Path) -> None:
    for name in imports(path):
        assert name.partition(".")[0] not in WORLD, f"{inside(path)} imports {name}"
        assert not within(name, "numpy.random"), f"{inside(path)} imports {name}"
        if within(name, "drift_monitor"):
            assert within(name, "drift_monitor.core"), f"{inside(path)} imports {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_plug_ins_do_not_know_each_other(room: str) -> None:
    others = [f"drift_monitor.{other}" for other in ROOMS if other != room]
    for path in (ROOT / room).rglob("*.py"):
        for name in imports(path):
            for other in others:
                # a report reads its rows from a source, as a check does
                if room == "actions" and other in ("drift_monitor.sources", "drift_monitor.executors"):
                    continue
                assert not within(name, other), f"{inside(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_only_the_daemon_and_the_commands_know_everyone(path: Path) -> None:
    top = inside(path).partition("/")[0]
    if top in ("service", "cli", "demo", "__main__.py"):
        return
    for name in imports(path):
        for room in ("service", "cli", "demo"):
            assert not within(name, f"drift_monitor.{room}"), f"{inside(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_only_those_that_handle_data_import_what_is_large(path: Path) -> None:
    if inside(path).startswith(LARGE):
        return
    for name in imports(path, lazily=not inside(path).startswith(("service/", "cli/"))):
        assert name.partition(".")[0] not in HEAVY, f"{inside(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_evidently_has_two_places_that_are_imported_when_it_is_asked_for(path: Path) -> None:
    if inside(path) not in EVIDENTLY:
        assert not any(within(name, "evidently") for name in imports(path))
        assert not any(
            within(name, "drift_monitor.actions.evidently_page") for name in imports(path, lazily=False)
        )


@pytest.mark.parametrize("module", [*DAEMON, "cli"])
def test_the_daemon_and_the_help_stay_small(module: str) -> None:
    code = f"import drift_monitor.{module}, sys; print(*(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


def test_the_help_imports_no_models_and_no_tables() -> None:
    code = "import drift_monitor.cli, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "rich", "sqlite3", "apscheduler"} & set(loaded)
