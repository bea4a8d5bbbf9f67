"""The benchmarks run, and print one JSON object. What they measure is for their readers, not for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.slow
takes_minutes = pytest.mark.skipif(
    "DRIFT_MONITOR_BENCHMARKS" not in os.environ, reason="takes minutes: make test-benchmarks"
)


def figures(script: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@takes_minutes
def test_check_cost_measures_the_check_beside_the_read() -> None:
    found = figures("check_cost.py", "--without-evidently", "--rounds", "1")
    assert {"read", "check, 1000 edges"} <= set(found["costs"]["100000"])


@takes_minutes
def test_engines_come_to_the_same_result() -> None:
    found = figures("engines.py", "--rounds", "1")  # which ends with an error where they do not
    assert {"threads: 1 (embedded)", "threads: 2"} <= set(found["engines"])


@takes_minutes
def test_the_idle_daemon_holds_no_numeric_library() -> None:
    found = figures("idle.py")
    assert found["libraries"] == []
    assert set(found["verdicts"]) == {"ok"}


def test_every_bracket_of_the_short_run_holds_scipys_value() -> None:
    found = figures("exactness.py")
    assert found["failures"] == []
    for name in ("ks", "wasserstein"):
        row = found["statistics"][name]
        assert row["cases"] == 200
        assert row["contained"] == row["answered"] > 100
        assert row["brackets"] > 20


def test_false_alarms_are_counted_in_both_lanes_and_beside_the_usual_rules() -> None:
    found = figures("false_alarms.py")["cells"]
    assert set(found["10/seasonal/4"]["basis"]) == {"extrapolated"}
    row = found["10/seasonal/8"]
    assert row["basis"] == {"calibrated": row["universes"]}
    assert row["rank"] == 1
    for lane in ("drift", "quality"):
        assert row[lane]["low"] <= row[lane]["episodes"] <= row[lane]["high"]
    # days that differ by the hour and the day are more than chance, which is all that a p-value knows of
    assert row["drift"]["alarm_days"] < 5 < 20 < row["rivals"]["ks_bonferroni"]["alarm_days"]


def test_the_combined_score_sees_what_each_single_statistic_sees() -> None:
    found = figures("power.py")
    one, many = found["one_feature"], found["many_features"]
    assert one["mean +.1 sd"]["combined"] > 0.9
    assert one["1% -> constant"]["combined"] > 0.5 > one["1% -> constant"]["ks"]
    assert one["2% of rows x4"]["combined"] > 0.9 > 0.5 > one["2% of rows x4"]["anderson_darling"]
    assert one["mean +.05 sd"]["matters"] == 0
    assert many["mean .3 in one"]["combined"] == many["corr .6->.2"]["combined"] == 1
    assert len(many) == 5


@takes_minutes
def test_calibration_check_and_backtest_are_measured() -> None:
    found = figures("calibration.py")
    assert set(found["costs"]) == {
        "reference build, calibrated",
        "calibrate",
        "check of a day",
        "backtest of a week",
    }


@takes_minutes
def test_flights_find_the_plain_faults_and_are_quiet_where_the_usual_rules_are_not() -> None:
    found = figures("flights.py")
    quiet = found["none"]
    assert set(quiet["basis"]) == {"calibrated"}
    assert quiet["lanes"]["drift"]["alarm_days"] < 2 < 20 < quiet["rivals"]["ks_bonferroni"]["alarm_days"]
    assert found["faults"]["km"]["drift"] > 0.98
    assert found["faults"]["rename"]["quality"] > 0.95
    assert found["goals"] == {}  # two references prove nothing


@takes_minutes
def test_a_refreshed_training_set_has_the_same_bytes_in_any_order() -> None:
    assert figures("refresh.py")["goals"] == {"the same bytes in any order": True}


@takes_minutes
def test_a_cached_scrape_is_cheap_and_the_cut_keeps_to_the_budget() -> None:
    found = figures("scrape.py")
    rows = found["scrapes"]
    beside = {name: row["samples"] for name, row in rows.items()}
    per_feature = 10 * 50 * 4
    assert beside["naive, at each scrape"] == per_feature
    assert beside["all series"] - beside["features: none"] == per_feature
    assert beside["default budget"] - beside["features: none"] == 480  # whole features of 4, in fair shares of 50
    assert beside["one monitor's page"] == 50 * (4 + 6 + 6)
    assert rows["all series"]["gzip"] < rows["all series"]["bytes"] / 5


@takes_minutes
def test_weights_win_back_what_a_shift_cost_a_rigid_learner_and_cost_a_flexible_one_nothing() -> None:
    found = figures("reweighting.py")
    (row,) = found["simulated"]
    assert row["moved"] == 1
    assert row["linear"]["recovery"] > 0.9
    assert row["linear"]["adopted"] == 1
    assert row["boosting"]["gated"] == 0
    assert {each["learner"] for each in found["real"]} == {"linear", "tree", "boosting"}
    wine = [each for each in found["real"] if each["data"].startswith("wine")]
    assert all(each["refused"] == 1 and each["used"] == 0 for each in wine)  # 89 rows are too few


@takes_minutes
def test_every_row_of_the_short_run_gets_a_weight() -> None:
    found = figures("weights_scale.py")
    assert set(found["costs"]) == set(found["weights"])
    assert {each["rows"] for each in found["weights"].values()} == {1000, 10_000}
    for each in found["weights"].values():
        assert each["difference_after"] < each["difference_before"]


@takes_minutes
def test_segments_are_measured_and_find_what_the_whole_does_not() -> None:
    found = figures("segments.py", "--rounds", "1")
    assert set(found["costs"]) == {"whole", "segments"}
    whole, segments = found["figures"]["whole"], found["figures"]["segments"]
    assert segments["features"] == 7 + 10 * 6
    assert segments["drifting days found"] > whole["drifting days found"]


@takes_minutes
def test_a_sliding_window_reads_each_row_once() -> None:
    found = figures("incremental.py")
    assert found["goals"] == {"each row read once": True}
    assert found["weeks"]["rows in windows"] == 24 * 50 * found["weeks"]["windows"]
    assert found["weeks"]["rows read, directly, in a day"] == 24 * 24 * 50


@takes_minutes
def test_a_backlog_keeps_no_other_monitor_waiting() -> None:
    found = figures("many_monitors.py")
    assert found["windows judged"] == 2 * (found["monitors"] - 1) + 10
    assert found["goals"]["no monitor has a turn more than one that waits"]


@takes_minutes
def test_every_pushed_row_that_was_acknowledged_is_kept_once() -> None:
    found = figures("push.py")["push"]
    for row in found.values():
        assert row["rows"] == row["kept"] > 0
    assert set(found["flood: arrow, 20000 rows"]["answers"]) == {"202", "429"}
