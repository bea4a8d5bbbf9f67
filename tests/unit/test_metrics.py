"""What Prometheus gets: the catalogue, the projection of a store, hostile names, budgets, formats."""

import gzip
import math
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from drift_monitor.config.models import Config
from drift_monitor.core.retraining import Retraining, State, Weights
from drift_monitor.core.types import (
    CheckResult,
    Comparison,
    Episode,
    FailureReason,
    FeatureResult,
    Outcome,
    QualityResult,
    ReferenceId,
    Window,
)
from drift_monitor.service.metrics import KNOWN_LABELS, METRICS, PREFIX, Exposition
from drift_monitor.service.projection import View, clean, fair_shares, longest_interval, project, unique
from drift_monitor.service.store import Snapshot, Store

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
END = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOSTILE = ["a\nb", "a\ud800b", 'quote" back\\slash', "</script>", "a\x00b", "x" * 500, "é 漢字", ""]


def config(*names, retrain=None, **sections):
    monitors = {
        name: {
            "reference": "r",
            "source": {"path": "p"},
            "schedule": {"every": "1h"},
            "model": {"name": "delay", "version": "3", "owner": "ops\nml"},
            "notify": ["hook"],
            "retrain": retrain,
        }
        for name in names
    }
    receivers = {"hook": {"type": "webhook", "url": "http://127.0.0.1:1/", "secret_file": "s"}}
    return Config.model_validate({"monitors": monitors, "receivers": receivers, **sections}, strict=False)


def feature(name, *, drifted=False, **values):
    return FeatureResult(
        name=name,
        kind="numeric",
        drifted=drifted,
        **{"method": "ks", "score": 0.4, "threshold": 0.2, "null_ratio": 0.01, **values},
    )


def result(monitor="m", verdict=Outcome.OK, end=END, **values):
    defaults = {"rows": 100, "reason": "r", "promise": "p", "score": 0.5, "threshold": 1.0, "newest_event": end}
    window = Window(start=end - timedelta(days=1), end=end)
    return CheckResult(monitor=monitor, window=window, verdict=verdict, **(defaults | values))


def snapshot(**parts):
    names = ("latest", "latest_judged", "finished", "succeeded", "counters", "histograms", "outbox")
    empty = {name: {} for name in names}
    return Snapshot(**({"open_episodes": ()} | empty | parts))


def view(snapshot, config, **more):
    return View(
        **{
            "config": config,
            "snapshot": snapshot,
            "reload_ok": True,
            "reloaded": NOW,
            "scheduler_running": True,
            **more,
        }
    )


def scrape(view, accept=""):
    exposition = Exposition()
    exposition.update(project(view))
    return exposition.render(accept, compressed=False)[0].decode()


def samples(text, parse=parse_text):
    return {
        (s.name.removeprefix(PREFIX), tuple(sorted(s.labels.items()))): s.value
        for family in parse(text)
        for s in family.samples
    }


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


@pytest.fixture
def judged():
    """A view of a monitor with everything that can be told about it."""
    drift = result(
        verdict=Outcome.DRIFT,
        score=2.0,
        features=(feature("age", drifted=True, out_of_range_ratio=0.1, new_category_ratio=0.2), feature("x")),
        quality=(QualityResult(check="null_rate", failed=True, message="m"),),
        reference=ReferenceId(version="v1", sha256="ab", rows=5, created=NOW),
        duplicate_rows=3,
        promise_basis="extrapolated",
        false_alerts_per_month=0.5,
        seconds={"source": 1.5, "judge": 0.5},
        previous=Comparison(reference=None, verdict=Outcome.OK, reason="r", score=0.4, threshold=0.9),
    )
    episode = Episode(
        id="e",
        monitor="m",
        lane="drift",
        opened=END,
        updated=END,
        reminded=END,
        worst=2,
        features=("age",),
        held={"rows": "too few"},
    )
    retraining = Retraining(
        id="ab",
        monitor="m",
        episode="e",
        opened=END,
        window=drift.window,
        reason="r",
        receiver="hook",
        mode="propose",
        state=State.WITHHELD,
        created=NOW,
        changed=NOW,
        labelled=0.25,
        weights=Weights(path="w", rows=9, sha256="s", effective_sample_size=4.5, adopt=True, why="y"),
    )
    found = snapshot(
        latest={"m": drift},
        latest_judged={"m": drift},
        finished={"m": NOW},
        succeeded={"m": NOW},
        open_episodes=(episode,),
        counters={
            ("runs_total", (("monitor", "m"),)): 7,
            ("runs_total", (("monitor", "gone"),)): 9,
            ("run_failures_total", (("monitor", "m"), ("reason", "source"))): 2,
            ("webhook_requests_total", (("receiver", "hook"),)): 4,
        },
        histograms={
            ("run_duration_seconds", (("monitor", "m"), ("phase", "judge"))): ((0.1, 1.0), (1, 2, 1), 3.5)
        },
        outbox={
            ("hook", "pending"): (2, NOW),
            ("hook", "dead"): (1, NOW),
            ("old", "pending"): (1, NOW),
            ("removed", "dead"): (2, NOW),
        },
        last_delivery={"hook": NOW},
        retrainings={"m": retraining},
    )
    return view(
        found,
        config("m", retrain={"receiver": "hook", "labels": 0}),
        next_runs={"m": END + timedelta(hours=1)},
        due={"m": 3},
        running={"m": 1},
        loaded={("m", "ab"): NOW},
    )


