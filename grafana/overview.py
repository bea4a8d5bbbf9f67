"""The overview: all monitors on one page, what has drifted, what is broken, what nobody watches."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as shared
from panels import (
    BAD_ABOVE_ONE,
    BLUE,
    GREEN,
    ORANGE,
    PAGE,
    PURPLE,
    RATIO_CELL,
    annotations,
    bars,
    cells,
    lines,
    link,
    monitors,
    page,
    place,
    properties,
    query,
    tile,
    timeline,
    to_feature,
    to_monitor,
    words,
)
from queries import DAEMON, EACH, MONITORS, broken, feature_ratio, metric, ratio, stale, state, unjudged
from words import SHOULD_BE_ZERO, STATES, WHAT_A_SCORE_MEANS

PROPOSED = MONITORS + ', state="proposed"'


def tiles() -> list[stat.Panel]:
    """Eight numbers that should be 0."""
    waiting = metric("outbox_messages", DAEMON)
    oldest = metric("outbox_oldest_message_timestamp_seconds", DAEMON)
    return [
        tile(
            "Drifted",
            "Monitors whose newest judged window drifted.",
            f"sum({metric('drift_detected', MONITORS)})",
            SHOULD_BE_ZERO,
        ),
        tile(
            "Broken data",
            "Monitors whose newest window fails a data-quality expectation.",
            f"sum({broken(MONITORS)})",
            ((None, GREEN), (1, ORANGE)),
        ),
        tile(
            "Stale",
            "Monitors without a judged window for 2.5 schedule intervals, or ever. What they show is old.",
            f"sum({stale(MONITORS)})",
            ((None, GREEN), (1, PURPLE)),
        ),
        tile(
            "Last run failed",
            "Monitors whose newest run ended without a verdict: something failed, or there were too few rows.",
            f"sum({unjudged(MONITORS)})",
            ((None, GREEN), (1, ORANGE)),
            none="no runs",
        ),
        tile(
            "Await approval",
            "Retrainings that are proposed and wait for a person to approve or reject them.",
            f"sum({metric('retraining_state', PROPOSED)})",
            ((None, GREEN), (1, BLUE)),
            none="none set up",
        ),
        tile(
            "Deliveries failing",
            "Receivers whose oldest message has waited for more than ten minutes: two quick retries have failed.",
            f"sum((time() - ({oldest} > 0) > bool 600) or 0 * {waiting})",
            ((None, GREEN), (1, ORANGE)),
            none="no receivers",
        ),
        tile(
            "Messages given up",
            "Messages that used up all attempts or were refused for good. They wait to be sent again by hand.",
            f"sum({metric('outbox_dead_messages', DAEMON)})",
            SHOULD_BE_ZERO,
            none="no receivers",
        ),
        tile(
            "Daemons down",
            "Daemons that Prometheus cannot scrape.",
            f"sum(up{{{DAEMON}}} == bool 0)",
            SHOULD_BE_ZERO,
        ),
    ]


def monitors_table() -> table.Panel:
    """A row a monitor."""
    info = f"{EACH}, model, model_version, owner"
    panel = cells(
        "Monitors",
        "One row a monitor, as of the end of the time range. Score / threshold above 1 is drift. A monitor is"
        " stale when no window was judged for 2.5 of its schedule intervals. Open episodes are what alerts and"
        " messages are about. A click on a name leads to the monitor.",
        {
            "info": f"max by ({info}) ({metric('monitor_info', MONITORS)})",
            "state": f"max by ({EACH}) ({state(MONITORS)})",
            "ratio": f"max by ({EACH}) ({ratio(MONITORS)})",
            "episodes": f"sum by ({EACH}) ({metric('episode_open', MONITORS)})",
            "drifted": f"max by ({EACH}) ({metric('features_drifted', MONITORS)})",
            "rows": f"max by ({EACH}) ({metric('window_rows', MONITORS)})",
            "judged": f"1000 * max by ({EACH}) ({metric('run_last_success_timestamp_seconds', MONITORS)} > 0)",
            "newest": f"1000 * max by ({EACH}) ({metric('newest_event_timestamp_seconds', MONITORS)} > 0)",
            "retraining": f"max by ({EACH}, state) ({metric('retraining_state', MONITORS)} == 1)",
            "reference": f"max by ({EACH}, version) ({metric('reference_info', MONITORS)})",
        },
        {
            "monitor": "Monitor",
            "Value #state": "State",
            "Value #ratio": "Score / threshold",
            "Value #episodes": "Episodes",
            "Value #drifted": "Features drifted",
            "Value #rows": "Rows",
            "Value #judged": "Last judged",
            "Value #newest": "Newest row",
            "state": "Retraining",
            "version": "Reference",
            "model": "Model",
            "model_version": "Version",
            "owner": "Owner",
        },
        ["Value #info", "Value #retraining", "Value #reference"],
    )
    panel.override_by_name(
        "Monitor",
        properties(
            custom__minWidth=140,
            links=[
                to_monitor("__value.raw"),
                link("The daemon's page", PAGE + "${__value.raw:percentencode}", new_tab=True),
            ],
        ),
    )
    panel.override_by_name(
        "State",
        properties(
            mappings=STATES, custom__cellOptions={"type": "color-text"}, custom__align="left", custom__width=140
        ),
    )
    panel.override_by_name("Score / threshold", properties(**RATIO_CELL))
    for name, width in (("Episodes", 82), ("Features drifted", 130), ("Retraining", 95), ("Version", 85)):
        panel.override_by_name(name, properties(decimals=0, custom__width=width))
    panel.override_by_name("Rows", properties(unit="locale", custom__width=90))
    for name in ("Last judged", "Newest row"):
        panel.override_by_name(name, properties(unit="dateTimeFromNow", custom__width=118))
    panel.override_by_name("Reference", properties(custom__width=205))
    return panel.sort_by([shared.TableSortByFieldState().display_name("State").desc(desc=True)])


def states() -> statetimeline.Panel:
    """When each monitor was in which state."""
    return timeline(
        "State",
        "What each monitor was in: ok, drift, broken data, or stale (no window judged for 2.5 schedule"
        " intervals).",
        [query("A", f"max by (monitor) ({state(MONITORS)})", "{{monitor}}")],
        STATES,
        links=[to_monitor("__field.labels.monitor")],
    )


def scores() -> timeseries.Panel:
    """How far each monitor is, in the one form that compares."""
    return lines(
        "Score / threshold",
        "Each monitor's score divided by its threshold: above the line at 1 the window drifts. Raw scores of"
        " different monitors do not compare.",
        [query("A", f"max by (monitor) ({ratio(MONITORS)})", "{{monitor}}")],
        unit="none",
        limit=1,
    )


def features() -> bargauge.Panel:
    """The features furthest out now."""
    return bars(
        "Features furthest out",
        "The ten features with the largest score / threshold over their methods in the newest judged window."
        " Above 1 is drift. Features left out by `metrics.features` or the series budget are missing here.",
        f"sort_desc(topk(10, max by (monitor, feature) ({feature_ratio(MONITORS)})))",
        "{{monitor}}: {{feature}}",
        BAD_ABOVE_ONE,
        decimals=2,
        maximum=2,  # one feature far out would leave nothing of the others
        none="no per-feature series",
        links=[to_feature("__field.labels.monitor", "__field.labels.feature")],
    )


def rows() -> timeseries.Panel:
    """Whether there is enough to judge."""
    return lines(
        "Rows in window",
        "Rows in the newest window of each monitor.",
        [query("A", f"max by (monitor) ({metric('window_rows', MONITORS)})", "{{monitor}}")],
        unit="locale",
    )


def nulls() -> timeseries.Panel:
    """Whether it is the data rather than the world."""
    return lines(
        "Highest null ratio",
        "The share of nulls in the feature that has most of them. Empty where per-feature series are not"
        " exported.",
        [query("A", f"max by (monitor) ({metric('feature_null_ratio', MONITORS)})", "{{monitor}}")],
        unit="percentunit",
        none="no per-feature series",
        soft_maximum=0.05,
    )


def overview() -> dashboard.Dashboard:
    """All monitors on one page."""
    says = "Drift of live data from the training data, over all monitors."
    built = page("overview", "Overview", says, [monitors(multi=True)])
    for mark in annotations(MONITORS):
        built.annotation(mark)
    return place(
        built,
        (4, [(3, one) for one in tiles()]),
        (7, [(24, monitors_table())]),
        (6, [(24, states())]),
        (10, [(10, scores()), (8, features()), (6, words("What a score means", WHAT_A_SCORE_MEANS))]),
        (9, [(12, rows()), (12, nulls())]),
    )
