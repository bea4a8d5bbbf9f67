"""Events to try a receiver with: shaped like real ones, and marked as tests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from drift_monitor.core.cloudevents import render
from drift_monitor.core.types import Message
from drift_monitor.receivers.template import REQUESTED

TRIAL = "drift_monitor.test"
_BASE = "http://127.0.0.1:9877"
_DAY = timedelta(days=1)


def trial(now: datetime, base: str = _BASE) -> Message:
    """A message that says that it is a test, shaped like one about an episode that ends in five minutes.

    Args:
        now: the wall clock.
        base: URL of the daemon.
    """
    lasting = now + timedelta(minutes=5)
    return _message(
        TRIAL, now, _about("this is a test: nothing has drifted", now, base) | _episode("test", now, lasting)
    )


def trial_request(now: datetime, base: str = _BASE) -> Message:
    """A request for a retraining that says that it is a test; a pipeline that takes it starts a real run.

    Args:
        now: the wall clock.
        base: URL of the daemon.
    """
    ident = uuid.uuid4().hex
    data = _about("this is a test: nothing has to be retrained", now, base) | {
        "retraining": {"id": ident, "mode": "test", "decided_by": "drift-monitor test-alert", "receiver": "test"},
        "episode": None,
        "features": [],
        "reference": None,
        "training": None,
        "weights": None,
        "report_back": {"url": f"{base}/api/v1/retrainings/{ident}"},
    }
    return _message(REQUESTED, now, data)


def samples(now: datetime) -> Iterator[dict[str, Any]]:
    """One event of each shape, as its receiver reads it; the fullest first."""
    sparse = trial_request(now)
    full = sparse.data | {
        "episode": {"id": "0" * 32, "opened": now},
        "features": ["a feature"],
        "reference": {"version": "v1", "sha256": "0" * 64},
        "training": {
            "url": f"{_BASE}/training.parquet",
            "path": "/training.parquet",
            "rows": 2,
            "sha256": "0" * 64,
        },
        "weights": {
            "url": f"{_BASE}/weights.parquet",
            "path": "/weights.parquet",
            "rows": 2,
            "sha256": "0" * 64,
            "effective_sample_size": 1.5,
            "adopt": True,
            "why": "a reason",
        },
    }
    yield _read(sparse.model_copy(update={"data": full}))
    yield _read(sparse)
    for lane, kind in (("drift", "drift"), ("quality", "data_quality")):
        for reason, closed in (("opened", None), ("escalated", None), ("reminded", None), ("resolved", now)):
            data = _about("a summary", now, _BASE) | _episode(lane, now - _DAY, closed) | _figures()
            yield _read(_message(f"drift_monitor.{kind}.{reason}", now, data))
    whole = _about("a summary", now, _BASE)
    few = {name: whole[name] for name in ("summary", "test", "monitor", "model", "downstream", "links")}
    ended = few | _episode("drift", now - _DAY, now)  # by a retraining
    yield _read(_message("drift_monitor.drift.resolved", now, ended))
    given_up = few | _episode("drift", now - _DAY, None) | {"severity": "critical"}
    yield _read(_message("drift_monitor.retraining.given_up", now, given_up))
    yield _read(trial(now))


def _about(summary: str, now: datetime, base: str) -> dict[str, object]:
    return {
        "summary": summary,
        "test": True,
        "monitor": "test",
        "model": {"name": "test", "version": "", "owner": ""},
        "downstream": [],
        "window": {"start": now - _DAY, "end": now},
        "reason": "somebody ran drift-monitor test-alert",
        "links": {"page": f"{base}/"},
    }


def _episode(lane: str, opened: datetime, closed: datetime | None) -> dict[str, object]:
    return {"episode": {"id": uuid.uuid4().hex, "lane": lane, "opened": opened, "closed": closed}}


def _figures() -> dict[str, object]:
    return {
        "verdict": "drift",
        "rows": 2,
        "score": 2.5,
        "threshold": 1.5,
        "promise": "a promise",
        "promise_basis": "calibrated",
        "false_alerts_per_month": 1.0,
        "signals": [],
        "reference": {"version": "v1", "sha256": "0" * 64},
        "features": [],
        "quality": [],
    }


def _message(kind: str, now: datetime, data: dict[str, object]) -> Message:
    return Message(
        id=str(uuid.uuid4()),
        type=kind,
        source="/drift-monitor/test",
        subject="test",
        time=now,
        group=uuid.uuid4().hex,
        data=data,
    )


def _read(message: Message) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(render(message))
    return event
