"""What the demo puts on disk: the training file, and the inference log with the injected fault."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.demo.data import LABEL, TIMESTAMP, between, to_arrow
from drift_monitor.demo.model import SCORE, DelayModel, cross_fitted_scores

TRAINING_START: Final = datetime(2013, 1, 1, 5, tzinfo=UTC)  # midnight in New York
LIVE_START: Final = datetime(2013, 4, 1, 4, tzinfo=UTC)  # midnight in New York, in summer time
FAULT_START: Final = datetime(2013, 4, 11, 4, tzinfo=UTC)  # the same
KM_PER_MILE: Final = 1.609344


def training_log(flights: pd.DataFrame) -> pd.DataFrame:
    """January to March with labels and with scores from models that did not see them."""
    training = between(flights, TRAINING_START, LIVE_START)
    training = training[training[LABEL].notna()].reset_index(drop=True)
    return training.assign(**{SCORE: cross_fitted_scores(training)})


def live_log(
    flights: pd.DataFrame, model: DelayModel, *, until: datetime, fault_start: datetime | None
) -> pd.DataFrame:
    """The flights from April on as the model saw them.

    Args:
        flights: all of them.
        model: gives the score, from the features as they are logged, fault and all.
        until: end of the log.
        fault_start: from here on `distance` is in km where the model was trained on miles; None for no fault.
    """
    live = between(flights, LIVE_START, until)
    if fault_start is not None:
        live["distance"] = live["distance"].where(live[TIMESTAMP] < fault_start, live["distance"] * KM_PER_MILE)
    return live.assign(**{SCORE: model.score(live)})


def write_log(log: pd.DataFrame, folder: Path) -> list[Path]:
    """Write one Parquet file a UTC day, named by the day, and remove other days from the folder.

    Returns:
        The files, by day.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for day, rows in log.groupby(log[TIMESTAMP].dt.strftime("%Y-%m-%d")):
        files.append(folder / f"{day}.parquet")
        write_table(to_arrow(rows), files[-1])
    for other in set(folder.glob("*.parquet")) - set(files):
        other.unlink()
    return files


def write_table(table: pa.Table, file: Path) -> None:
    """Write Parquet so that a reader sees the whole file or none, and equal tables give equal bytes."""
    temporary = file.with_suffix(".partial")
    pq.write_table(table, temporary, compression="zstd", compression_level=19)
    os.replace(temporary, file)
