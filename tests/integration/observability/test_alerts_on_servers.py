"""Each alert on real servers: fires when it should and at no other time, arrives once, and resolves."""

import time
from collections import Counter

import pytest
from dashboard_queries import OF_ONE_MONITOR, answer, everything_asked
from ruamel.yaml import YAML
from scenario import WATCHDOG, fired
from servers import ALERTS

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]

KEPT = 20.0  # seconds that the quick rules keep an alert firing
SLACK = 25.0  # until a change is in a judged window, scraped and evaluated; a busy machine takes its time
NOT_STAGED = {
    "DriftMonitorLowEffectiveSampleSize": "needs weights that were adopted; alerts/ tests it with promtool"
}
NEVER_RESOLVED = {"DriftMonitorWatchdog", "DriftMonitorSeriesSuppressed"}  # their receivers do not ask for it


def expected(observed):
    return {(cause.alert, cause.subject) for cause in observed.scenario.causes}


def test_the_story_has_every_alert(observed):
    rules = YAML(typ="safe").load((ALERTS / "drift-monitor.rules.yml").read_text("utf-8"))
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert {alert for alert, _ in expected(observed)} | {WATCHDOG[0]} | set(NOT_STAGED) == names


def test_every_rule_evaluates(pair):
    rules = [rule for group in pair.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 19
    assert {(rule["name"], rule["health"]) for rule in rules} == {(rule["name"], "ok") for rule in rules}


def test_alerts_fire_when_they_should_and_at_no_other_time(observed, pair):
    found = [each for each in fired(pair, observed.started) if (each.alert, each.subject) != WATCHDOG]
    assert {(each.alert, each.subject) for each in found} == expected(observed)
    for each in found:
        causes = [c for c in observed.scenario.causes if (c.alert, c.subject) == (each.alert, each.subject)]
        assert any(c.begin - 1 <= each.begin and each.end <= c.end + KEPT + SLACK for c in causes), (
            f"{each} has no cause among {causes}"
        )


def test_each_alert_arrives_once(observed, pair):
    arrived = Counter((n.alert, n.subject) for n in pair.notices if n.status == "firing")
    assert arrived.pop(WATCHDOG) >= 10  # the heartbeat goes on
    assert arrived == dict.fromkeys(expected(observed), 1)


def test_each_alert_resolves(observed, pair):
    resolved = Counter((n.alert, n.subject) for n in pair.notices if n.status == "resolved")
    wanted = {(alert, subject) for alert, subject in expected(observed) if alert not in NEVER_RESOLVED}
    assert resolved == dict.fromkeys(wanted, 1)


def test_alerts_go_where_they_belong(pair):
    routes = {n.alert: n.receiver for n in pair.notices}
    assert routes.pop("DriftMonitorWatchdog") == "heartbeat"
    assert routes.pop("DriftMonitorSeriesSuppressed") == "tickets"
    assert set(routes.values()) == {"oncall"}


def firing_of(observed, pair, alert, subject):
    """The one stretch in which an alert fired in Prometheus.

    Not that between its notices: what ends while it is itself held back is told when Prometheus says so again.
    """
    [stretch] = [each for each in fired(pair, observed.started) if (each.alert, each.subject) == (alert, subject)]
    return stretch


def test_broken_data_holds_back_the_drift_of_the_same_monitor(observed, pair):
    def first_told(subject):
        return next(
            n.at
            for n in pair.notices
            if (n.alert, n.subject, n.status) == ("DriftMonitorDrift", subject, "firing")
        )

    broken = firing_of(observed, pair, "DriftMonitorDataQuality", "broken")
    assert first_told("broken") >= broken.end
    assert first_told("again") < broken.end


def test_a_daemon_that_is_down_is_all_that_is_told(observed, pair):
    [told] = [n.at for n in pair.notices if (n.alert, n.status) == ("DriftMonitorDown", "firing")]
    down = firing_of(observed, pair, "DriftMonitorDown", "")
    assert down.begin <= told < down.end
    meanwhile = {n.alert for n in pair.notices if n.status == "firing" and told < n.at < down.end}
    assert meanwhile <= {"DriftMonitorWatchdog"}


def test_the_description_says_which_feature_it_is(pair):
    [told] = [
        n for n in pair.notices if (n.alert, n.subject, n.status) == ("DriftMonitorDrift", "again", "firing")
    ]
    assert "Furthest out, as score/threshold: distance (" in told.annotations["description"]


def test_staleness_is_not_confused_with_a_quiet_night(observed, pair):
    found = {(each.alert, each.subject) for each in fired(pair, observed.started)}
    assert ("DriftMonitorDataStale", "source") not in found
    assert ("DriftMonitorEvaluationStale", "empty") not in found


# Beginnings of names of queries that are empty in this story -> why. In that of test_prometheus.py they answer.
MAY_BE_EMPTY = {
    "monitor-Weights: effective rows": "no weights are made",
    "monitor-Weights adopted": "no weights are made",
    "monitor-Labelled share": "the log has no labels",
    "monitor-Reference before, on trial": "no reference is promoted",
    "monitor-Rows-B": "rows have no ids, so there are no duplicates",
}


def test_every_query_of_every_dashboard_answers(observed, pair):
    empty = {}
    for asked in everything_asked():
        feature = "carrier" if "new_category" in asked.text else "distance"  # a number has no categories
        of_one = {"monitor": "again", "feature": feature} if asked.page in OF_ONE_MONITOR else {}
        if not answer(pair.get, asked, observed.started, time.time(), **of_one):
            empty[asked.name] = asked.text
    assert {name: text for name, text in empty.items() if not name.startswith(tuple(MAY_BE_EMPTY))} == {}
    assert len(MAY_BE_EMPTY) <= 5
