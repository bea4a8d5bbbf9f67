"""Panels, variables and annotations as plain dicts in Grafana's dashboard schema, version 39 (Grafana 10.4)."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
DAEMON = 'job=~"$job", instance=~"$instance"'
MONITOR = f'{DAEMON}, monitor=~"$monitor"'

GREEN, YELLOW, ORANGE, RED, PURPLE, BLUE = "green", "yellow", "orange", "red", "purple", "blue"


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Thresholds from (lower bound, color) pairs; the first bound is None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in pairs]}


def query(ref: str, expr: str, legend: str = "", *, instant: bool = False, table: bool = False) -> Json:
    """One PromQL target of a panel."""
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend or "__auto",
        "instant": instant,
        "range": not instant,
        "format": "table" if table else "time_series",
    }


def panel(kind: str, title: str, description: str, at: tuple[int, int, int, int], targets: list[Json]) -> Json:
    """What all panels have in common; `at` is x, y, width, height on the grid of 24 columns."""
    x, y, width, height = at
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {},
    }


def count(title: str, description: str, x: int, expr: str, bad: str, none: str | None = None) -> Json:
    """A tile for a number that should be 0; `none` is shown where there is nothing to count."""
    tile = panel("stat", title, description, (x, 0, 4, 4), [query("A", expr, instant=True)])
    tile["fieldConfig"]["defaults"] = {
        "unit": "none",
        "decimals": 0,
        "color": {"mode": "thresholds"},
        "thresholds": steps((None, GREEN), (1, bad)),
        "noValue": none or "no data",
    }
    tile["options"] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value",
        "justifyMode": "center",
        "orientation": "auto",
        "wideLayout": True,
    }
    return tile


def lines(
    title: str,
    description: str,
    at: tuple[int, int, int, int],
    expr: str,
    *,
    unit: str,
    limit: float | None = None,
    maximum: float | None = None,
) -> Json:
    """A line a monitor over time; `limit` draws a threshold and colours what is above it."""
    graph = panel("timeseries", title, description, at, [query("A", expr, "{{monitor}}")])
    graph["fieldConfig"]["defaults"] = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "palette-classic-by-name"},
        "custom": {
            "drawStyle": "line",
            # A gauge holds its value until the next run: a slope between two runs would be made up.
            "lineInterpolation": "stepAfter",
            "lineWidth": 2,
            "fillOpacity": 0,
            "showPoints": "never",
            "spanNulls": False,
            "axisSoftMin": 0,
        },
    }
    if maximum is not None:
        graph["fieldConfig"]["defaults"]["max"] = maximum
    if limit is not None:
        graph["fieldConfig"]["defaults"]["thresholds"] = steps((None, "transparent"), (limit, RED))
        graph["fieldConfig"]["defaults"]["custom"] |= {
            "thresholdsStyle": {"mode": "dashed+area"},
            "axisSoftMax": 1.5 * limit,
        }
    graph["options"] = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return graph


def column(name: str, **properties: Any) -> Json:
    """How one column of a table is drawn; `custom__width` stands for the property `custom.width`."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def variable(name: str, label: str, source: str) -> Json:
    """A multi-value variable over the values of a label."""
    definition = f"label_values({source}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": definition,
        "query": {"qryType": 1, "query": definition, "refId": f"variable-{name}"},
        "refresh": 2,  # when the time range changes: a monitor that is gone can still be looked at
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
        "options": [],
    }


def annotation(name: str, color: str, expr: str, title: str, text: str, *, value_is_time: bool = False) -> Json:
    """Marks on all graphs, from a PromQL query."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "monitor",
        "useValueForTime": "on" if value_is_time else False,
    }
