"""One feature of one monitor: how far, since when, and is it the data."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard, stat, timeseries
from grafana_foundation_sdk.models import common
from panels import (
    BAD_ABOVE_ONE,
    PAGE,
    annotations,
    lines,
    monitors,
    page,
    place,
    query,
    threshold_line,
    tile,
    to_page,
    variable,
    words,
)
from queries import FEATURE, ONE, feature_ratio, metric, ratio
from words import DRIFTED, PLAIN, WHAT_A_FEATURE_SAYS


def tiles() -> list[stat.Panel]:
    """Where the feature stands now."""
    return [
        tile(
            "Drifted",
            "Whether the feature is over its threshold in the newest judged window.",
            f"max({metric('feature_drift_detected', FEATURE)})",
            PLAIN,
            words=[DRIFTED],
            none="not exported",
        ),
        tile(
            "Score / threshold",
            "Of the newest judged window. Above 1 the feature drifts.",
            f"max({feature_ratio(FEATURE)})",
            BAD_ABOVE_ONE,
            decimals=2,
            none="not exported",
        ),
        tile(
            "Smallest p-value",
            "Of the methods. How often independent rows from one distribution would be this far apart."
            " Exported with `p_values` in `metrics.detail`.",
            f"min({metric('feature_drift_p_value', FEATURE)})",
            PLAIN,
            unit="sci",
            decimals=1,
            none="not exported",
        ),
        tile(
            "Nulls",
            "Share of null rows in the newest judged window.",
            f"max({metric('feature_null_ratio', FEATURE)})",
            PLAIN,
            unit="percentunit",
            decimals=2,
            none="not exported",
        ),
        tile(
            "Reference",
            "The version of the reference compared with, and when it was built.",
            f"1000 * max by (version) ({metric('reference_info', ONE)} * on (job, instance, monitor)"
            f" group_left ()"
            f" {metric('reference_created_timestamp_seconds', ONE)})",
            PLAIN,
            unit="dateTimeFromNow",
            name="{{version}}",
            none="none",
        ),
        tile(
            "Last judged",
            "When a window of the monitor last got a verdict.",
            f"1000 * max({metric('run_last_success_timestamp_seconds', ONE)} > 0)",
            PLAIN,
            unit="dateTimeFromNow",
            none="never",
        ),
    ]


def score() -> timeseries.Panel:
    """The raw score against its threshold, by method."""
    panel = lines(
        "Score against threshold",
        "The feature's score in the unit of its method, and the threshold that it is held against. Above the"
        " dashed line the feature drifts.",
        [
            query("A", f"max by (method) ({metric('feature_drift_score', FEATURE)})", "score by {{method}}"),
            query(
                "B",
                f"max by (method) ({metric('feature_drift_score_threshold', FEATURE)})",
                "threshold of {{method}}",
            ),
        ],
        unit="none",
        none="not exported",
    )
    return threshold_line(panel, "^threshold of .*")


def p_value() -> timeseries.Panel:
    """The p-value, on a logarithmic axis."""
    panel = lines(
        "p-value",
        "On a logarithmic axis that ends at 1e-16. Small values alone do not say that the feature moved far:"
        " with many rows everything is significant. Exported with `p_values` in `metrics.detail`.",
        [
            query(
                "A",
                # A logarithm of 0 would break the axis.
                f"clamp_min(min by (method) ({metric('feature_drift_p_value', FEATURE)}), 1e-16)",
                "p-value by {{method}}",
            )
        ],
        listed=True,
        unit="sci",
        decimals=1,
        minimum=None,
        maximum=1,
        none="not exported",
    )
    panel.axis_grid_show(axis_grid_show=False)  # a line at each of nine parts of a decade
    return panel.scale_distribution(shared.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))


def quality() -> timeseries.Panel:
    """What is wrong with the rows themselves."""
    return lines(
        "Quality",
        "Shares of rows of the newest judged window: null, outside the reference's range, of categories that"
        " the reference lacks. A numeric feature has no categories, and a categorical one no range.",
        [
            query(ref, f"max by (feature) ({metric(name, FEATURE)})", f"{{{{feature}}}}: {says}")
            for ref, name, says in (
                ("A", "feature_null_ratio", "null"),
                ("B", "feature_out_of_range_ratio", "out of range"),
                ("C", "feature_new_category_ratio", "new categories"),
            )
        ],
        unit="percentunit",
        soft_maximum=0.05,
        none="not exported",
    )


def in_context() -> timeseries.Panel:
    """The feature beside its monitor."""
    return lines(
        "Beside its monitor",
        "Score / threshold of the feature and of the whole monitor: whether this feature leads, or is one of"
        " many.",
        [
            query("A", f"max by (feature) ({feature_ratio(FEATURE)})", "{{feature}}"),
            query("B", f"max by (monitor) ({ratio(ONE)})", "monitor {{monitor}}"),
        ],
        unit="none",
        limit=1,
    )


def rows() -> timeseries.Panel:
    """How many rows stand behind the comparison."""
    return lines(
        "Rows compared",
        "Rows of the newest window, and of the training data behind the reference. A small window moves by"
        " chance.",
        [
            query("A", f"max by (monitor) ({metric('window_rows', ONE)})", "window of {{monitor}}"),
            query("B", f"max by (monitor) ({metric('reference_rows', ONE)})", "reference of {{monitor}}"),
        ],
        unit="locale",
    )


def feature() -> dashboard.Dashboard:
    """One feature."""
    built = page(
        "feature",
        "Feature",
        "One feature of one monitor: how far it is from the training data, since when, and whether it is the"
        " data.",
        [
            monitors(multi=False),
            variable("feature", "Feature", metric("feature_drift_score", ONE), multi=False),
        ],
    )
    built.link(to_page("Runs and reports", PAGE + "${monitor:percentencode}"))
    for mark in annotations(ONE):
        built.annotation(mark)
    return place(
        built,
        (4, [(4, one) for one in tiles()]),
        (10, [(16, score()), (8, words("What a feature's score says", WHAT_A_FEATURE_SAYS))]),
        (9, [(12, p_value()), (12, quality())]),
        (9, [(12, in_context()), (12, rows())]),
    )
