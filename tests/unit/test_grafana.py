"""Rules that every dashboard and provisioning file keeps: those of grafana/dashboard-linter and ours.

No Grafana server is involved.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
from ruamel.yaml import YAML

from drift_monitor.service.metrics import METRICS, PREFIX

GRAFANA = Path(__file__).parents[2] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RANGES = {"__range": "7d", "__rate_interval": "2m"}  # Grafana's own, with something to parse in their place
NUMBERS = {"stat", "timeseries", "bargauge", "table", "state-timeline", "heatmap"}
SELECTED = {"monitor", "feature"}  # one at a time on the dashboards of one monitor or feature

# What Prometheus itself and the client library write about a target.
OTHERS = {
    *("up", "scrape_duration_seconds", "scrape_samples_scraped", "ALERTS"),
    *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"),
}
CATALOGUE = {
    PREFIX + spec.name + suffix
    for spec in METRICS
    for suffix in (("_bucket", "_count", "_sum") if spec.type == "histogram" else ("",))
}

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
each_panel = pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{dashboard['uid']}-{panel['id']}-{panel['title']}")
        for dashboard in DASHBOARDS.values()
        for panel in dashboard["panels"]
        if panel["type"] not in {"row", "text"}
    ],
)


def expressions(dashboard):
    """Every PromQL text of a dashboard's panels and annotations."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])


def variable_queries(dashboard):
    return [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]


def series_of(definition):
    """The selector in `label_values(SELECTOR, label)`."""
    return re.fullmatch(r"label_values\((.+), (\w+)\)", definition).groups()


def parsed(text):
    for name, value in RANGES.items():
        text = text.replace(f"${name}", value)
    return promql_parser.parse(text)


def nodes(expression):
    """An expression and everything in it."""
    yield expression
    for part in ("expr", "lhs", "rhs", "param", "vector_selector", "matrix_selector"):
        inner = getattr(expression, part, None)
        if isinstance(inner, promql_parser.Expr):
            yield from nodes(inner)
    for inner in getattr(expression, "args", ()):
        yield from nodes(inner)


def selectors(text):
    """(metric, {label: (operator, value)}) of every selector in a query."""
    return [
        (node.name, {m.name: (m.op, m.value) for m in node.matchers.matchers})
        for node in nodes(parsed(text))
        if isinstance(node, promql_parser.VectorSelector)
    ]


def linked(dashboard):
    """Every link out of a dashboard's panels."""
    for panel in dashboard["panels"]:
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for prop in override["properties"]:
                if prop["id"] == "links":
                    yield from prop["value"]


def test_the_files_are_what_the_code_builds(tmp_path):
    subprocess.run([sys.executable, "-B", GRAFANA / "build.py", tmp_path], check=True)
    built = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert built == {file.name: file.read_text(encoding="utf-8") for file in FILES}, "run python grafana/build.py"


def test_the_four_dashboards():
    assert {dashboard["uid"] for dashboard in DASHBOARDS.values()} == {
        f"drift-monitor-{page}" for page in ("overview", "monitor", "feature", "daemon")
    }
    assert {name: f"{dashboard['uid']}.json" for name, dashboard in DASHBOARDS.items()} == {
        name: name for name in DASHBOARDS
    }
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == 4


@each_dashboard
def test_a_dashboard_is_named_tagged_in_utc_and_not_editable(dashboard):
    assert dashboard["title"]
    assert dashboard["description"]
    assert dashboard["tags"] == ["drift-monitor"]
    assert dashboard["timezone"] == "utc"
    assert dashboard["refresh"] == "1m"
    assert dashboard["editable"] is False
    assert 36 <= dashboard["schemaVersion"] <= 42
    link = dashboard["links"][0]
    assert (link["type"], link["tags"], link["asDropdown"]) == ("dashboards", ["drift-monitor"], True)
    assert link["keepTime"]
    assert link["includeVars"]
    assert all(link["url"].startswith("${daemon_url}/") for link in dashboard["links"][1:])


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
    address = variables.pop("daemon_url")
    assert (address["type"], address["hide"]) == ("constant", 2)
    assert re.fullmatch(r"https?://[^/]+", address["query"])
    for name, variable in list(variables.items())[1:]:
        assert variable["type"] == "query"
        assert variable["label"]
        assert variable["refresh"] == 2
        assert variable["definition"] == variable["query"]["query"]
        selector, label = series_of(variable["definition"])
        assert label == name
        parsed(selector)
        several = name not in SELECTED or dashboard["uid"] == "drift-monitor-overview"
        assert variable["multi"] == variable["includeAll"] == several
        assert variable.get("allValue") == (".+" if several else None)


