"""Events with hostile text in them, and receivers to send them to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from scripted_server import status

from drift_monitor.config.receivers import Receiver
from drift_monitor.core.types import Message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPENED = datetime(2026, 3, 1, tzinfo=UTC)
ID = "1f" * 16
HOSTILE = 'naïve "\\ \r\nX-Evil: 1\r\n\r\n</script> ${data.monitor} ../..?a=b&c#d 😀'
DATA: dict[str, Any] = {
    "summary": f"retrain flights: {HOSTILE}",
    "monitor": "flights",
    "model": {"name": "arrival-delay", "version": "2013-03", "owner": "ops-ml"},
    "retraining": {"id": ID, "mode": "auto", "decided_by": "drift-monitor", "receiver": "pipeline"},
    "episode": {"id": "e" * 32, "opened": "2026-03-01T00:00:00+00:00"},
    "window": {"start": "2026-02-28T00:00:00+00:00", "end": "2026-03-01T00:00:00+00:00"},
    "reason": HOSTILE,
    "features": [HOSTILE, "distance"],
    "reference": {"version": "v1", "sha256": "a" * 64},
    "training": {"url": "http://drift.example/t.parquet", "path": "/t.parquet", "rows": 10, "sha256": "b" * 64},
    "weights": {
        "url": "http://drift.example/w.parquet",
        "path": "/w.parquet",
        "rows": 10,
        "sha256": "c" * 64,
        "effective_sample_size": 7.5,
        "adopt": True,
        "why": "gains 3.1 standard errors",
    },
    "report_back": {"url": f"http://drift.example/api/v1/retrainings/{ID}"},
    "links": {"page": "http://drift.example/monitors/flights"},
}
FLAT = {
    "retraining_id": ID,
    "monitor": "flights",
    "reason": HOSTILE,
    "report_back": f"http://drift.example/api/v1/retrainings/{ID}",
    "training_url": "http://drift.example/t.parquet",
    "weights_url": "http://drift.example/w.parquet",
    "weights_adopt": "true",
}


def message(data: dict[str, Any], kind: str = "drift_monitor.retraining.requested") -> Message:
    return Message(
        id="e-1",
        type=kind,
        source="/drift-monitor/monitors/flights",
        subject="flights",
        time=NOW,
        group="g",
        data=data,
    )


def event(data: dict[str, Any] = DATA) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/drift-monitor/monitors/flights",
        "type": "drift_monitor.retraining.requested",
        "subject": "flights",
        "time": "2026-03-01T12:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }


def answer(content: object, line: str = "200 OK", headers: str = "") -> bytes:
    return status(line, headers, json.dumps(content))


def make(section: dict[str, Any], url: str, folder: Path) -> Any:
    """A receiver as a configuration has it; files it names hold `s3cret`."""
    written = {"url": url, "timeout": "60s"} | section
    for key in ("token_file", "password_file"):
        if key in section:
            path = folder / section[key]
            path.write_text("s3cret\n")
            written[key] = str(path)
    return TypeAdapter(Receiver).validate_json(json.dumps(written))


def episode(kind: str, lane: str, opened: datetime, closed: datetime | None, **data: Any) -> Message:
    """A message as `service/messages.py` writes it, as far as an alert looks at it."""
    return Message(
        id="e-1",
        type=kind,
        source="/drift-monitor/monitors/flights",
        subject="flights",
        time=closed or opened,
        group="g",
        data={
            "summary": f"flights has drifted: {HOSTILE}",
            "monitor": "flights",
            "model": {"name": "arrival-delay", "version": "2013-03", "owner": ""},
            "episode": {"id": "f" * 32, "lane": lane, "opened": opened, "closed": closed},
            "reason": HOSTILE,
            "score": 223.6,
            "threshold": 7.32,
            "links": {"page": "http://drift.example/monitors/flights"},
            **data,
        },
    )
