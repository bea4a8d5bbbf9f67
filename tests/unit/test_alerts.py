"""The rules, their promtool tests, the Alertmanager example and the runbooks hold together."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"
RUNBOOKS = ROOT / "docs" / "runbooks"


def load(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


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
    cases = [
        case
        for test in load(ALERTS / "drift-monitor.rules.test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert rule["alert"] in ALWAYS_FIRING or any(not case["exp_alerts"] for case in cases)


def test_promtool_accepts_the_rules():
    done = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", "drift-monitor.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_runs_the_rule_tests():
    done = tool("promtool", "test", "rules", "drift-monitor.rules.test.yml")
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
            assert name in RULES_BY_ALERT


def alternatives(pattern):
    """The names that `Prefix(A|B)` or a plain name stands for."""
    match = re.fullmatch(r"(\w+)\((.+)\)", pattern)
    return [match[1] + tail for tail in match[2].split("|")] if match else [pattern]