@each_dashboard
def test_these_tests_see_every_selector(dashboard):
    for text in expressions(dashboard):
        in_text = re.findall(r"\b(?:drift_monitor|process|scrape)_\w+|\bup\b|\bALERTS\b", text)
        assert sorted(name for name, _ in selectors(text)) == sorted(in_text)


@each_dashboard
def test_queries_use_only_variables_that_exist(dashboard):
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {
        name
        for text in (*expressions(dashboard), *variable_queries(dashboard))
        for name in re.findall(r"\$\{?(\w+)", text)
    }
    assert used <= known | set(RANGES)
    assert known - {"datasource", "daemon_url"} <= used, "a variable that nothing uses"


@each_dashboard
def test_a_variable_of_many_is_matched_as_a_pattern_and_a_variable_of_one_as_a_text(dashboard):
    """Grafana writes `a|b` for many, and escapes a single one for what it stands in."""
    several = {v["name"]: v["multi"] for v in dashboard["templating"]["list"] if v["type"] == "query"}
    texts = [*expressions(dashboard), *(series_of(text)[0] for text in variable_queries(dashboard))]
    for text in texts:
        for _, labels in selectors(text):
            for operator, value in labels.values():
                if value.startswith("$"):
                    pattern = several[value.removeprefix("$").removesuffix("|")]
                    assert str(operator) == ("MatchOp.Re" if pattern else "MatchOp.Equal"), text


@each_dashboard
def test_every_selector_matches_job_and_instance(dashboard):
    for text in expressions(dashboard):
        found = selectors(text)
        assert found, text
        for name, labels in found:
            assert labels["job"][1] == "$job", f"{name} in {text}"
            assert labels["instance"][1] == "$instance", f"{name} in {text}"


@each_dashboard
def test_every_metric_is_in_the_catalogue(dashboard):
    texts = [*expressions(dashboard), *(series_of(text)[0] for text in variable_queries(dashboard))]
    assert {name for text in texts for name, _ in selectors(text)} - CATALOGUE - OTHERS == set()


def test_every_monitor_level_metric_that_tells_of_the_loop_is_shown():
    shown = {name for d in DASHBOARDS.values() for text in expressions(d) for name, _ in selectors(text)}
    loop = {
        PREFIX + spec.name
        for spec in METRICS
        if spec.name.startswith(("retraining", "training_weights", "previous_reference", "live_labelled"))
    }
    assert len(loop) >= 8
    assert loop <= shown


@each_dashboard
def test_rates_follow_the_rate_interval(dashboard):
    for text in expressions(dashboard):
        for function, window in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]+)\]", text):
            # A total over what is on the screen is the one other range that makes sense.
            allowed = {"$__rate_interval", "$__range"} if function == "increase" else {"$__rate_interval"}
            assert window in allowed, text


@each_dashboard
def test_only_counters_are_rated(dashboard):
    for text in expressions(dashboard):
        for node in nodes(parsed(text)):
            if isinstance(node, promql_parser.Call) and node.func.name in {"rate", "irate", "increase"}:
                [(name, _)] = selectors(str(node))
                assert name.endswith(("_total", "_bucket", "_sum", "_count")), text


@each_dashboard
def test_counters_are_always_rated(dashboard):
    """A counter by itself says how old the daemon is."""
    for text in expressions(dashboard):
        rated = [
            name
            for node in nodes(parsed(text))
            if isinstance(node, promql_parser.Call) and node.func.name in {"rate", "irate", "increase"}
            for name, _ in selectors(str(node))
        ]
        counters = [name for name, _ in selectors(text) if name.endswith(("_total", "_bucket", "_sum", "_count"))]
        assert sorted(rated) == sorted(counters), text


@each_dashboard
def test_no_sum_over_methods(dashboard):
    """Scores of different methods have different units."""
    for text in expressions(dashboard):
        for node in nodes(parsed(text)):
            if isinstance(node, promql_parser.AggregateExpr) and str(node.op) in {"sum", "avg"}:
                assert not [name for name, _ in selectors(str(node)) if "feature_drift_score" in name], text


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


