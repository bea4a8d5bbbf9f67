"""The rules, their promtool tests, the Alertmanager example and the runbooks hold together."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from drift_monitor.service.metrics import METRICS, PREFIX

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"
RUNBOOKS = ROOT / "docs" / "runbooks"


def load(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


RULE_TESTS = ("drift-monitor.rules.test.yml", "drift-monitor.days.rules.test.yml")
TESTS = [test for name in RULE_TESTS for test in load(ALERTS / name)["tests"]]
RULES = [rule for group in load(ALERTS / "drift-monitor.rules.yml")["groups"] for rule in group["rules"]]
RECORDS = [rule for rule in RULES if "record" in rule]
RULES_BY_ALERT = {rule["alert"]: rule for rule in RULES if "alert" in rule}
EXPECTED = {
    f"DriftMonitor{name}"
    for name in (
        "Drift",
        "DataQuality",
        "EvaluationStale",
        "NeverSucceeded",
        "DataStale",
        "RetrainingWaits",
        "RetrainingFailed",
        "RetrainingGivenUp",
        "LowEffectiveSampleSize",
        "WebhookFailing",
        "OutboxBacklog",
        "DeadLetters",
        "ConfigReloadFailed",
        "SeriesSuppressed",
        "Down",
        "Watchdog",
    )
}
ALWAYS_FIRING = {"DriftMonitorWatchdog"}

each_alert = pytest.mark.parametrize("rule", RULES_BY_ALERT.values(), ids=RULES_BY_ALERT)


def tool(name, *arguments):
    """Run a tool of Prometheus or Alertmanager in alerts/; skip where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return subprocess.run([path, *arguments], check=False, cwd=ALERTS, capture_output=True, text=True, timeout=60)


def test_the_alerts_are_those_promised():
    assert set(RULES_BY_ALERT) == EXPECTED


@each_alert
def test_an_alert_tells_what_it_means_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


@each_alert
def test_an_alert_has_a_runbook(rule):
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {rule['alert']}\n\nSeverity: {rule['labels']['severity']}\n")
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert sections == ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def test_no_runbook_is_left_over():
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(RULES_BY_ALERT)


@each_alert
def test_an_alert_stands_in_the_readme(rule):
    row = f"| `{rule['alert']}` | {rule['labels']['severity']} |"
    assert row in (ALERTS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule["record"])
def test_a_recorded_name_reads_level_metric_operations(rule):
    assert re.fullmatch(r"[a-z_]+:drift_monitor_[a-z_]+:[a-z0-9_]+", rule["record"])
    assert rule["record"] in (ALERTS / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"\bby\s*\(", rule["expr"]), "aggregate with `without`, so that added labels are kept"


@each_alert
def test_every_alert_is_shown_firing_and_not_firing(rule):
    cases = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert any(case["exp_alerts"] for case in cases)
    assert rule["alert"] in ALWAYS_FIRING or any(not case["exp_alerts"] for case in cases)


def test_promtool_accepts_the_rules():
    done = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", "drift-monitor.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RULE_TESTS)
def test_promtool_runs_the_rule_tests(name):
    done = tool("promtool", "test", "rules", name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_accepts_the_example():
    done = tool("amtool", "check-config", "alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_names_only_alerts_that_exist():
    config = load(ALERTS / "alertmanager.yml")
    matchers = [m for route in config["route"]["routes"] for m in route["matchers"]]
    matchers += [m for rule in config["inhibit_rules"] for m in rule["source_matchers"] + rule["target_matchers"]]
    patterns = [m.split("=")[1].strip("~ \"'") for m in matchers if m.startswith("alertname")]
    assert patterns
    for pattern in patterns:
        for name in alternatives(pattern):
            assert any(re.fullmatch(name, alert) for alert in RULES_BY_ALERT), name


def alternatives(pattern):
    """The patterns that `Prefix(A|B)` or a single one stands for."""
    match = re.fullmatch(r"(\w+)\((.+)\)", pattern)
    return [match[1] + tail for tail in match[2].split("|")] if match else [pattern]


OF_EVERY_TARGET = {"job", "instance"}
CATALOGUE = {"up": OF_EVERY_TARGET} | {PREFIX + spec.name: {*spec.labels, *OF_EVERY_TARGET} for spec in METRICS}
for _spec in METRICS:
    if _spec.type == "histogram":
        _labels = CATALOGUE.pop(PREFIX + _spec.name)
        CATALOGUE |= {f"{PREFIX}{_spec.name}_{part}": _labels for part in ("count", "sum")}
        CATALOGUE[f"{PREFIX}{_spec.name}_bucket"] = _labels | {"le"}


def template_queries():
    """Queries inside the annotations of alerts."""
    for rule in RULES_BY_ALERT.values():
        for text in rule["annotations"].values():
            for query in re.findall(r'printf "([^"]*drift_monitor_[^"]*)"', text):
                yield query.replace("%q", '"x"')


def mentioned(query):
    """The metrics a query names with the labels it selects by, and the labels it groups or matches by."""
    metrics = [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector)))
        for name, selector in re.findall(r"(?<![\w:])(drift_monitor_\w+|up)\b(?![:\w])(\{[^}]*\})?", query)
    ]
    groups = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", query)
    return metrics, {label.strip() for group in groups for label in group.split(",") if label.strip()}


def test_how_names_are_found_in_a_query():
    metrics, grouped = mentioned(
        'sum without (reason, le) (drift_monitor_x{job=~"a", b!="c"}) / on (job) up > a:drift_monitor_y:ratio'
    )
    assert metrics == [("drift_monitor_x", {"job", "b"}), ("up", set())]
    assert grouped == {"reason", "le", "job"}


def documented():
    """The rule file of docs/labels.md, as text."""
    page = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    [rules] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "- alert:" in text]
    return rules


def test_promtool_accepts_the_documented_alert(tmp_path):
    (tmp_path / "rules.yml").write_text(documented(), encoding="utf-8")
    done = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "query",
    [
        *(rule["expr"] for rule in RULES),
        *template_queries(),
        *(rule["expr"] for rule in YAML(typ="safe").load(documented())["groups"][0]["rules"]),
    ],
)
def test_every_metric_and_label_asked_for_is_exported(query):
    recorded = {rule["record"] for rule in RECORDS}
    assert set(re.findall(r"\w+:drift_monitor_\w+:\w+", query)) <= recorded
    metrics, grouped = mentioned(query)
    assert metrics or recorded & set(re.findall(r"[\w:]+", query)) or query == "vector(1)"
    for name, labels in metrics:
        assert name in CATALOGUE, f"{name} is not exported"
        assert labels <= CATALOGUE[name], f"{name} has no label {labels - CATALOGUE[name]}"
    of_some_metric = set().union(*(CATALOGUE[name] for name, _ in metrics))
    assert grouped <= of_some_metric, f"no metric in the query has {grouped - of_some_metric}"


def test_rule_tests_use_series_as_they_are_exported():
    series = {entry["series"] for test in TESTS for entry in test["input_series"]}
    for text in series:
        [(name, labels)], _ = mentioned(text)
        assert labels == CATALOGUE[name], text
