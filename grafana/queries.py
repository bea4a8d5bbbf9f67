"""PromQL that several panels share.

Kept beside alerts/drift-monitor.rules.yml, not taken from its recording rules: the dashboards work without the
rules being loaded.
"""

from __future__ import annotations

DAEMON = 'job=~"$job", instance=~"$instance"'
MONITORS = f'{DAEMON}, monitor=~"$monitor"'
ONE = f'{DAEMON}, monitor="$monitor"'  # the dashboards of one monitor: its name is a text, not a pattern
FEATURE = f'{ONE}, feature="$feature"'

EACH = "job, instance, monitor"
STALE_AFTER = 2.5  # schedule intervals; an interval counts as a minute at least, as in the alert


def metric(name: str, of: str, at: str = "") -> str:
    """The selector of one of our metrics: its name without the prefix, its label matchers, a modifier."""
    return f"drift_monitor_{name}{{{of}}}{at}" if of else f"drift_monitor_{name}{at}"


def ratio(of: str) -> str:
    """How far a monitor is: above 1 is drift."""
    return f"{metric('drift_score', of)} / {metric('drift_score_threshold', of)}"


def feature_ratio(of: str, at: str = "") -> str:
    """How far a feature is: above 1 it drifts."""
    return f"{metric('feature_drift_score', of, at)} / {metric('feature_drift_score_threshold', of, at)}"


def broken(of: str) -> str:
    """1 where the newest window fails an expectation, else 0."""
    return f"({metric('data_quality_failed', of)} > bool 0)"


def stale(of: str) -> str:
    """1 where no window was judged for 2.5 schedule intervals, or ever, else 0."""
    interval = metric("run_interval_seconds", of)
    return (
        f"(time() - {metric('run_last_success_timestamp_seconds', of)}"
        f" > bool {STALE_AFTER} * clamp_min({interval}, 60) or 0 * {interval} + 1)"
    )


def unjudged(of: str) -> str:
    """1 where the newest run ended without a verdict, else 0."""
    ended = metric("run_last_completion_timestamp_seconds", of)
    return f"({ended} > bool {metric('run_last_success_timestamp_seconds', of)} or 0 * {ended} + 1)"


def state(of: str) -> str:
    """What a monitor is in, as one number: 1 drift + 2 broken data + 4 stale. A part never exported is 0."""
    none = f"0 * {metric('run_interval_seconds', of)}"
    return f"({metric('drift_detected', of)} or {none}) + 2 * ({broken(of)} or {none}) + 4 * {stale(of)}"


def retraining(of: str) -> str:
    """When the newest retraining came into its state, in seconds, with the label `state`."""
    return (
        f"({metric('retraining_state', of)} == 1) * on ({EACH}) group_left ()"
        f" {metric('retraining_changed_timestamp_seconds', of)}"
    )


def ten_most(of_feature: str, furthest: str) -> str:
    """The whole lines of the ten features that are highest at the end of the time range.

    `topk` by itself picks ten anew at each step, which leaves scraps of many lines.

    Args:
        of_feature: values with a label `feature`.
        furthest: the same at the end of the time range, with `@ end()`.
    """
    return f"max by (feature) ({of_feature}) and on (feature) topk(10, max by (feature) ({furthest}))"
