"""Time zones, as a user names them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator


def _known_zone(name: str) -> str:
    zones = available_timezones()
    if name not in zones:
        close = get_close_matches(name, zones, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "use an IANA name such as Europe/Berlin"
        raise ValueError(f"unknown time zone: {hint}")
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