def test_a_judged_monitor(judged):
    found = samples(scrape(judged))
    expected = {
        "drift_score": 2.0, "drift_score_threshold": 1.0, "drift_detected": 1, "features": 2,
        "features_drifted": 1,
        "data_quality_failed": 1, "window_rows": 100, "window_duplicate_rows": 3, "window_invalid_rows": 0,
        "false_alerts_per_month_target": 0.5,
        "window_end_timestamp_seconds": END.timestamp(), "newest_event_timestamp_seconds": END.timestamp(),
        "run_interval_seconds": 3600, "run_last_duration_seconds": 2.0, "runs_total": 7, "runs_due": 3,
        "runs_in_progress": 1, "reference_rows": 5, "reference_loaded_timestamp_seconds": NOW.timestamp(),
        "scheduler_next_run_timestamp_seconds": END.timestamp() + 3600, "runs_missed_total": 0,
        "run_last_success_timestamp_seconds": NOW.timestamp(),
    }  # fmt: skip
    assert {name: value(found, name, monitor="m") for name in expected} == expected
    assert value(found, "feature_drift_score", monitor="m", feature="age", method="ks") == 0.4
    assert value(found, "feature_drift_score_threshold", monitor="m", feature="age", method="ks") == 0.2
    assert value(found, "feature_new_category_ratio", monitor="m", feature="age") == 0.2
    assert ("feature_new_category_ratio", (("feature", "x"), ("monitor", "m"))) not in found
    assert value(found, "episode_open", monitor="m", lane="drift") == 1
    assert value(found, "episode_open", monitor="m", lane="quality") == 0
    assert value(found, "monitor_info", monitor="m", model="delay", model_version="3", owner="ops\ufffdml") == 1
    assert value(found, "reference_info", monitor="m", version="v1", sha256="ab") == 1
    assert value(found, "promise_info", monitor="m", basis="extrapolated") == 1


def test_a_monitor_without_a_promise_has_no_number_for_it():
    found = samples(scrape(view(snapshot(latest_judged={"m": result()}), config("m"))))
    assert value(found, "promise_info", monitor="m", basis="none") == 1
    assert not any(name == "false_alerts_per_month_target" for name, _ in found)


def test_delivery(judged):
    found = samples(scrape(judged))
    assert value(found, "outbox_messages", receiver="hook") == 2
    assert value(found, "outbox_messages", receiver="old") == 1  # not configured any more, but something waits
    assert value(found, "webhook_requests_total", receiver="hook") == 4
    assert value(found, "outbox_dead_letters_total", receiver="hook") == 0
    assert value(found, "outbox_dead_messages", receiver="hook") == 1
    assert value(found, "outbox_dead_messages", receiver="old") == 0
    assert value(found, "outbox_dead_messages", receiver="removed") == 2  # not forgotten with the receiver
    assert value(found, "webhook_last_success_timestamp_seconds", receiver="hook") == NOW.timestamp()


def test_a_histogram_is_cumulative(judged):
    found = samples(scrape(judged))
    of = {"monitor": "m", "phase": "judge"}
    buckets = {le: value(found, "run_duration_seconds_bucket", le=le, **of) for le in ("0.1", "1.0", "+Inf")}
    assert buckets == {"0.1": 1, "1.0": 3, "+Inf": 4}
    assert value(found, "run_duration_seconds_count", **of) == 4
    assert value(found, "run_duration_seconds_sum", **of) == 3.5


def test_counters_start_at_0_for_every_known_label():
    found = samples(scrape(view(snapshot(), config("m"))))
    for reason in FailureReason:
        assert value(found, "run_failures_total", monitor="m", reason=reason.value) == 0
    for name, labels in KNOWN_LABELS.items():
        [(label, values)] = labels.items()
        assert {dict(key)[label] for n, key in found if n == name} == set(values)
    assert ("drift_score", (("monitor", "m"),)) not in found  # nothing is known, so nothing is said


