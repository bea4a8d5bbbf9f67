"""A request for a retraining, new each time, with hostile text in it."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from drift_monitor.receivers.samples import samples

HOSTILE = 'naïve "\\ \r\nX-Evil: 1 </script> {{ 7 * 7 }} {% raw %} ${data.monitor} 😀'


def requested() -> tuple[str, bytes]:
    """The retraining's id, and the event."""
    event = next(samples(datetime.now(UTC)))  # the fullest
    ident = uuid.uuid4().hex
    event["data"]["retraining"]["id"] = ident
    event["data"] |= {"summary": HOSTILE, "reason": HOSTILE, "features": [HOSTILE, "distance"]}
    return ident, json.dumps(event).encode()
