"""What Prometheus gets: the catalogue, the projection of a store, hostile names, budgets, formats."""

import gzip
import math
import re
import shutil
import subprocess
import zlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from drift_monitor.config.daemon import Metrics
from drift_monitor.config.models import Config
from drift_monitor.core.retraining import Retraining, State, Weights
from drift_monitor.core.types import (
    CheckResult,
    Comparison,
    Episode,
    FailureReason,
    FeatureResult,
    Loss,
    Outcome,
    Performance,
    QualityResult,
    ReferenceId,
    StatResult,
    Window,
)
from drift_monitor.service import counters
from drift_monitor.service import revision as revisions
from drift_monitor.service.exposition import Compressed, Exemplar, Spec, render
from drift_monitor.service.feature_series import FeatureSeries, all_of, clean, fair_shares, unique
from drift_monitor.service.intake import Figures
from drift_monitor.service.metrics import FEATURE_METRICS, KNOWN_LABELS, METRICS, PREFIX, Exposition
from drift_monitor.service.projection import View, exemplars, longest_interval, project
from drift_monitor.service.snapshot import Snapshot
from drift_monitor.service.store import Store

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
END = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOSTILE = ["a\nb", "a\ud800b", 'quote" back\\slash', "</script>", "a\x00b", "x" * 500, "é 漢字", ""]


