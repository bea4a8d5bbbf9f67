"""What Prometheus sees: a projection of the store, never a second state.

`METRICS` is the catalogue; documentation and tests are derived from it. Names go without the prefix
`drift_monitor_`. A sum over `method` means nothing, and scores compare only as score/threshold.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.process_collector import ProcessCollector

from drift_monitor.core.retraining import State
from drift_monitor.core.types import FailureReason
from drift_monitor.intake.refused import REASONS
from drift_monitor.service.exposition import PREFIX, Compressed, Drawn, Exemplars, Spec, render

__all__ = ["FEATURE_METRICS", "KNOWN_LABELS", "METRICS", "PREFIX", "Exposition", "content_type"]

_END = b"# EOF\n"  # of OpenMetrics

_M, _F, _R = ("monitor",), ("monitor", "feature", "segment"), ("receiver",)
METRICS: tuple[Spec, ...] = (
    Spec("build_info", "gauge", "Always 1; what is running.", ("version", "revision", "python_version")),
    Spec("config_last_reload_successful", "gauge", "Whether the configuration on disk is the one that runs."),
    Spec("config_last_reload_success_timestamp_seconds", "gauge", "When a configuration was last taken on."),
    Spec("scheduler_running", "gauge", "Whether due windows are being entered."),
    Spec("scheduler_next_run_timestamp_seconds", "gauge", "When the next window is due.", _M),
    Spec("runs_in_progress", "gauge", "Windows being evaluated now.", _M),
    Spec("runs_due", "gauge", "Windows waiting to be evaluated.", _M),
    Spec("runs_missed_total", "counter", "Windows that were not evaluated because of downtime.", _M),
    Spec("metrics_suppressed_series", "gauge", "Per-feature series cut from this page by metrics.max_series."),
    Spec("monitor_info", "gauge", "Always 1; the model watched.", ("monitor", "model", "model_version", "owner")),
    Spec("runs_total", "counter", "Windows evaluated, whatever the verdict.", _M),
    Spec("windows_revised_total", "counter", "Windows judged again to another result.", _M),
    Spec("run_failures_total", "counter", "Windows not judged because something failed.", ("monitor", "reason")),
    Spec("runs_skipped_total", "counter", "Windows not judged for want of rows.", ("monitor", "reason")),
    Spec("run_duration_seconds", "histogram", "Time to evaluate a window, by phase.", ("monitor", "phase")),
    Spec("run_last_duration_seconds", "gauge", "Time the last evaluation took.", _M),
    Spec("run_last_completion_timestamp_seconds", "gauge", "When the last evaluation ended.", _M),
    Spec("run_last_success_timestamp_seconds", "gauge", "When a window was last judged.", _M),
    Spec("run_interval_seconds", "gauge", "Longest time between two windows of the schedule.", _M),
    Spec("features", "gauge", "Features of the last judged window.", _M),
    Spec("features_drifted", "gauge", "Features over their thresholds in the last judged window.", _M),
    Spec("drift_score", "gauge", "The monitor's drift score; compare with its threshold only.", _M),
    Spec("drift_score_threshold", "gauge", "Drift when the score is above this.", _M),
    Spec("false_alerts_per_month_target", "gauge", "False alerts a month that the threshold is set for.", _M),
    Spec("promise_info", "gauge", "Always 1; what the promise about false alerts rests on.", ("monitor", "basis")),
    Spec("drift_detected", "gauge", "Whether the last judged window drifted.", _M),
    Spec(
        "episode_open", "gauge", "Whether an episode is open in the lane: drift or quality.", ("monitor", "lane")
    ),
    Spec("data_quality_failed", "gauge", "Expectations that the last window read does not meet.", _M),
    Spec("window_rows", "gauge", "Rows of the last window read.", _M),
    Spec("window_sample_ratio", "gauge", "Share of the last window that was read, where a sample is.", _M),
    Spec("window_duplicate_rows", "gauge", "Rows of the last window read whose id was seen before.", _M),
    Spec("window_invalid_rows", "gauge", "Rows of the last window read that could not be used.", _M),
    Spec("window_start_timestamp_seconds", "gauge", "Start of the last window read.", _M),
    Spec("window_end_timestamp_seconds", "gauge", "End of the last window read.", _M),
    Spec("newest_event_timestamp_seconds", "gauge", "Newest event time of the last window read.", _M),
    Spec("rows_processed_total", "counter", "Rows evaluated.", _M),
    Spec("intake_rows_total", "counter", "Rows taken by push or from Kafka.", _M),
    Spec(
        "intake_refused_total",
        "counter",
        "Requests, Kafka messages, or events without their other half, that were not taken.",
        ("monitor", "reason"),
    ),
    Spec("intake_last_rows_timestamp_seconds", "gauge", "When rows were last taken.", _M),
    Spec("intake_requests_waiting", "gauge", "Requests whose rows are being made durable."),
    Spec("intake_events_waiting", "gauge", "KServe events that wait for their other half.", _M),
    Spec(
        "kafka_lag_messages", "gauge", "Messages of a partition that are not read yet.", ("monitor", "partition")
    ),
    Spec("spool_files", "gauge", "Files in which rows that were taken are kept.", _M),
    Spec("spool_bytes", "gauge", "Bytes of these files.", _M),
    Spec("label_coverage_ratio", "gauge", "Share of the predictions behind `performance` that have a label.", _M),
    Spec(
        "performance",
        "gauge",
        "Loss of the newest predictions whose labels are complete, smaller is better.",
        ("monitor", "metric"),
    ),
    Spec("performance_standard_error", "gauge", "Its error, if rows were independent.", ("monitor", "metric")),
    Spec("performance_reference", "gauge", "The same loss of the reference's rows.", ("monitor", "metric")),
    Spec("performance_labelled_rows", "gauge", "Predictions with a label behind `performance`.", _M),
    Spec("performance_window_end_timestamp_seconds", "gauge", "End of the predictions behind `performance`.", _M),
    Spec("reference_info", "gauge", "Always 1; the reference compared with.", ("monitor", "version", "sha256")),
    Spec("reference_rows", "gauge", "Rows of the training data behind the reference.", _M),
    Spec("reference_created_timestamp_seconds", "gauge", "When the reference was built.", _M),
    Spec("reference_loaded_timestamp_seconds", "gauge", "When this process first used the reference.", _M),
    Spec(
        "feature_drift_score",
        "gauge",
        "Score of the deciding method, larger is further: compare with its threshold, never sum over method.",
        (*_F, "method"),
    ),
    Spec(
        "feature_drift_score_threshold",
        "gauge",
        "The feature drifts when the method's score is above this.",
        (*_F, "method"),
    ),
    Spec(
        "feature_drift_p_value",
        "gauge",
        "p-value of a method if rows were independent, which those of a log seldom are.",
        (*_F, "method"),
    ),
    Spec(
        "feature_drift_statistic",
        "gauge",
        "Statistic of a method in its own unit, larger is further: never sum over method.",
        (*_F, "method"),
    ),
    Spec("feature_drift_detected", "gauge", "Whether the feature is over its threshold.", _F),
    Spec("feature_null_ratio", "gauge", "Share of null rows.", _F),
    Spec("feature_out_of_range_ratio", "gauge", "Share of rows outside the reference's range.", _F),
    Spec("feature_new_category_ratio", "gauge", "Share of rows of categories that the reference lacks.", _F),
    Spec("alerts_total", "counter", "Messages about episodes that opened or got worse.", ("monitor", "severity")),
    Spec(
        "retraining_state",
        "gauge",
        "1 for the state of the newest retraining, 0 for the others.",
        ("monitor", "state"),
    ),
    Spec("retraining_changed_timestamp_seconds", "gauge", "When the newest retraining came into its state.", _M),
    Spec("retraining_held", "gauge", "Whether a guard rail holds a retraining back.", ("monitor", "guard_rail")),
    Spec("retrainings_total", "counter", "Retrainings that came into a state.", ("monitor", "state")),
    Spec("training_weights_effective_rows", "gauge", "Kish's effective sample size of the newest weights.", _M),
    Spec("training_weights_adopted", "gauge", "Whether training with the newest weights helps.", _M),
    Spec("live_labelled_ratio", "gauge", "Share of live rows with a label at the newest retraining.", _M),
    Spec("previous_reference_drift_score", "gauge", "Score against the reference before, on trial.", _M),
    Spec("previous_reference_drift_score_threshold", "gauge", "The threshold of that score.", _M),
    Spec("webhook_requests_total", "counter", "Attempts to deliver a message.", _R),
    Spec("webhook_request_failures_total", "counter", "Attempts that failed.", ("receiver", "reason")),
    Spec("webhook_request_duration_seconds", "histogram", "Time an attempt took.", _R),
    Spec("webhook_last_success_timestamp_seconds", "gauge", "When the receiver last took a message.", _R),
    Spec("outbox_messages", "gauge", "Messages waiting to be delivered.", _R),
    Spec("outbox_oldest_message_timestamp_seconds", "gauge", "When the oldest message waiting was made.", _R),
    Spec("outbox_dead_messages", "gauge", "Messages given up and neither sent again nor dropped since.", _R),
    Spec("outbox_dead_letters_total", "counter", "Messages given up.", _R),
)
_DELIVERY_FAILURES = (
    *("timeout", "connect", "tls", "blocked", "protocol", "status_4xx", "status_5xx"),
    *("redirect", "refused", "gone", "config", "internal"),
)
KNOWN_LABELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # counters that start at 0 for each of these
    "run_failures_total": {"reason": tuple(FailureReason)},
    "intake_refused_total": {"reason": REASONS},
    "runs_skipped_total": {"reason": ("insufficient_data",)},
    "retrainings_total": {"state": tuple(State)},
    "alerts_total": {"severity": ("warning", "critical")},
    "webhook_request_failures_total": {"reason": _DELIVERY_FAILURES},
}


FEATURE_METRICS: tuple[Spec, ...] = tuple(spec for spec in METRICS if "feature" in spec.labels)
_OTHERS = tuple(spec for spec in METRICS if "feature" not in spec.labels)


def content_type(*, openmetrics: bool) -> str:
    """Of a page in one of the two formats."""
    return OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE_PLAIN_0_0_4


class Exposition:
    """Renders and compresses series once, and serves them until there are new ones.

    Per-feature series are most of a page and change only when a window is judged, so they come first: what
    follows is compressed after them, and at a scrape only the process's own figures.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: Drawn = {}
        self._exemplars: Exemplars = {}
        self._features: dict[bool, Compressed] = {}  # by format: whether it is OpenMetrics
        self._pages: dict[bool, Compressed] = {}
        self._process = ProcessCollector(registry=None)

    def update(self, drawn: Drawn, exemplars: Exemplars) -> None:
        """Take on new series, and render them in the formats asked for so far.

        Args:
            drawn: samples by the name of their metric. The samples of a per-feature metric count as unchanged when
                they are the same list as before.
            exemplars: of counters and histograms.
        """
        same = all(drawn.get(s.name) is self._drawn.get(s.name) for s in FEATURE_METRICS)
        with self._lock:
            asked = list(self._pages)
            features = dict(self._features) if same else {}
        pages = {o: self._page(drawn, exemplars, features, openmetrics=o) for o in asked}
        with self._lock:
            self._drawn, self._exemplars, self._features, self._pages = drawn, exemplars, features, pages

    def render(self, accept: str, *, compressed: bool) -> tuple[bytes, str]:
        """What a scrape gets.

        Args:
            accept: the Accept header: OpenMetrics where it is named, otherwise Prometheus text.
            compressed: whether to gzip.

        Returns:
            Body and Content-Type.
        """
        openmetrics = "application/openmetrics-text" in accept
        with self._lock:
            if openmetrics not in self._pages:
                self._pages[openmetrics] = self._page(
                    self._drawn, self._exemplars, self._features, openmetrics=openmetrics
                )
            page = self._pages[openmetrics]
        body = page.whole(self._of_this_moment(openmetrics=openmetrics))
        return (body if compressed else gzip.decompress(body)), content_type(openmetrics=openmetrics)

    @staticmethod
    def _page(
        drawn: Drawn, exemplars: Exemplars, features: dict[bool, Compressed], *, openmetrics: bool
    ) -> Compressed:
        """A page without its end; the part that `features` lacks is put there."""
        if openmetrics not in features:
            features[openmetrics] = Compressed(render(FEATURE_METRICS, drawn, {}, openmetrics=openmetrics))
        rest = render(_OTHERS, drawn, exemplars, openmetrics=openmetrics)
        return Compressed(rest, after=features[openmetrics])

    def _of_this_moment(self, *, openmetrics: bool) -> bytes:
        """Memory and CPU of the process, which no run brings about."""
        latest = openmetrics_latest if openmetrics else generate_latest
        text: bytes = latest(self._process)
        return text
