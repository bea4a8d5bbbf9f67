"""What people see of a check."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from drift_monitor.cli.draw import draw_check, draw_features, draw_histogram
from drift_monitor.core.types import (
    CheckResult,
    FeatureResult,
    Histogram,
    Outcome,
    QualityResult,
    ReferenceId,
    Signal,
    StatResult,
    Window,
)

DAY = Window(start=datetime(2013, 4, 1, tzinfo=UTC), end=datetime(2013, 4, 2, tzinfo=UTC))
HISTOGRAM = Histogram(labels=("0 .. 500", "500 .. 1000"), reference=(0.75, 0.25), current=(0.25, 0.75))


def feature(name: str = "distance", **fields: object) -> FeatureResult:
    given = {"kind": "numeric", "drifted": True, "method": "ks", "score": 0.5, "threshold": 0.05, **fields}
    return FeatureResult.model_validate({"name": name, "null_ratio": 0.125, "histogram": HISTOGRAM, **given})


def result(*features: FeatureResult, **fields: object) -> CheckResult:
    given = {
        "verdict": Outcome.DRIFT,
        "reason": "1 of 2 features drifted",
        "reference": ReferenceId(version="2013-04-01-abc", sha256="f" * 64, rows=84_000, created=DAY.start),
        **fields,
    }
    return CheckResult.model_validate(
        {"monitor": "flights", "window": DAY, "rows": 912, "promise": "no promise", "features": features, **given}
    )


def drawn(what: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_verdict_comes_first_with_what_was_compared() -> None:
    lines = drawn(draw_check(result(feature()))).splitlines()
    assert lines[0].rstrip() == "drift flights  2013-04-01T00:00Z .. 2013-04-02T00:00Z"
    assert lines[1].rstrip() == "1 of 2 features drifted"
    assert lines[2].rstrip() == "912 rows; reference 2013-04-01-abc of 84,000 rows"
    assert lines[3].rstrip() == "no promise"


def test_features_keep_their_order_and_numbers() -> None:
    statistics = {"ks": StatResult(statistic=0.5, p_value=1e-9), "psi": StatResult(statistic=1.25)}
    text = drawn(
        draw_check(result(feature(statistics=statistics), feature("air_time", drifted=False, score=0.01)))
    )
    rows = [line.split() for line in text.splitlines() if "numeric" in line]
    assert rows[0] == ["distance", "drift", "numeric", "ks", "0.5", "0.05", "0.5", "1.25", "12.5%"]
    assert rows[1] == ["air_time", "ok", "numeric", "ks", "0.01", "0.05", "-", "-", "12.5%"]


def test_a_score_of_another_window_says_so() -> None:
    short, own = (
        feature(window=3600, effect="median 1 -> 2"),
        feature("air_time", window=86400, effect="mean 3 -> 4"),
    )
    text = drawn(draw_check(result(short, own)))
    assert "median 1 -> 2 (scored in 1h)" in text
    assert "mean 3 -> 4" in text
    assert "scored in 1d" not in text


def test_signals_that_no_single_feature_explains_are_shown_when_over() -> None:
    signals = (
        Signal(channel="features", score=9.0, over=True),
        Signal(channel="pairs", window=3600, score=8.0, over=True, detail="a with b 0.1 -> [red]0.9"),
        Signal(channel="together", score=7.5, over=True),
        Signal(channel="rows", score=1.0, over=False),
    )
    lines = [line.rstrip() for line in drawn(draw_check(result(feature(), signals=signals))).splitlines()]
    assert lines[4:6] == [
        "over  pairs in the last 1h, score 8: a with b 0.1 -> [red]0.9",
        "over  together, score 7.5",
    ]
    assert not any("rows, score" in line or "features, score" in line for line in lines)


def test_a_narrow_terminal_gets_fewer_columns_and_whole_words() -> None:
    lines = drawn(draw_features([feature()]), width=80).splitlines()
    assert lines[0].split() == ["feature", "score", "limit", "nulls", "what", "moved"]
    assert lines[1].split()[:5] == ["distance", "drift", "0.5", "0.05", "12.5%"]


def test_bars_have_the_length_of_their_shares() -> None:
    lines = drawn(draw_histogram(feature())).splitlines()
    low = next(line for line in lines if "0 .. 500" in line)
    assert low.count("█") == 24 + 8  # the longest bar is 24 wide: 75% against 25%
    assert "75.0%" in low
    assert "25.0%" in low


def test_a_feature_without_a_histogram_has_its_name_and_effect() -> None:
    text = drawn(draw_histogram(feature(histogram=None, effect="median 812 -> 1307")))
    assert text.split() == ["distance", "median", "812", "->", "1307"]


def test_an_empty_side_draws_no_bar() -> None:
    empty = Histogram(labels=("a",), reference=(1.0,), current=(0.0,))
    assert drawn(draw_histogram(feature(histogram=empty))).count("█") == 24
    nothing = Histogram(labels=("a",), reference=(0.0,), current=(0.0,))
    assert "█" not in drawn(draw_histogram(feature(histogram=nothing)))


def test_names_from_outside_are_text() -> None:
    hostile = "[red]x[/red]\x1b[31m\n</script>\u202e"
    labels = Histogram(labels=(hostile,), reference=(1.0,), current=(1.0,))
    quality = QualityResult(check="unseen", feature=hostile, failed=True, message=hostile)
    text = drawn(
        draw_check(result(feature(hostile, histogram=labels, effect=hostile), quality=(quality,), reason=hostile))
    )
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_many_features_are_cut_unless_all_are_wanted() -> None:
    many = result(*(feature(f"f{i}") for i in range(30)))
    short, full = drawn(draw_check(many)), drawn(draw_check(many, everything=True))
    assert "and 10 more features (-v shows them)\n" in short
    assert "f29" not in short
    assert "f29" in full
    assert (short.count("0 .. 500"), full.count("0 .. 500")) == (3, 30)


def test_how_many_features_were_not_judged_is_said_where_not_all_are_shown() -> None:
    judged = [feature(f"f{i}") for i in range(21)]
    missed = [feature(f"g{i}", score=None, threshold=None, reason="too few rows") for i in range(4)]
    text = drawn(draw_check(result(*judged, *missed)))
    assert "and 5 more features (-v shows them); 4 of all 25 were not judged" in text


def test_a_failed_run_has_no_promise() -> None:
    text = drawn(draw_check(result(verdict=Outcome.CANNOT_JUDGE, promise="none: nothing was judged")))
    assert "no promise: nothing was judged" in text
    assert "none:" not in text


def test_failed_expectations_are_shown_and_all_when_wanted() -> None:
    quality = (
        QualityResult(check="null_rate", feature="distance", failed=True, message="distance: 31% are null"),
        QualityResult(check="volume", failed=False, message="912 rows"),
    )
    broken = result(quality=quality, verdict=Outcome.BROKEN)
    assert "null_rate: distance: 31% are null" in drawn(draw_check(broken))
    assert "volume" not in drawn(draw_check(broken))
    assert "volume: 912 rows" in drawn(draw_check(broken, everything=True))


def test_every_verdict_can_be_drawn() -> None:
    for outcome in Outcome:
        assert drawn(draw_check(result(verdict=outcome, reference=None))).startswith(outcome.value)