def config(*names, retrain=None, source=None, **sections):
    monitors = {
        name: {
            "reference": "r",
            "source": source or {"path": "p"},
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


def drawn(view, read=lambda run: None):
    return project(view, FeatureSeries(read))


def exposed(view, read=lambda run: None):
    exposition = Exposition()
    exposition.update(drawn(view, read), exemplars(view))
    return exposition


def scrape(view, accept="", read=lambda run: None):
    return exposed(view, read).render(accept, compressed=False)[0].decode()


def samples(text, parse=parse_text):
    """By name and labels, without the segment where it is empty, which to Prometheus is none."""
    return {
        (s.name.removeprefix(PREFIX), tuple(sorted(s.labels.items() - {("segment", "")}))): s.value
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
        sample=25.0,
        promise_basis="extrapolated",
        false_alerts_per_month=0.5,
        seconds={"source": 1.5, "judge": 0.5},
        previous=Comparison(reference=None, verdict=Outcome.OK, reason="r", score=0.4, threshold=0.9),
        performance=Performance(
            window=Window(start=END - timedelta(days=1), end=END),
            rows=9,
            labelled=6,
            scored=6,
            losses=(Loss(metric="log_loss", value=0.6, standard_error=0.1, reference=0.5),),
        ),
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
        judged_runs={"m": 5},
    )
    return view(
        found,
        config("m", retrain={"receiver": "hook", "labels": 0}, source={"type": "push", "timestamp": "t"}),
        next_runs={"m": END + timedelta(hours=1)},
        due={"m": 3},
        running={"m": 1},
        loaded={("m", "ab"): NOW},
        intake={"m": Figures(waiting=2, files=3, bytes=400, newest=NOW.timestamp(), lag={"0": 7})},
        intake_waiting=1,
    )


def test_a_judged_monitor(judged):
    found = samples(scrape(judged))
    expected = {
        "drift_score": 2.0, "drift_score_threshold": 1.0, "drift_detected": 1, "features": 2,
        "features_drifted": 1,
        "data_quality_failed": 1, "window_rows": 100, "window_duplicate_rows": 3, "window_invalid_rows": 0,
        "window_sample_ratio": 0.25,
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
    found = samples(scrape(view(snapshot(), config("m", source={"type": "push", "timestamp": "t"}))))
    for reason in FailureReason:
        assert value(found, "run_failures_total", monitor="m", reason=reason.value) == 0
    for name, labels in KNOWN_LABELS.items():
        [(label, values)] = labels.items()
        assert {dict(key)[label] for n, key in found if n == name} == set(values)
    assert ("drift_score", (("monitor", "m"),)) not in found  # nothing is known, so nothing is said


def test_a_monitor_that_takes_rows(judged):
    found = samples(scrape(judged))
    expected = {"intake_rows_total": 0, "intake_events_waiting": 2, "spool_files": 3, "spool_bytes": 400}
    assert {name: value(found, name, monitor="m") for name in expected} == expected
    assert value(found, "kafka_lag_messages", monitor="m", partition="0") == 7
    assert value(found, "intake_last_rows_timestamp_seconds", monitor="m") == NOW.timestamp()
    assert value(found, "intake_requests_waiting") == 1


def test_a_monitor_of_files_has_no_series_of_an_intake():
    text = scrape(view(snapshot(), config("m")))
    assert 'drift_monitor_intake_rows_total{monitor="m"}' not in text
    assert 'drift_monitor_runs_total{monitor="m"}' in text


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
    config = judged.config.model_copy(update={"metrics": Metrics(detail=("quality", "p_values", "statistics"))})
    whole = whole_result(judged.snapshot.latest_judged["m"])
    series = drawn(replace(judged, config=config), lambda run: whole)
    assert {spec.name for spec in METRICS} >= series.keys()
    without_samples = {spec.name for spec in METRICS} - {name for name, found in series.items() if found}
    assert without_samples == {"webhook_request_duration_seconds"}
    for spec in METRICS:
        assert all(len(labels) == len(spec.labels) for labels, _ in series[spec.name])
        assert spec.name.endswith("_total") == (spec.type == "counter")
        assert spec.help.endswith(".")
        assert not set(spec.help) & set('\\"\n')  # which the formats would escape, each in its own way


def test_both_formats_say_the_same(judged):
    exposition = exposed(judged)
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
    exposition = exposed(judged)
    body, _ = exposition.render("", compressed=True)
    plain, _ = exposition.render("", compressed=False)
    ours = [
        [line for line in b.splitlines() if not line.startswith(b"process_")]
        for b in (gzip.decompress(body), plain)
    ]
    assert ours[0] == ours[1]


def test_it_is_rendered_once_and_again_after_an_update(judged):
    exposition, features = Exposition(), FeatureSeries(lambda run: None)
    assert b'runs_total{monitor="m"}' not in exposition.render("", compressed=False)[0]
    exposition.update(project(judged, features), {})
    first = exposition._pages[False]
    assert b'runs_total{monitor="m"}' in exposition.render("", compressed=False)[0]
    assert exposition._pages[False] is first
    exposition.update(project(judged, features), {})
    assert exposition._pages[False] is not first
    assert gzip.decompress(exposition._pages[False].whole()) == gzip.decompress(first.whole())


def test_features_are_rendered_again_when_a_window_was_judged_and_at_no_other_time(judged):
    exposition, features = Exposition(), FeatureSeries(lambda run: None)
    exposition.render("", compressed=False)

    def update(view):
        exposition.update(project(view, features), {})
        return exposition._features[False]

    first = update(judged)
    assert update(replace(judged, due={"m": 9})) is first
    assert b'drift_monitor_runs_due{monitor="m"} 9' in exposition.render("", compressed=False)[0]
    again = judged.snapshot.latest_judged["m"].model_copy(update={"features": (feature("new"),)})
    later = update(replace(judged, snapshot=replace(judged.snapshot, latest_judged={"m": again})))
    assert later is not first
    text = exposition.render("", compressed=False)[0]
    assert b'feature="new"' in text
    assert b'feature="age"' not in text  # what is gone is not exported
    quiet = replace(judged, config=judged.config.model_copy(update={"metrics": Metrics(features="none")}))
    update(quiet)
    assert b"feature=" not in exposition.render("", compressed=False)[0]


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
        seen = view(store.snapshot(), config("m"))
        found = samples(scrape(seen))
        text = scrape(seen, "application/openmetrics-text")
        assert store.judged_run("m") == (run.id, 0)
        assert store.judged_run("other") is None
    finally:
        store.close()
    assert value(found, "runs_total", monitor="m") == 1
    assert value(found, "rows_processed_total", monitor="m") == 100
    assert value(found, "run_duration_seconds_bucket", monitor="m", phase="judge", le="0.25") == 1
    assert value(found, "run_last_success_timestamp_seconds", monitor="m") == NOW.timestamp()
    assert not any(math.isnan(v) for v in found.values())
    named = {
        (s.name.removeprefix(PREFIX), s.labels.get("le", "")): s.exemplar
        for family in parse_openmetrics(text)
        for s in family.samples
        if s.exemplar is not None
    }
    assert {where: (dict(e.labels), e.value, float(e.timestamp)) for where, e in named.items()} == {
        ("runs_total", ""): ({"run_id": str(run.id)}, 1, NOW.timestamp()),
        ("rows_processed_total", ""): ({"run_id": str(run.id)}, 100, NOW.timestamp()),
        ("run_duration_seconds_bucket", "0.25"): ({"run_id": str(run.id)}, 0.2, NOW.timestamp()),
    }


@pytest.mark.server
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("page", ["main", "features"])
def test_promtool_finds_nothing_to_say(judged, page):
    whole = whole_result(judged.snapshot.latest_judged["m"])
    everything = judged.config.model_copy(
        update={"metrics": Metrics(detail=("quality", "p_values", "statistics"))}
    )
    text = scrape(replace(judged, config=everything), read=lambda run: whole)
    assert all(f"\n{PREFIX}{spec.name}" in text for spec in FEATURE_METRICS)
    if page == "features":
        text = render(FEATURE_METRICS, all_of("m", whole), {}, openmetrics=False).decode()
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


# -- the formats, beside the client library's own rendering -------------------------------------------

GAUGE = Spec("g", "gauge", "A gauge.", ("a", "b"))
COUNTER = Spec("c_total", "counter", "A counter.", ("a",))
HISTOGRAM = Spec("h_seconds", "histogram", "A histogram.", ("a",))
PLAIN = Spec("plain", "gauge", "Without labels.")
VALUES = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(["\\", '"', "\n", "\\n", "%s", "{}"])


@given(
    st.dictionaries(st.tuples(TEXTS, TEXTS), VALUES, max_size=3),
    st.dictionaries(st.tuples(TEXTS), st.floats(0, allow_nan=False), max_size=3),
    st.dictionaries(st.tuples(TEXTS), st.lists(st.integers(0, 10**6), min_size=3, max_size=3), max_size=3),
    st.booleans(),
)
def test_the_text_says_what_the_client_librarys_says(gauges, counters, histograms, openmetrics):
    series = {
        "g": list(gauges.items()),
        "c_total": list(counters.items()),
        "h_seconds": [(labels, ((0.5, 1), tuple(counts), 2.5)) for labels, counts in histograms.items()],
        "plain": [((), 3)],
    }
    text = render((GAUGE, COUNTER, HISTOGRAM, PLAIN), series, {}, openmetrics=openmetrics).decode()

    gauge = GaugeMetricFamily(PREFIX + "g", GAUGE.help, labels=GAUGE.labels)
    for labels, number in gauges.items():
        gauge.add_metric(labels, number)
    counter = CounterMetricFamily(PREFIX + "c", COUNTER.help, labels=COUNTER.labels)
    for labels, number in counters.items():
        counter.add_metric(labels, number)
    histogram = HistogramMetricFamily(PREFIX + "h_seconds", HISTOGRAM.help, labels=HISTOGRAM.labels)
    for labels, (a, b, c) in histograms.items():
        histogram.add_metric(labels, [("0.5", a), ("1.0", a + b), ("+Inf", a + b + c)], 2.5)
    plain = GaugeMetricFamily(PREFIX + "plain", PLAIN.help, value=3)

    class Theirs:
        def collect(self):
            return [gauge, counter, histogram, plain]

    their_text = (generate_openmetrics if openmetrics else generate_latest)(Theirs()).decode()
    their_text = their_text.removesuffix("# EOF\n")
    parse = parse_openmetrics if openmetrics else parse_text
    end = "# EOF\n" if openmetrics else ""
    assert samples(text + end, parse) == samples(their_text + end, parse)
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    assert comments == [line for line in their_text.splitlines() if line.startswith("# ")]


def test_numbers_that_are_none():
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf}
    series = {"g": [((name, ""), number) for name, number in values.items()]}
    lines = render((GAUGE,), series, {}, openmetrics=True).decode().splitlines()[2:]
    assert [line.partition("} ")[2] for line in lines] == ["NaN", "+Inf", "-Inf"]


def test_exemplars_stand_at_their_buckets_and_in_openmetrics_only():
    series = {"h_seconds": [(("x",), ((0.5, 1.0), (1, 0, 2), 9.0))], "c_total": [(("x",), 3)]}
    seen = {
        ("h_seconds", ("x",)): [Exemplar(7, 0.5, NOW), Exemplar(8, 4.0, NOW)],
        ("c_total", ("x",)): [Exemplar(9, 1, NOW)],
    }
    text = render((COUNTER, HISTOGRAM), series, seen, openmetrics=True).decode()
    at = f"{NOW.timestamp():.3f}"
    assert [line for line in text.splitlines() if " # " in line] == [
        f'drift_monitor_c_total{{a="x"}} 3.0 # {{run_id="9"}} 1.0 {at}',
        f'drift_monitor_h_seconds_bucket{{a="x",le="0.5"}} 1.0 # {{run_id="7"}} 0.5 {at}',
        f'drift_monitor_h_seconds_bucket{{a="x",le="+Inf"}} 3.0 # {{run_id="8"}} 4.0 {at}',
    ]
    assert " # " not in render((COUNTER, HISTOGRAM), series, seen, openmetrics=False).decode()


def test_an_exemplar_is_the_last_run_that_was_counted(tmp_path, monkeypatch):
    phase = {"monitor": "m", "phase": "judge"}
    key = ("run_duration_seconds", tuple(phase.items()))

    def finish(store, hour, seconds, **values):
        end = END + timedelta(hours=hour)
        store.enqueue("m", [result(end=end).window])
        [run] = store.due()
        observed = [("run_duration_seconds", phase, seconds)]
        store.finish(run.id, result(end=end, **values), now=NOW + timedelta(hours=hour), observations=observed)
        return run.id

    store = Store.open(tmp_path)
    first = finish(store, 0, 0.2)
    second = finish(store, 1, 0.3)
    third = finish(store, 2, 0.22, rows=0, verdict=Outcome.NO_DATA)
    store.close()
    store = Store.open(tmp_path)  # a restart forgets none
    try:
        found = store.snapshot().exemplars
        assert found["runs_total", (("monitor", "m"),)] == [Exemplar(third, 1, NOW + timedelta(hours=2))]
        assert [e.run for e in found["rows_processed_total", (("monitor", "m"),)]] == [
            second
        ]  # the third had none
        assert [(e.run, e.value) for e in found[key]] == [(third, 0.22), (second, 0.3)]  # one a bucket
        assert first not in {e.run for seen in found.values() for e in seen}
        monkeypatch.setitem(counters.HISTOGRAMS, "run_duration_seconds", (7.0, 9.0))
        fourth = finish(store, 3, 8.0)
        assert [(e.run, e.value) for e in store.snapshot().exemplars[key]] == [(fourth, 8.0)]
    finally:
        store.close()


def test_exemplars_of_what_is_watched_no_more_are_not_exported(judged):
    seen = {("runs_total", (("monitor", name),)): (Exemplar(1, 1, NOW),) for name in ("m", "gone")}
    found = exemplars(replace(judged, snapshot=replace(judged.snapshot, exemplars=seen)))
    assert found == {("runs_total", ("m",)): (Exemplar(1, 1, NOW),)}


@given(st.lists(st.binary(max_size=300), max_size=4), st.binary(max_size=300))
def test_compressed_text_goes_on_in_one_gzip_member(parts, rest):
    page = Compressed(b"start")
    for part in parts:
        Compressed(b"something else", after=page)  # two may go on from the same start
        page = Compressed(part, after=page)
    inflate = zlib.decompressobj(wbits=31)
    assert inflate.decompress(page.whole(rest)) == b"start" + b"".join(parts) + rest
    assert inflate.eof
    assert not inflate.unused_data


# -- what is told of a feature -------------------------------------------------------------------------


def whole_result(result):
    """The same with statistics, as the store keeps it."""
    statistics = {"ks": StatResult(statistic=0.4, p_value=0.03), "psi": StatResult(statistic=0.1)}
    told = tuple(f.model_copy(update={"statistics": statistics}) for f in result.features)
    return result.model_copy(update={"features": told})


@pytest.mark.parametrize(
    ("detail", "more"),
    [
        ((), set()),
        (("quality",), {"null_ratio"}),
        (("p_values",), {"drift_p_value ks"}),
        (("statistics",), {"drift_statistic ks", "drift_statistic psi"}),
    ],
)
def test_detail_is_asked_for(detail, more):
    light = result(features=(feature("x"),))
    seen = snapshot(latest={"m": light}, latest_judged={"m": light}, judged_runs={"m": 5})
    text = scrape(view(seen, config("m", metrics={"detail": detail})), read={5: whole_result(light)}.__getitem__)
    found = {
        f"{name.removeprefix('feature_')} {dict(key).get('method', '')}".strip()
        for name, key in samples(text)
        if "feature" in dict(key)
    }
    assert found == {"drift_detected", "drift_score ks", "drift_score_threshold ks"} | more


def test_p_values_count_in_the_budget():
    light = result(features=(feature("x"), feature("y")))
    seen = snapshot(latest={"m": light}, latest_judged={"m": light}, judged_runs={"m": 5})
    metrics = {"detail": ["quality", "p_values"], "max_series": 9}
    found = samples(scrape(view(seen, config("m", metrics=metrics)), read={5: whole_result(light)}.__getitem__))
    assert value(found, "feature_drift_p_value", monitor="m", feature="x", method="ks") == 0.03
    assert value(found, "metrics_suppressed_series") == 5


def test_a_label_does_not_depend_on_the_order_of_blame():
    names = ["b\x02", "b\x01", "a"]
    assert unique(names) == unique(reversed(names))


def test_a_label_does_not_depend_on_what_else_is_shown():
    two = (feature("b\x02", drifted=True), feature("b\x01"))
    of = result(features=two, verdict=Outcome.DRIFT)
    seen = snapshot(latest={"m": of}, latest_judged={"m": of})
    [shown] = {
        dict(key)["feature"]
        for name, key in samples(scrape(view(seen, config("m", metrics={"features": "drifted"}))))
        if name == "feature_drift_detected"
    }
    assert shown == "b\ufffd~2"


@pytest.mark.parametrize(
    ("variable", "noted", "known"),
    [
        ("abc", None, "abc"),
        ("", None, ""),
        ("", '{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "def"}}', "def"),
        ("", '{"url": "file:///x", "dir_info": {}}', ""),
        ("abc", '{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "def"}}', "abc"),
    ],
)
def test_the_commit_is_told_where_it_is_known(monkeypatch, judged, variable, noted, known):
    installed = SimpleNamespace(read_text={"direct_url.json": noted}.__getitem__)
    monkeypatch.setattr(revisions, "distribution", lambda name: installed)
    monkeypatch.setenv(revisions.VARIABLE, variable)
    revisions.revision.cache_clear()
    try:
        [told] = {dict(key)["revision"] for name, key in samples(scrape(judged)) if name == "build_info"}
    finally:
        revisions.revision.cache_clear()
    assert told == known
