"""What changes in the loop demo, and when: an airport that the model has never seen is given to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pandas as pd

from drift_monitor.demo.data import LABEL, TIMESTAMP, between
from drift_monitor.demo.plan import DAY

NEW_AIRPORT: Final = "JFK"
TRAINING_START: Final = datetime(2013, 2, 1, 5, tzinfo=UTC)  # midnight in New York
LIVE_START: Final = datetime(2013, 5, 1, 4, tzinfo=UTC)  # the same, in summer time
JOINED: Final = datetime(2013, 5, 15, 4, tzinfo=UTC)  # the airport's flights are served from here on
SPAN: Final = timedelta(days=56)
"""What the refreshed training set covers. The promise of one false alert a month takes six weeks of reference."""
DECIDED: Final = JOINED + SPAN  # when it is full of the new airport's flights the team says yes
WATCHED: Final = timedelta(days=28)
"""For so long the new model is watched: the promise is about a month, and ten days of weather decide nothing."""
ENDS: Final = DECIDED + WATCHED
FIRST_END: Final = LIVE_START + DAY  # the end of the first window
FIRST_VERSION: Final = "2013-04"


def served(flights: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """The flights that the model is asked about in a stretch of time."""
    some = between(flights, start, end)
    return some[(some["origin"] != NEW_AIRPORT) | (some[TIMESTAMP] >= JOINED)].reset_index(drop=True)


def training(flights: pd.DataFrame) -> pd.DataFrame:
    """What the first model is trained on: three months without the airport, flights that arrived."""
    rows = served(flights, TRAINING_START, LIVE_START)
    return rows[rows[LABEL].notna()].reset_index(drop=True)
