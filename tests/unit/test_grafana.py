"""Rules that every dashboard and provisioning file keeps. No Grafana server is involved."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

GRAFANA = Path(__file__).parents[2] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
BUILT_IN = {"__range", "__rate_interval", "__interval"}
NUMBERS = {"stat", "timeseries", "bargauge", "gauge", "table", "state-timeline"}

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
each_panel = pytest.mark.parametrize(
    "panel",
    [panel for dashboard in DASHBOARDS.values() for panel in dashboard["panels"] if panel["type"] != "row"],
    ids=lambda panel: panel["title"],
)


def queries(dashboard):
    """Every PromQL text of a dashboard: panels, variables and annotations."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])


def test_the_files_are_what_the_code_builds(tmp_path):
    subprocess.run([sys.executable, "-B", GRAFANA / "build.py", tmp_path], check=True)
    built = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert built == {file.name: file.read_text(encoding="utf-8") for file in FILES}, "run python grafana/build.py"


def test_the_overview_exists_and_uids_are_unique():
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert "drift-monitor-overview" in uids
    assert len(set(uids)) == len(uids)


@each_dashboard
def test_a_dashboard_is_named_tagged_in_utc_and_not_editable(dashboard):
    assert re.fullmatch(r"drift-monitor-[a-z]+", dashboard["uid"])
    assert dashboard["title"]
    assert dashboard["description"]
    assert dashboard["tags"] == ["drift-monitor"]
    assert dashboard["timezone"] == "utc"
    assert dashboard["refresh"] == "1m"
    assert dashboard["editable"] is False
    assert 36 <= dashboard["schemaVersion"] <= 42
    [link] = dashboard["links"]
    assert (link["type"], link["tags"], link["asDropdown"]) == ("dashboards", ["drift-monitor"], True)
    assert link["keepTime"]
    assert link["includeVars"]


@each_dashboard
def test_a_dashboard_is_provisioned_not_exported(dashboard):
    assert not {"__inputs", "__requires", "__elements", "id"} & set(dashboard)


@each_dashboard
def test_every_datasource_is_the_variable(dashboard):
    found = []

    def walk(node):
        if isinstance(node, dict):
            if "datasource" in node:
                found.append(node["datasource"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(dashboard)
    assert found
    assert all(datasource == DATASOURCE for datasource in found)


@each_dashboard
def test_variables(dashboard):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables)[:3] == ["datasource", "job", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for variable in list(variables.values())[1:]:
        assert variable["type"] == "query"
        assert variable["label"]
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        assert variable["refresh"] == 2
        assert variable["definition"] == variable["query"]["query"]
        assert re.fullmatch(rf"label_values\(\w+(\{{.+\}})?, {variable['name']}\)", variable["definition"])


@each_dashboard
def test_queries_use_only_variables_that_exist(dashboard):
    known = BUILT_IN | {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {name for text in queries(dashboard) for name in re.findall(r"\$\{?(\w+)", text)}
    assert used <= known
    assert known - BUILT_IN - {"datasource"} <= used, "a variable that nothing uses"


@each_dashboard
def test_every_selector_matches_job_and_instance(dashboard):
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    texts += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    for text in texts:
        selectors = re.findall(r"\b(?:drift_monitor_\w+|up)\b(\{[^}]*\})?", text)
        assert selectors, text
        for selector in selectors:
            assert 'job=~"$job"' in selector, text
            assert 'instance=~"$instance"' in selector, text


@each_dashboard
def test_rates_follow_the_rate_interval(dashboard):
    for text in queries(dashboard):
        for function, window in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]+)\]", text):
            # A total over what is on the screen is the one other range that makes sense.
            allowed = {"$__rate_interval", "$__range"} if function == "increase" else {"$__rate_interval"}
            assert window in allowed, text


@each_dashboard
def test_panel_ids_are_unique_and_refs_too(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs), panel["title"]


@each_dashboard
def test_panels_fill_the_grid_without_overlap_or_hole(dashboard):
    cells = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in cells, f"{panel['title']} lies over {cells[x, y]}"
                cells[x, y] = panel["title"]
    height = max(y for _, y in cells) + 1
    assert len(cells) == 24 * height


@each_panel
def test_a_panel_explains_itself(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["type"] in NUMBERS
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_of_one_value_asks_once_and_reduces_it(panel):
    if panel["type"] in {"stat", "bargauge", "table"}:
        assert all(target["instant"] and not target["range"] for target in panel["targets"])
    if panel["type"] in {"stat", "bargauge"}:
        assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]


@each_panel
def test_lines_are_named_in_words(panel):
    if panel["type"] in {"timeseries", "state-timeline", "bargauge"}:
        assert all("{{" in target["legendFormat"] for target in panel["targets"])


@each_panel
def test_columns_that_are_styled_exist(panel):
    if panel["type"] != "table":
        return
    [organize] = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    refs = {f"Value #{target['refId']}" for target in panel["targets"]}
    mentioned = set(organize["renameByName"]) | set(organize["excludeByName"])
    assert refs <= mentioned, "a query whose column is neither named nor hidden"
    styled = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    assert styled <= set(organize["renameByName"].values())


def load(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def test_provisioned_datasource():
    [file] = (GRAFANA / "provisioning" / "datasources").iterdir()
    document = load(file)
    assert document["apiVersion"] == 1
    [datasource] = document["datasources"]
    assert datasource["type"] == "prometheus"
    assert re.fullmatch(r"\d+s", datasource["jsonData"]["timeInterval"])


def test_provisioned_dashboards():
    [file] = (GRAFANA / "provisioning" / "dashboards").iterdir()
    document = load(file)
    assert document["apiVersion"] == 1
    [provider] = document["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert ("folder" in provider) != ("foldersFromFilesStructure" in provider["options"])
    assert provider["options"]["path"] in (GRAFANA / "README.md").read_text(encoding="utf-8")