def test_what_is_configured_no_more_is_not_exported(judged):
    assert 'monitor="gone"' not in scrape(judged)


def test_a_disabled_monitor_is_not_exported(judged):
    """An alert about its age would fire for ever, and nothing runs that could end it."""
    off = config("m", "n")
    disabled = off.monitors["m"].model_copy(update={"enabled": False})
    off = off.model_copy(update={"monitors": off.monitors | {"m": disabled}})
    names = {dict(labels).get("monitor") for _, labels in samples(scrape(replace(judged, config=off)))}
    assert names == {None, "n"}


def test_a_failed_run_leaves_the_last_judgement_and_the_last_window_read():
    good = result(features=(feature("x", drifted=True),), verdict=Outcome.DRIFT)
    failed = result(
        end=END + timedelta(hours=1),
        verdict=Outcome.CANNOT_JUDGE,
        failure=FailureReason.SOURCE,
        rows=0,
        score=None,
    )
    found = samples(scrape(view(snapshot(latest={"m": failed}, latest_judged={"m": good}), config("m"))))
    assert value(found, "window_rows", monitor="m") == 100
    assert value(found, "drift_detected", monitor="m") == 1


def test_an_empty_window_is_the_last_window_read():
    empty = result(end=END + timedelta(hours=1), verdict=Outcome.NO_DATA, rows=0, score=None, newest_event=None)
    found = samples(scrape(view(snapshot(latest={"m": empty}, latest_judged={"m": result()}), config("m"))))
    assert value(found, "window_rows", monitor="m") == 0
    assert value(found, "window_end_timestamp_seconds", monitor="m") == (END + timedelta(hours=1)).timestamp()


def test_hostile_names_stay_apart_and_the_scrape_stays_whole():
    names = [name for name in HOSTILE if not re.search("[\ud800-\udfff]", name)]  # results travel as JSON
    of_many = result(features=tuple(feature(name) for name in names))
    text = scrape(view(snapshot(latest={"m": of_many}, latest_judged={"m": of_many}), config("m")))
    found = {dict(labels)["feature"] for name, labels in samples(text) if name == "feature_null_ratio"}
    assert len(found) == len(names)
    assert all("\x00" not in name and "\n" not in name for name in found)


@given(st.lists(st.text(st.characters(codec=None), max_size=6), unique=True, max_size=20))
def test_clean_names_are_as_many_and_encode(names):
    labels = unique(names)
    assert len(set(labels.values())) == len(names)
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "".join(labels.values()))


def test_long_names_are_cut():
    assert len(clean("x" * 500)) == 200


@pytest.mark.parametrize(
    ("metrics", "exported", "suppressed"),
    [
        ({"features": "all"}, {"a": 10, "b": 2}, 0),
        ({"features": "none"}, {}, 0),
        ({"features": "drifted"}, {"a": 3, "b": 1}, 0),
        ({"features": "top_k", "top_k": 1}, {"a": 1, "b": 1}, 0),
        ({"features": "all", "max_series": 24}, {"a": 4, "b": 2}, 6 * 4),
        ({"features": "all", "max_series": 23}, {"a": 3, "b": 2}, 7 * 4),
        ({"features": "all", "max_series": 0}, {}, 12 * 4),
    ],
)
def test_the_budget_is_shared_and_the_cut_is_told(metrics, exported, suppressed):
    of = {
        name: result(name, features=tuple(feature(f"f{i}", drifted=i < drifted) for i in range(n)))
        for name, n, drifted in (("a", 10, 3), ("b", 2, 1))
    }
    found = samples(scrape(view(snapshot(latest=of, latest_judged=of), config("a", "b", metrics=metrics))))
    counts = Counter(dict(labels)["monitor"] for name, labels in found if name == "feature_drift_detected")
    assert counts == exported
    assert value(found, "metrics_suppressed_series") == suppressed
    assert {dict(k)["feature"] for n, k in found if n == "feature_null_ratio" and dict(k)["monitor"] == "a"} == {
        f"f{i}" for i in range(exported.get("a", 0))
    }  # the most drifted come first


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_fair_shares(demands, budget):
    shares = fair_shares(demands, budget)
    assert shares.keys() == demands.keys()
    assert all(0 <= shares[k] <= demands[k] for k in demands)
    assert sum(shares.values()) == min(budget, sum(demands.values())) or sum(demands.values()) > budget
    assert sum(shares.values()) <= budget
    for k in demands:  # who got less than asked got at least as much as anybody, but for rounding
        if shares[k] < demands[k]:
            assert all(shares[k] >= shares[other] - 1 for other in demands)


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ({"every": "90s"}, 90),
        ({"cron": "5 * * * *"}, 3600),
        ({"cron": "0 6 * * mon-fri"}, 3 * 86400),
        ({"cron": "0 0 1 * *"}, 31 * 86400),
        ({"cron": "0 0 30 2 *"}, 0),
    ],
)
def test_the_longest_interval(schedule, seconds):
    [monitor] = config("m").model_copy(deep=True).monitors.values()
    schedule = type(monitor.schedule).model_validate(schedule, strict=False)
    assert longest_interval(schedule).total_seconds() == seconds


