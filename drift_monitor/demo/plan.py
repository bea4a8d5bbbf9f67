"""Which stretch of the past the demo replays, and where its fault begins."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from drift_monitor.demo.folder import SCHEDULE_MONITOR, WEATHER_MONITOR
from drift_monitor.demo.log import FAULT_START, LIVE_START

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
FIRST_END: Final = LIVE_START + DAY + HOUR  # the end of the first window that is replayed
LAST_END: Final = FAULT_START + DAY
HOURS: Final = (LAST_END - FIRST_END) // HOUR + 1
MONITORS: Final = (SCHEDULE_MONITOR, WEATHER_MONITOR)
FAULTY_FEATURE: Final = "distance"
NEW_YORK: Final = ZoneInfo("America/New_York")


def day_of(end: datetime) -> date:
    """The day in New York that a window which ends then is counted to."""
    return (end - HOUR).astimezone(NEW_YORK).date()
