"""One monitor: how far, which features, is it the data, and what becomes of it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from panels import (
    BAD_ABOVE_ONE,
    GREEN,
    PAGE,
    RATIO_CELL,
    YELLOW,
    annotations,
    bars_over_time,
    cells,
    lines,
    monitors,
    page,
    place,
    properties,
    query,
    threshold_line,
    tile,
    timeline,
    to_feature,
    to_page,
    words,
)
from queries import ONE, feature_ratio, metric, ratio, retraining, state, ten_most
from words import CAME, EPISODES, HELD, PLAIN, STATES, WHAT_A_SCORE_MEANS, YES_NO

AT_END = " @ end()"
NO_FEATURES = "no per-feature series"
NO_LOOP = "no retraining yet"


def tiles() -> list[stat.Panel]:
    """Where the monitor stands now."""
    built = (
        f"max by (version) ({metric('reference_info', ONE)} * on (job, instance, monitor) group_left ()"
        f" {metric('reference_created_timestamp_seconds', ONE)})"
    )
    return [
        tile(
            "State",
            "What the monitor is in: ok, drift, broken data, or stale (no window judged for 2.5 schedule"
            " intervals).",
            f"max({state(ONE)})",
            PLAIN,
            words=STATES,
        ),
        tile(
            "Score / threshold",
            "Of the newest judged window. Above 1 is drift.",
            f"max({ratio(ONE)})",
            BAD_ABOVE_ONE,
            decimals=2,
            none="not judged",
        ),
        tile(
            "Features drifted",
            "Features over their own thresholds in the newest judged window. A few may be without the window"
            " drifting.",
            f"max({metric('features_drifted', ONE)})",
            ((None, GREEN), (1, YELLOW)),
            none="not judged",
        ),
        tile(
            "Rows in window",
            "Rows of the newest window read.",
            f"max({metric('window_rows', ONE)})",
            PLAIN,
            unit="locale",
            none="nothing read",
        ),
        tile(
            "Last judged",
            "When a window last got a verdict.",
            f"1000 * max({metric('run_last_success_timestamp_seconds', ONE)} > 0)",
            PLAIN,
            unit="dateTimeFromNow",
            none="never",
        ),
        tile(
            "Reference",
            "The version of the reference compared with, and when it was built.",
            f"1000 * {built}",
            PLAIN,
            unit="dateTimeFromNow",
            name="{{version}}",
            none="none",
        ),
    ]


def score() -> timeseries.Panel:
    """The raw score against its threshold."""
    panel = lines(
        "Score against threshold",
        "The monitor's drift score in its own unit, and the threshold that it is held against. Above the"
        " dashed line the window drifts.",
        [
            query("A", f"max by (monitor) ({metric('drift_score', ONE)})", "score of {{monitor}}"),
            query("B", f"max by (monitor) ({metric('drift_score_threshold', ONE)})", "threshold of {{monitor}}"),
        ],
        unit="none",
        none="not judged",
    )
    return threshold_line(panel, "^threshold of .*")


def history() -> object:
    """What the monitor was in, and when an episode was open."""
    episode = metric("episode_open", ONE)
    return timeline(
        "State and episodes",
        "The state of each window, and when an episode of drift or of broken data was open: that is when"
        " alerts and messages go out.",
        [
            query("A", f"max by (monitor) ({state(ONE)})", "{{monitor}}"),
            query("B", f"8 + max by (lane) ({episode})", "episode: {{lane}}"),
        ],
        [*STATES, EPISODES],
    )


def features_table() -> table.Panel:
    """A row a feature and method."""
    by = "job, instance, monitor, feature"
    panel = cells(
        "Features",
        "One row a feature, the furthest out first. Above 1 the feature drifts. Features left out by"
        " `metrics.features` or the series budget are missing; p-values are there with `p_values` in"
        " `metrics.detail`. A click on a name leads to the feature.",
        {
            "ratio": f"max by ({by}, method) ({feature_ratio(ONE)})",
            "score": f"max by ({by}, method) ({metric('feature_drift_score', ONE)})",
            "threshold": f"max by ({by}, method) ({metric('feature_drift_score_threshold', ONE)})",
            "p": f"min by ({by}) ({metric('feature_drift_p_value', ONE)})",
            "nulls": f"max by ({by}) ({metric('feature_null_ratio', ONE)})",
            "range": f"max by ({by}) ({metric('feature_out_of_range_ratio', ONE)})",
            "new": f"max by ({by}) ({metric('feature_new_category_ratio', ONE)})",
        },
        {
            "feature": "Feature",
            "Value #ratio": "Score / threshold",
            "Value #score": "Score",
            "Value #threshold": "Threshold",
            "method": "Method",
            "Value #p": "Smallest p",
            "Value #nulls": "Nulls",
            "Value #range": "Out of range",
            "Value #new": "New categories",
        },
        ["monitor"],
    )
    panel.override_by_name(
        "Feature",
        properties(
            custom__minWidth=130,
            links=[to_feature("monitor", "__value.raw")],
        ),
    )
    panel.override_by_name("Score / threshold", properties(**RATIO_CELL))
    for name, width in (("Score", 80), ("Threshold", 95)):
        panel.override_by_name(name, properties(decimals=3, custom__width=width))
    panel.override_by_name("Method", properties(custom__width=105))
    panel.override_by_name("Smallest p", properties(unit="sci", decimals=1, custom__width=100))
    for name, width in (("Nulls", 75), ("Out of range", 110), ("New categories", 130)):
        panel.override_by_name(name, properties(unit="percentunit", decimals=1, custom__width=width))
    return panel.sort_by([shared.TableSortByFieldState().display_name("Score / threshold").desc(desc=True)])


def share(title: str, description: str, name: str) -> timeseries.Panel:
    """A share of rows, of the ten features that have most of it."""
    return lines(
        title,
        f"{description} The ten features that have most of it at the end of the time range.",
        [query("A", ten_most(metric(name, ONE), metric(name, ONE, AT_END)), "{{feature}}")],
        unit="percentunit",
        none=NO_FEATURES,
        listed=True,
        soft_maximum=0.05,
    )


def rows() -> timeseries.Panel:
    """How much there was to judge."""
    return lines(
        "Rows",
        "Rows of the newest window, those that were seen before, and those that could not be used.",
        [
            query(ref, f"max by (monitor) ({metric(name, ONE)})", f"{says} in {{{{monitor}}}}")
            for ref, name, says in (
                ("A", "window_rows", "rows"),
                ("B", "window_duplicate_rows", "duplicates"),
                ("C", "window_invalid_rows", "unusable"),
            )
        ],
        listed=True,
        unit="locale",
    )


def lag() -> timeseries.Panel:
    """How far behind the monitor is."""
    return lines(
        "Lag",
        "The age of the newest row read, of the end of the newest window, and of the newest verdict. All three"
        " grow between runs and fall back at each; one that keeps growing says which part stands still.",
        [
            query(ref, f"time() - max by (monitor) ({metric(name, ONE)} > 0)", f"{says} of {{{{monitor}}}}")
            for ref, name, says in (
                ("A", "newest_event_timestamp_seconds", "newest row"),
                ("B", "window_end_timestamp_seconds", "window"),
                ("C", "run_last_success_timestamp_seconds", "verdict"),
            )
        ],
        listed=True,
        unit="s",
        slopes=True,
    )


def outcomes() -> timeseries.Panel:
    """Runs an hour by how they ended."""
    failed, skipped = metric("run_failures_total", ONE), metric("runs_skipped_total", ONE)

    def hourly(counter: str) -> str:
        by_reason = f"3600 * sum by (reason) (rate({counter}[$__rate_interval])) > 0"
        return f"{by_reason} or 0 * sum by (monitor) (rate({counter}[$__rate_interval]))"

    rates = " - ".join(
        f"sum by (monitor) (rate({counter}[$__rate_interval]))"
        for counter in (metric("runs_total", ONE), failed, skipped)
    )
    return bars_over_time(
        "Outcomes",
        "Runs an hour: judged, failed by reason, and skipped for want of rows. With exemplars switched on in"
        " Prometheus a point links to the run's report.",
        [
            query("A", f"3600 * clamp_min({rates}, 0)", "{{monitor}}: judged", exemplars=True),
            query("B", hourly(failed), "failed {{reason}}"),
            query("C", hourly(skipped), "skipped {{reason}}"),
        ],
        unit="suffix: / h",
    )


def loop_tiles() -> list[stat.Panel]:
    """The newest retraining."""
    promoted = metric("retrainings_total", ONE + ', state="promoted"')
    return [
        tile(
            "Newest retraining",
            "The state that the newest retraining is in, and since when. docs/retraining.md has the states.",
            f"1000 * max by (state) ({retraining(ONE)})",
            PLAIN,
            unit="dateTimeFromNow",
            name="{{state}}",
            none=NO_LOOP,
        ),
        tile(
            "Labelled share",
            "Share of live rows that had a label when the newest retraining was prepared.",
            f"max({metric('live_labelled_ratio', ONE)})",
            PLAIN,
            unit="percentunit",
            decimals=1,
            none="not counted",
        ),
        tile(
            "Weights: effective rows",
            "Kish's effective sample size of the newest weights: that many unweighted rows would train as"
            " steadily.",
            f"max({metric('training_weights_effective_rows', ONE)})",
            PLAIN,
            unit="locale",
            decimals=0,
            none="no weights",
        ),
        tile(
            "Weights adopted",
            "Whether training with the newest weights helps, by the gate's own test. If not, nobody is told to"
            " use them.",
            f"max({metric('training_weights_adopted', ONE)})",
            PLAIN,
            words=[YES_NO],
            none="no weights",
        ),
        tile(
            "New references",
            "Retrainings of the time range whose training data became the reference.",
            f"sum(round(increase({promoted}[$__range])))",
            PLAIN,
            none=NO_LOOP,
        ),
    ]


def loop() -> list[tuple[int, object]]:
    """The states it went through, what holds it back, and the reference before on trial."""
    trial = lines(
        "Reference before, on trial",
        "After a promotion the reference before is still compared with for a while: its score falls under its"
        " threshold when the new reference was a mistake.",
        [
            query(
                "A", f"max by (monitor) ({metric('previous_reference_drift_score', ONE)})", "score of {{monitor}}"
            ),
            query(
                "B",
                f"max by (monitor) ({metric('previous_reference_drift_score_threshold', ONE)})",
                "threshold of {{monitor}}",
            ),
        ],
        unit="none",
        none="none on trial",
    )
    return [
        (
            8,
            timeline(
                "States of retrainings",
                "When the newest retraining was in which state. Only states that occurred have a band.",
                [query("A", f"max by (state) ({metric('retraining_state', ONE)} == 1)", "{{state}}")],
                [CAME],
                none=NO_LOOP,
                legend=False,
            ),
        ),
        (
            8,
            timeline(
                "What holds a retraining back",
                "The guard rails, and when one of them held a retraining back. docs/retraining.md says what"
                " each is for.",
                [query("A", f"max by (guard_rail) ({metric('retraining_held', ONE)})", "{{guard_rail}}")],
                [HELD],
                legend=False,
                none="no retraining is set up",
            ),
        ),
        (8, threshold_line(trial, "^threshold of .*")),
    ]


def monitor() -> dashboard.Dashboard:
    """One monitor."""
    built = page(
        "monitor",
        "Monitor",
        "One monitor: how far its live data is from the training data, in which features, whether it is the"
        " data, and what becomes of it.",
        [monitors(multi=False)],
    )
    built.link(to_page("Runs and reports", PAGE + "${monitor:percentencode}"))
    built.link(to_page("Newest run", "${daemon_url}/api/v1/monitors/${monitor:percentencode}/runs/latest"))
    for mark in annotations(ONE):
        built.annotation(mark)
    furthest = lines(
        "Features furthest out",
        "Score / threshold of the ten features that are furthest out at the end of the time range. Above the"
        " line at 1 a feature drifts.",
        [query("A", ten_most(feature_ratio(ONE), feature_ratio(ONE, AT_END)), "{{feature}}")],
        unit="none",
        limit=1,
        listed=True,
        none=NO_FEATURES,
    )
    return place(
        built,
        (4, [(4, one) for one in tiles()]),
        (9, [(16, score()), (8, words("What a score means", WHAT_A_SCORE_MEANS))]),
        (5, [(24, history())]),
        "Which features",
        (11, [(9, furthest), (15, features_table())]),
        "Is it the data?",
        (
            8,
            [
                (8, share("Nulls", "Share of null rows.", "feature_null_ratio")),
                (
                    8,
                    share(
                        "Out of range",
                        "Share of rows outside the reference's range.",
                        "feature_out_of_range_ratio",
                    ),
                ),
                (
                    8,
                    share(
                        "New categories",
                        "Share of rows of categories that the reference lacks.",
                        "feature_new_category_ratio",
                    ),
                ),
            ],
        ),
        (8, [(8, rows()), (8, lag()), (8, outcomes())]),
        "What becomes of it: the loop from drift to a new model",
        (4, [(width, one) for width, one in zip((6, 4, 5, 4, 5), loop_tiles(), strict=True)]),
        (8, loop()),
    )
