"""Rebuild the files of this folder: `python reference_data/make.py`."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from drift_monitor.config.models import Columns
from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP, load_flights, to_arrow
from drift_monitor.demo.log import LIVE_START, live_log, training_log, write_log, write_table
from drift_monitor.demo.model import SCORE, DelayModel
from drift_monitor.reference import build_reference

LIVE_DAYS = 14
SAMPLE_ROWS = 10_000


def make(folder: Path) -> None:
    """Write the training file, two weeks of log without a fault, and the reference version.

    Args:
        folder: where `flight-delay/` goes; what an earlier run left there is replaced.
    """
    target = folder / "flight-delay"
    target.mkdir(parents=True, exist_ok=True)
    flights = load_flights()
    training = training_log(flights)
    write_table(to_arrow(training), target / "training.parquet")
    until = LIVE_START + timedelta(days=LIVE_DAYS)
    write_log(live_log(flights, DelayModel(training), until=until, fault_start=None), target / "live")
    for version in target.glob("????-??-??-*/"):
        shutil.rmtree(version)
    build_reference(
        target / "training.parquet",
        target,
        columns=Columns(prediction=SCORE, label=LABEL, id=IDENTIFIER, ignore=("weekday",)),
        timestamp=TIMESTAMP,
        bucket=timedelta(hours=1),
        created=LIVE_START,
        sample_rows=SAMPLE_ROWS,
        split="flights of January to March 2013 that arrived",
    )


if __name__ == "__main__":
    make(Path(__file__).parent)