def test_the_loop_is_seen(judged):
    found = samples(scrape(judged))
    assert value(found, "retraining_state", monitor="m", state="withheld") == 1
    assert value(found, "retraining_state", monitor="m", state="proposed") == 0
    assert value(found, "retraining_held", monitor="m", guard_rail="rows") == 1
    assert value(found, "retraining_held", monitor="m", guard_rail="quality") == 0
    assert value(found, "training_weights_effective_rows", monitor="m") == 4.5
    assert value(found, "live_labelled_ratio", monitor="m") == 0.25
    assert value(found, "previous_reference_drift_score", monitor="m") == 0.4
    assert value(found, "retrainings_total", monitor="m", state="failed") == 0


def test_every_sample_is_in_the_catalogue_and_every_metric_is_used(judged):
    series = project(judged)
    assert {spec.name for spec in METRICS} >= series.keys()
    without_samples = {spec.name for spec in METRICS} - {name for name, found in series.items() if found}
    assert without_samples == {"webhook_request_duration_seconds"}
    for spec in METRICS:
        assert all(len(labels) == len(spec.labels) for labels, _ in series[spec.name])
        assert spec.name.endswith("_total") == (spec.type == "counter")
        assert spec.help.endswith(".")


def test_both_formats_say_the_same(judged):
    exposition = Exposition()
    exposition.update(project(judged))
    text, text_type = exposition.render("text/plain", compressed=False)
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
    openmetrics, openmetrics_type = exposition.render(prometheus, compressed=False)
    assert text_type == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")
    assert openmetrics.count(b"# EOF") == 1
    ours = {k: v for k, v in samples(text.decode()).items() if not k[0].startswith("process_")}
    theirs = samples(openmetrics.decode(), parse_openmetrics)
    assert {k: v for k, v in theirs.items() if not k[0].startswith("process_")} == ours
    assert ("process_resident_memory_bytes", ()) in theirs


def test_compressed_is_the_same(judged):
    exposition = Exposition()
    exposition.update(project(judged))
    body, _ = exposition.render("", compressed=True)
    plain, _ = exposition.render("", compressed=False)
    ours = [
        [line for line in b.splitlines() if not line.startswith(b"process_")]
        for b in (gzip.decompress(body), plain)
    ]
    assert ours[0] == ours[1]


def test_it_is_rendered_once_and_again_after_an_update(judged):
    exposition = Exposition()
    assert b'runs_total{monitor="m"}' not in exposition.render("", compressed=False)[0]
    exposition.update(project(judged))
    first = exposition._bodies[False]
    exposition.render("", compressed=False)
    assert exposition._bodies[False] is first
    exposition.update(project(judged))
    assert exposition._bodies[False] == first
    assert exposition._bodies[False] is not first


def test_a_store_and_its_metrics(tmp_path):
    store = Store.open(tmp_path)
    try:
        window = result().window
        store.enqueue("m", [window])
        [run] = store.due()
        store.start(run.id, NOW)
        done = result(features=(feature("x"),), seconds={"judge": 0.2})
        store.finish(
            run.id, done, now=NOW, observations=[("run_duration_seconds", {"monitor": "m", "phase": "judge"}, 0.2)]
        )
        found = samples(scrape(view(store.snapshot(), config("m"))))
    finally:
        store.close()
    assert value(found, "runs_total", monitor="m") == 1
    assert value(found, "rows_processed_total", monitor="m") == 100
    assert value(found, "run_duration_seconds_bucket", monitor="m", phase="judge", le="0.25") == 1
    assert value(found, "run_last_success_timestamp_seconds", monitor="m") == NOW.timestamp()
    assert not any(math.isnan(v) for v in found.values())


@pytest.mark.server
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(judged):
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(judged), capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