@each_dashboard
def test_annotations(dashboard):
    of_monitors = ["References", "Retrainings", "Open episodes"]
    expected = ["Alerts", *([] if dashboard["uid"] == "drift-monitor-daemon" else of_monitors)]
    assert [annotation["name"] for annotation in dashboard["annotations"]["list"]] == expected
    for annotation in dashboard["annotations"]["list"]:
        # Grafana reads such a value as milliseconds since 1970.
        assert annotation["useValueForTime"] == annotation["expr"].startswith("1000 * ")


@each_dashboard
def test_links_lead_to_dashboards_and_variables_that_exist(dashboard):
    known = {other["uid"]: {v["name"] for v in other["templating"]["list"]} for other in DASHBOARDS.values()}
    for link in linked(dashboard):
        if link["url"].startswith("${daemon_url}/"):
            continue
        uid, query = re.fullmatch(r"/d/([a-z-]+)\?(.*)", link["url"]).groups()
        assert set(re.findall(r"var-(\w+)=", query)) <= known[uid]
        kept = set(re.findall(r"\$\{(\w+):queryparam\}", query))
        assert kept == {"datasource", "job", "instance"}
        assert "${__url_time_range}" in query


def test_the_overview_leads_to_monitors_features_and_the_daemons_pages():
    urls = [link["url"] for link in linked(DASHBOARDS["drift-monitor-overview.json"])]
    for start in ("/d/drift-monitor-monitor?", "/d/drift-monitor-feature?", "${daemon_url}/monitors/"):
        assert any(url.startswith(start) for url in urls), start


@pytest.mark.parametrize("page", ["overview", "monitor", "feature"])
def test_a_text_says_what_a_score_means(page):
    panels = DASHBOARDS[f"drift-monitor-{page}.json"]["panels"]
    [text] = [panel for panel in panels if panel["type"] == "text"]
    assert text["options"]["mode"] == "markdown"
    assert "threshold" in text["options"]["content"]


@each_panel
def test_a_panel_explains_itself(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["type"] in NUMBERS
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_of_one_value_asks_once_and_reduces_it(panel):
    once = panel["type"] in {"stat", "bargauge", "table"}
    assert all((target["instant"], target["range"]) == (once, not once) for target in panel["targets"])
    if panel["type"] in {"stat", "bargauge"}:
        assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]


@each_panel
def test_lines_are_named_in_words(panel):
    if panel["type"] in {"timeseries", "state-timeline", "bargauge"}:
        assert all("{{" in target["legendFormat"] for target in panel["targets"])
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])


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


@each_panel
def test_columns_of_names_are_texts(panel):
    """Grafana shows a label "3.1" as the number 3.10 where the unit is one of numbers."""
    if panel["type"] != "table":
        return
    [organize] = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    texts = {heading for name, heading in organize["renameByName"].items() if not name.startswith("Value #")}
    units = {
        override["matcher"]["options"]: prop["value"]
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    }
    assert {heading: units.get(heading) for heading in texts} == dict.fromkeys(texts, "string")


def test_every_dashboard_has_a_picture_of_moderate_size():
    pictures = {file.stem: file.stat().st_size for file in (GRAFANA.parent / "docs" / "dashboards").glob("*.png")}
    assert pictures.keys() == {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert max(pictures.values()) < 400_000


def load(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def test_provisioned_datasource():
    [file] = (GRAFANA / "provisioning" / "datasources").iterdir()
    document = load(file)
    assert document["apiVersion"] == 1
    [datasource] = document["datasources"]
    assert datasource["type"] == "prometheus"
    assert re.fullmatch(r"\d+s", datasource["jsonData"]["timeInterval"])
    [exemplars] = datasource["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == "run_id"
    # Provisioning files expand ${NAME} from the environment: a dollar that Grafana is to see is written twice.
    assert exemplars["url"].endswith("/reports/$${__value.raw}.html")


def test_provisioned_dashboards():
    [file] = (GRAFANA / "provisioning" / "dashboards").iterdir()
    document = load(file)
    assert document["apiVersion"] == 1
    [provider] = document["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert ("folder" in provider) != ("foldersFromFilesStructure" in provider["options"])
    assert provider["options"]["path"] in (GRAFANA / "README.md").read_text(encoding="utf-8")
