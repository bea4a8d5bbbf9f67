"""The overview: all monitors on one page, what has drifted, what is broken, what nobody watches."""

from __future__ import annotations

from panels import (
    BLUE,
    DAEMON,
    GREEN,
    MONITOR,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Json,
    annotation,
    column,
    count,
    lines,
    panel,
    query,
    steps,
    variable,
)

EACH = "job, instance, monitor"

# Kept beside alerts/drift-monitor.rules.yml, not taken from its recording rules: the dashboards work
# without the rules being loaded.
STALE_AFTER = 2.5  # schedule intervals; an interval counts as a minute at least, as in the alert
INTERVAL = f"drift_monitor_run_interval_seconds{{{MONITOR}}}"
RATIO = f"drift_monitor_drift_score{{{MONITOR}}} / drift_monitor_drift_score_threshold{{{MONITOR}}}"
BROKEN = f"(drift_monitor_data_quality_failed{{{MONITOR}}} > bool 0)"
STALE = (
    f"(time() - drift_monitor_run_last_success_timestamp_seconds{{{MONITOR}}}"
    f" > bool {STALE_AFTER} * clamp_min({INTERVAL}, 60) or 0 * {INTERVAL} + 1)"
)
# One number for what a monitor is in: 1 drift + 2 broken data + 4 stale. A part that was never exported is 0.
STATE = (
    f"(drift_monitor_drift_detected{{{MONITOR}}} or 0 * {INTERVAL})"
    f" + 2 * ({BROKEN} or 0 * {INTERVAL})"
    f" + 4 * {STALE}"
)
FEATURE_RATIO = (
    f"drift_monitor_feature_drift_score{{{MONITOR}}} / drift_monitor_feature_drift_score_threshold{{{MONITOR}}}"
)
STATE_MAPPINGS: list[Json] = [
    {
        "type": "value",
        "options": {
            "0": {"text": "ok", "color": GREEN, "index": 0},
            "1": {"text": "drift", "color": RED, "index": 1},
            "2": {"text": "broken data", "color": ORANGE, "index": 2},
            "3": {"text": "drift, broken data", "color": RED, "index": 3},
        },
    },
    {"type": "range", "options": {"from": 4, "to": 7, "result": {"text": "stale", "color": PURPLE, "index": 4}}},
]


def tiles() -> list[Json]:
    """The first row: six numbers that should be 0."""
    waiting = f"drift_monitor_outbox_messages{{{DAEMON}}}"
    oldest = f"drift_monitor_outbox_oldest_message_timestamp_seconds{{{DAEMON}}}"
    return [
        count(
            "Drifted",
            "Monitors whose newest judged window drifted.",
            0,
            f"sum(drift_monitor_drift_detected{{{MONITOR}}})",
            RED,
        ),
        count(
            "Broken data",
            "Monitors whose newest window fails a data-quality expectation.",
            4,
            f"sum({BROKEN})",
            ORANGE,
        ),
        count(
            "Stale",
            "Monitors without a judged window for 2.5 schedule intervals, or ever. What they show is old.",
            8,
            f"sum({STALE})",
            PURPLE,
        ),
        count(
            "Deliveries failing",
            "Receivers whose oldest message has waited for more than ten minutes: two quick retries have failed.",
            12,
            f"sum((time() - ({oldest} > 0) > bool 600) or 0 * {waiting})",
            ORANGE,
            "no receivers",
        ),
        count(
            "Messages given up",
            "Messages that used up all attempts or were refused for good. They wait to be sent again by hand.",
            16,
            f"sum(drift_monitor_outbox_dead_messages{{{DAEMON}}})",
            RED,
            "no receivers",
        ),
        count("Daemons down", "Daemons that Prometheus cannot scrape.", 20, f"sum(up{{{DAEMON}}} == bool 0)", RED),
    ]


