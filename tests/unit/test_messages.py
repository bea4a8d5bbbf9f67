"""What receivers are told: enough to act on, and never more than fits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from drift_monitor.config.models import Monitor
from drift_monitor.core.cloudevents import MAX_BYTES, render
from drift_monitor.core.episode import step
from drift_monitor.core.policy import Alarm
from drift_monitor.core.types import (
    CheckResult,
    FeatureResult,
    Histogram,
    Lane,
    Outcome,
    QualityResult,
    Segment,
    Signal,
    Window,
)
from drift_monitor.service.messages import HISTOGRAMS, MOST, Links, message

END = datetime(2013, 4, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
MONITOR = Monitor.model_validate_json(
    '{"reference": "r", "source": {"path": "p", "timestamp": "t"}, "schedule": {"every": "1h"}}'
)


def feature(name: str, *, drifted: bool = True) -> FeatureResult:
    bins = 20
    return FeatureResult(
        name=name,
        kind="numeric",
        drifted=drifted,
        method="anderson_darling",
        score=123.456789012345678,
        threshold=7.323786408340984,
        window=3600,
        effect="median 1234.5678 -> 2345.6789",
        histogram=Histogram(
            labels=tuple(f"[{i * 1234.5678}, {(i + 1) * 1234.5678})" for i in range(bins)),
            reference=(1 / 3,) * bins,
            current=(2 / 3,) * bins,
        ),
    )


def check(hour: int, *features: FeatureResult, **fields: Any) -> CheckResult:
    end = END + hour * HOUR
    given = {"verdict": Outcome.DRIFT, "reason": "r", "promise": "p", "score": 9.0, "threshold": 6.0, **fields}
    window = Window(start=end - timedelta(days=1), end=end)
    return CheckResult.model_validate(
        {"monitor": "flights", "window": window, "rows": 9, "features": features, **given}
    )


def said(*results: CheckResult, lane: Lane = "drift") -> dict[str, Any]:
    """The data of the last message about some windows."""
    episode, data = None, {}
    for result in results:
        moved = step(lane, episode, [], result, Alarm())
        episode = moved.episode or episode
        told = message(moved, result, MONITOR, source="/s", links=Links(page="https://x/m", report=None))
        if told is not None:
            body = render(told)
            assert len(body) < MAX_BYTES
            data = json.loads(body)["data"]
    return data


def test_the_promise_and_what_it_rests_on_are_told() -> None:
    data = said(
        check(0, feature("a"), promise="at most 1", promise_basis="extrapolated", false_alerts_per_month=2.0)
    )
    assert (data["promise"], data["promise_basis"], data["false_alerts_per_month"]) == (
        "at most 1",
        "extrapolated",
        2,
    )


def test_only_signals_over_the_threshold_are_told() -> None:
    signals = (
        Signal(channel="features", score=9.0, over=True),
        Signal(channel="pairs", window=86400, score=8.0, over=True, detail="a with b"),
        Signal(channel="rows", score=1.0, over=False),
    )
    assert said(check(0, feature("a"), signals=signals))["signals"] == [
        {"channel": "features", "window": 0, "score": 9.0, "detail": ""},
        {"channel": "pairs", "window": 86400, "score": 8.0, "detail": "a with b"},
    ]


def test_a_feature_of_a_segment_tells_both() -> None:
    segment = Segment(column="carrier", value="UA")
    sliced = feature("delay where carrier = UA").model_copy(update={"column": "delay", "segment": segment})
    first, second = said(check(0, sliced, feature("delay")))["features"]
    assert (first["column"], first["segment"]) == ("delay", {"column": "carrier", "value": "UA"})
    assert "segment" not in second


def test_each_feature_tells_since_when_it_drifts() -> None:
    """b joins an hour after a, and leads, which is a message."""
    data = said(check(0, feature("a")), check(1, feature("b"), feature("a")))
    since = {f["name"]: f["since"] for f in data["features"]}
    assert since == {"b": (END + HOUR).isoformat(), "a": END.isoformat()}
    assert {f["window"] for f in data["features"]} == {3600}


@pytest.mark.parametrize("count", [1, 3, 20, 60])
def test_a_message_stays_small_and_whole_however_many_features_drift(count: int) -> None:
    broken = tuple(
        QualityResult(check="null_rate", feature=f"a_rather_long_name_{i}", failed=True, value=0.5, threshold=0.1,
                      message=f"a_rather_long_name_{i}: 50.00% of 9 rows are null (0.00% in the reference)")
        for i in range(count)
    )  # fmt: skip
    data = said(check(0, *(feature(f"a_rather_long_name_{i}") for i in range(count)), quality=broken))
    assert "truncated" not in data
    assert len(data["features"]) == len(data["quality"]) == min(count, MOST)
    drawn = [f["histogram"] for f in data["features"] if "histogram" in f]
    assert len(drawn) == min(count, HISTOGRAMS)
    assert drawn[0]["reference"][0] == 0.3333
    assert len(drawn[0]["labels"]) == len(drawn[0]["current"]) == 20


def test_broken_data_tell_since_when_too() -> None:
    def broken(*names: str) -> tuple[QualityResult, ...]:
        return tuple(QualityResult(check="null_rate", feature=n, failed=True, message=n) for n in names)

    whole = QualityResult(check="volume", failed=True, message="no rows")
    results = [
        check(0, feature("a"), verdict=Outcome.BROKEN, quality=broken("a")),
        check(1, feature("a"), verdict=Outcome.BROKEN, quality=(whole, *broken("b", "a"))),
    ]
    data = said(*results, lane="quality")
    assert [q["since"] for q in data["quality"]] == [
        (END + HOUR).isoformat(),
        (END + HOUR).isoformat(),
        END.isoformat(),
    ]
    assert "since" not in data["features"][0]  # the drift lane has no episode here