def monitors_table(at: tuple[int, int, int, int]) -> Json:
    """A row a monitor: instant queries merged on their common labels."""
    columns = {
        "monitor": "Monitor",
        "Value #state": "State",
        "Value #ratio": "Score / threshold",
        "Value #episodes": "Open episodes",
        "Value #drifted": "Features drifted",
        "Value #features": "Features",
        "Value #rows": "Rows in window",
        "Value #judged": "Last judged",
        "Value #newest": "Newest row",
        "version": "Reference",
        "model": "Model",
        "model_version": "Model version",
        "owner": "Owner",
    }
    info = f"{EACH}, model, model_version, owner"
    targets = {
        "info": f"max by ({info}) (drift_monitor_monitor_info{{{MONITOR}}})",
        "state": f"max by ({EACH}) ({STATE})",
        "ratio": f"max by ({EACH}) ({RATIO})",
        "episodes": f"sum by ({EACH}) (drift_monitor_episode_open{{{MONITOR}}})",
        "drifted": f"max by ({EACH}) (drift_monitor_features_drifted{{{MONITOR}}})",
        "features": f"max by ({EACH}) (drift_monitor_features{{{MONITOR}}})",
        "rows": f"max by ({EACH}) (drift_monitor_window_rows{{{MONITOR}}})",
        "judged": f"1000 * max by ({EACH}) (drift_monitor_run_last_success_timestamp_seconds{{{MONITOR}}} > 0)",
        "newest": f"1000 * max by ({EACH}) (drift_monitor_newest_event_timestamp_seconds{{{MONITOR}}} > 0)",
        "reference": f"max by ({EACH}, version) (drift_monitor_reference_info{{{MONITOR}}})",
    }
    table = panel(
        "table",
        "Monitors",
        "One row a monitor, as of the end of the time range. Score / threshold above 1 is drift. A monitor is"
        " stale when no window was judged for 2.5 of its schedule intervals. Open episodes"
        " are what alerts and messages are about.",
        at,
        [query(ref, expr, instant=True, table=True) for ref, expr in targets.items()],
    )
    table["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(
                    ["Time", "job", "instance", "Value #info", "Value #reference"], True
                ),
                "indexByName": {name: i for i, name in enumerate(columns)},
                "renameByName": columns,
            },
        },
    ]
    table["fieldConfig"] = {
        "defaults": {
            "unit": "none",
            "noValue": "-",
            "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        },
        "overrides": [
            column("Monitor", custom__minWidth=140),
            column(
                "State",
                mappings=STATE_MAPPINGS,
                custom__cellOptions={"type": "color-text"},
                custom__align="left",
                custom__width=150,
            ),
            column(
                "Score / threshold",
                decimals=2,
                min=0,
                max=2,
                color={"mode": "thresholds"},
                thresholds=steps((None, GREEN), (0.8, YELLOW), (1, RED)),
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
                custom__minWidth=160,
            ),
            column("Open episodes", decimals=0),
            column("Features drifted", decimals=0),
            column("Features", decimals=0),
            column("Rows in window", unit="short"),
            column("Last judged", unit="dateTimeFromNow"),
            column("Newest row", unit="dateTimeFromNow"),
        ],
    }
    table["options"] = {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
        "sortBy": [{"displayName": "State", "desc": True}],
    }
    return table


def state_timeline(at: tuple[int, int, int, int]) -> Json:
    """When each monitor was in which state."""
    timeline = panel(
        "state-timeline",
        "State",
        "What each monitor was in: ok, drift, broken data, or stale (no window judged for 2.5"
        " schedule intervals).",
        at,
        [query("A", f"max by (monitor) ({STATE})", "{{monitor}}")],
    )
    timeline["fieldConfig"]["defaults"] = {
        "unit": "none",
        "color": {"mode": "thresholds"},
        "thresholds": steps((None, "text")),
        "mappings": STATE_MAPPINGS,
        "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False},
    }
    timeline["options"] = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return timeline


def top_features(at: tuple[int, int, int, int]) -> Json:
    """The features furthest out now."""
    bars = panel(
        "bargauge",
        "Features furthest out",
        "The ten features with the largest score / threshold over their methods in the newest judged window."
        " Above 1 is drift. Features left out by `metrics.features` or the series budget are missing here.",
        at,
        [
            query(
                "A",
                f"sort_desc(topk(10, max by (monitor, feature) ({FEATURE_RATIO})))",
                "{{monitor}}: {{feature}}",
                instant=True,
            )
        ],
    )
    bars["fieldConfig"]["defaults"] = {
        "unit": "none",
        "decimals": 2,
        "min": 0,
        "color": {"mode": "thresholds"},
        "thresholds": steps((None, GREEN), (0.8, YELLOW), (1, RED)),
        "noValue": "no per-feature series",
    }
    bars["options"] = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "namePlacement": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return bars


def overview() -> Json:
    """All monitors on one page: what has drifted, what is broken, what nobody watches."""
    panels = [
        *tiles(),
        monitors_table((0, 4, 24, 8)),
        state_timeline((0, 12, 24, 7)),
        lines(
            "Drift score against threshold",
            "Each monitor's score divided by its threshold: above the line at 1 the window drifts. Raw scores of"
            " different monitors do not compare.",
            (0, 19, 12, 9),
            f"max by (monitor) ({RATIO})",
            unit="none",
            limit=1,
        ),
        top_features((12, 19, 12, 9)),
        lines(
            "Rows in window",
            "Rows in the newest window of each monitor.",
            (0, 28, 12, 8),
            f"max by (monitor) (drift_monitor_window_rows{{{MONITOR}}})",
            unit="short",
        ),
        lines(
            "Highest null ratio",
            "The share of nulls in the feature that has most of them. Empty where per-feature series are not"
            " exported.",
            (12, 28, 12, 8),
            f"max by (monitor) (drift_monitor_feature_null_ratio{{{MONITOR}}})",
            unit="percentunit",
            maximum=1,
        ),
    ]
    return {
        "uid": "drift-monitor-overview",
        "title": "drift-monitor / Overview",
        "description": "Drift of live data from the training data, over all monitors.",
        "tags": ["drift-monitor"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [
            {
                "type": "dashboards",
                "title": "drift-monitor",
                "tags": ["drift-monitor"],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                    "includeAll": False,
                    "multi": False,
                    "options": [],
                    "refresh": 1,
                    "regex": "",
                    "skipUrlSync": False,
                },
                variable("job", "Job", "drift_monitor_build_info"),
                variable("instance", "Instance", 'drift_monitor_build_info{job=~"$job"}'),
                variable("monitor", "Monitor", f"drift_monitor_monitor_info{{{DAEMON}}}"),
            ]
        },
        "annotations": {
            "list": [
                annotation(
                    "Open episodes",
                    RED,
                    f"drift_monitor_episode_open{{{MONITOR}}} == 1",
                    "{{monitor}}: {{lane}} episode",
                    "An episode was open: as many windows failed as the monitor's persistence asks for.",
                ),
                annotation(
                    "Reference loaded",
                    BLUE,
                    f"1000 * drift_monitor_reference_loaded_timestamp_seconds{{{MONITOR}}}",
                    "{{monitor}}: reference loaded",
                    "Windows are compared with this reference from here on.",
                    value_is_time=True,
                ),
            ]
        },
        "panels": [{"id": number, **shown} for number, shown in enumerate(panels, start=1)],
    }
