"""From what is stored to what is exported: series and exemplars by metric."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import islice, pairwise, product
from typing import TypeVar

from drift_monitor import __version__
from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.models import Config, Monitor, Schedule
from drift_monitor.core.retraining import RAILS, State
from drift_monitor.core.types import CheckResult, Outcome, Performance
from drift_monitor.service.counters import Series
from drift_monitor.service.exposition import Drawn, Exemplars, Labels, Sample, Spec
from drift_monitor.service.feature_series import FeatureSeries, clean
from drift_monitor.service.intake import Figures
from drift_monitor.service.messages import model_now
from drift_monitor.service.metrics import KNOWN_LABELS, METRICS
from drift_monitor.service.revision import revision
from drift_monitor.service.scheduler import EPOCH, fires_after
from drift_monitor.service.snapshot import Snapshot

_T = TypeVar("_T")


@dataclass(frozen=True)
class View:
    """All that metrics are drawn from.

    Attributes:
        reloaded: when the configuration was last taken on.
        next_runs, due, running, intake: by monitor.
        intake_waiting: requests that wait to be durable.
        loaded: (monitor, sha256 of a reference) -> when this process first used it.
    """

    config: Config
    snapshot: Snapshot
    reload_ok: bool
    reloaded: datetime
    scheduler_running: bool
    next_runs: Mapping[str, datetime] = field(default_factory=dict)
    due: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    loaded: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    intake: Mapping[str, Figures] = field(default_factory=dict)
    intake_waiting: int = 0

    @cached_property
    def monitors(self) -> Mapping[str, Monitor]:
        """Those that are watched. Nothing is exported about a disabled one, which would look stale for ever."""
        return {name: monitor for name, monitor in self.config.monitors.items() if monitor.enabled}

    def last_performance(self, monitor: str) -> Performance | None:
        """Of the newest window, or of the newest that was judged where that one failed."""
        results = self.snapshot.latest.get(monitor), self.snapshot.latest_judged.get(monitor)
        return next((r.performance for r in results if r is not None and r.performance is not None), None)

    def last_read(self, monitor: str) -> CheckResult | None:
        """The newest window whose rows were read, judged or not."""
        latest = self.snapshot.latest.get(monitor)
        return (
            latest if latest is not None and latest.failure is None else self.snapshot.latest_judged.get(monitor)
        )


@lru_cache(maxsize=1000)
def longest_interval(schedule: Schedule) -> timedelta:
    """The longest time between two fire times in a row, over 15 days or 13 of them, whichever is longer.

    Example:
        >>> longest_interval(Schedule(cron="0 6 * * mon-fri"))
        datetime.timedelta(days=3)
    """
    if schedule.every is not None:
        return schedule.every
    fires: list[datetime] = []
    for fire in islice(fires_after(schedule, EPOCH), 2000):
        fires.append(fire)
        if len(fires) >= 13 and fire - fires[0] > timedelta(days=15):
            break
    return max((b - a for a, b in pairwise(fires)), default=timedelta(0))


def project(view: View, features: FeatureSeries) -> Drawn:
    """Every series, by the name of its metric.

    Args:
        view: what to draw.
        features: keeps those of features from one call to the next.
    """
    series: dict[str, list[Sample]] = defaultdict(list)
    for name, labels, value in (*_daemon(view), *_monitors(view), *_intake(view), *_outbox(view)):
        series[name].append((labels, value))
    judged = {
        name: found for name in view.monitors if (found := view.snapshot.latest_judged.get(name)) is not None
    }
    budgeted = features.within(view.config.metrics, judged, view.snapshot.judged_runs)
    series |= budgeted.series
    series["metrics_suppressed_series"] = [((), budgeted.cut)]
    receivers = _receivers(view)
    for spec in METRICS:
        if spec.type == "counter":
            series[spec.name] = _counters(spec, view, receivers)
        elif spec.type == "histogram":
            series[spec.name] = _histograms(spec, view, receivers)
    return series


def exemplars(view: View) -> Exemplars:
    """Runs that counters and histograms counted, by metric and label values."""
    receivers = _receivers(view)
    return {
        (spec.name, labels): seen
        for spec in METRICS
        if spec.type != "gauge"
        for labels, seen in _stored(spec, view, receivers, view.snapshot.exemplars)
    }


_Value = tuple[str, Labels, float]  # metric, label values, value


def _daemon(view: View) -> Iterator[_Value]:
    yield "build_info", (__version__, revision(), platform.python_version()), 1
    yield "config_last_reload_successful", (), view.reload_ok
    yield "config_last_reload_success_timestamp_seconds", (), view.reloaded.timestamp()
    yield "scheduler_running", (), view.scheduler_running


def _monitors(view: View) -> Iterator[_Value]:
    for name, monitor in view.monitors.items():
        of = (name,)
        live = view.snapshot.latest_judged.get(name)
        model = model_now(monitor, live.reference if live else None)
        yield "monitor_info", (name, *(clean(model[part]) for part in ("name", "version", "owner"))), 1
        yield "run_interval_seconds", of, longest_interval(monitor.schedule).total_seconds()
        yield "runs_due", of, view.due.get(name, 0)
        yield "runs_in_progress", of, view.running.get(name, 0)
        if name in view.next_runs:
            yield "scheduler_next_run_timestamp_seconds", of, view.next_runs[name].timestamp()
        if name in view.snapshot.finished:
            yield "run_last_completion_timestamp_seconds", of, view.snapshot.finished[name].timestamp()
        if name in view.snapshot.succeeded:
            yield "run_last_success_timestamp_seconds", of, view.snapshot.succeeded[name].timestamp()
        if (latest := view.snapshot.latest.get(name)) is not None:
            yield "run_last_duration_seconds", of, sum(latest.seconds.values())
        if (read := view.last_read(name)) is not None:
            yield from _window(of, read)
        yield from _performance(view, name)
        if (judged := view.snapshot.latest_judged.get(name)) is not None:
            yield from _drift(of, judged)
            yield from _reference(view, name, judged)
        for lane in ("drift", "quality"):
            is_open = any(e.monitor == name and e.lane == lane for e in view.snapshot.open_episodes)
            yield "episode_open", (name, lane), is_open
        if monitor.retrain is not None:
            yield from _retraining(view, name)


def _intake(view: View) -> Iterator[_Value]:
    yield "intake_requests_waiting", (), view.intake_waiting
    for name in view.monitors:
        if (figures := view.intake.get(name)) is None:
            continue
        told = {
            "intake_events_waiting": figures.waiting,
            "intake_last_rows_timestamp_seconds": figures.newest,
            "spool_files": figures.files,
            "spool_bytes": figures.bytes,
        }
        for metric, value in told.items():
            if value is not None:
                yield metric, (name,), value
        for partition, messages in figures.lag.items():
            yield "kafka_lag_messages", (name, partition), messages


def _retraining(view: View, name: str) -> Iterator[_Value]:
    held = {rail for e in view.snapshot.open_episodes if e.monitor == name for rail in e.held}
    for rail in RAILS:
        yield "retraining_held", (name, rail), rail in held
    newest = view.snapshot.retrainings.get(name)
    for state in State:
        yield "retraining_state", (name, state.value), newest is not None and newest.state is state
    if newest is None:
        return
    yield "retraining_changed_timestamp_seconds", (name,), newest.changed.timestamp()
    if newest.weights is not None:
        yield "training_weights_effective_rows", (name,), newest.weights.effective_sample_size
        yield "training_weights_adopted", (name,), newest.weights.adopt
    if newest.labelled is not None:
        yield "live_labelled_ratio", (name,), newest.labelled


def _window(of: tuple[str], read: CheckResult) -> Iterator[_Value]:
    yield "data_quality_failed", of, len(read.failed_quality)
    yield "window_rows", of, read.rows
    yield "window_invalid_rows", of, read.invalid_rows
    yield "window_start_timestamp_seconds", of, read.window.start.timestamp()
    yield "window_end_timestamp_seconds", of, read.window.end.timestamp()
    if read.sample is not None:
        yield "window_sample_ratio", of, read.sample / 100
    if read.duplicate_rows is not None:
        yield "window_duplicate_rows", of, read.duplicate_rows
    if read.newest_event is not None:
        yield "newest_event_timestamp_seconds", of, read.newest_event.timestamp()


def _drift(of: tuple[str], judged: CheckResult) -> Iterator[_Value]:
    yield "features", of, len(judged.features)
    yield "features_drifted", of, len(judged.drifted)
    yield "promise_info", (*of, judged.promise_basis), 1
    if judged.false_alerts_per_month is not None:
        yield "false_alerts_per_month_target", of, judged.false_alerts_per_month
    yield "drift_detected", of, judged.verdict is Outcome.DRIFT
    if judged.score is not None:
        yield "drift_score", of, judged.score
    if judged.threshold is not None:
        yield "drift_score_threshold", of, judged.threshold
    if (before := judged.previous) is not None and before.score is not None and before.threshold is not None:
        yield "previous_reference_drift_score", of, before.score
        yield "previous_reference_drift_score_threshold", of, before.threshold


def _performance(view: View, name: str) -> Iterator[_Value]:
    if (found := view.last_performance(name)) is None:
        return
    yield "performance_window_end_timestamp_seconds", (name,), found.window.end.timestamp()
    yield "performance_labelled_rows", (name,), found.labelled
    if found.coverage is not None:
        yield "label_coverage_ratio", (name,), found.coverage
    for loss in found.losses:
        of = (name, loss.metric)
        yield "performance", of, loss.value
        if loss.standard_error is not None:
            yield "performance_standard_error", of, loss.standard_error
        if loss.reference is not None:
            yield "performance_reference", of, loss.reference


def _reference(view: View, name: str, judged: CheckResult) -> Iterator[_Value]:
    if (reference := judged.reference) is None:
        return
    yield "reference_info", (name, clean(reference.version), reference.sha256), 1
    yield "reference_rows", (name,), reference.rows
    yield "reference_created_timestamp_seconds", (name,), reference.created.timestamp()
    if (loaded := view.loaded.get((name, reference.sha256))) is not None:
        yield "reference_loaded_timestamp_seconds", (name,), loaded.timestamp()


def _receivers(view: View) -> list[str]:
    """Those configured, and those that still have messages which somebody must deal with."""
    left = {receiver for receiver, state in view.snapshot.outbox if state in {"pending", "dead"}}
    return [*view.config.receivers, *sorted(left - view.config.receivers.keys())]


def _outbox(view: View) -> Iterator[_Value]:
    for receiver in _receivers(view):
        count, oldest = view.snapshot.outbox.get((receiver, "pending"), (0, None))
        yield "outbox_messages", (receiver,), count
        yield "outbox_dead_messages", (receiver,), view.snapshot.outbox.get((receiver, "dead"), (0, None))[0]
        if oldest is not None:
            yield "outbox_oldest_message_timestamp_seconds", (receiver,), oldest.timestamp()
        if (last := view.snapshot.last_delivery.get(receiver)) is not None:
            yield "webhook_last_success_timestamp_seconds", (receiver,), last.timestamp()


def _stored(
    spec: Spec, view: View, receivers: Sequence[str], stored: Mapping[Series, _T]
) -> Iterator[tuple[tuple[str, ...], _T]]:
    """The stored series of a metric whose monitor or receiver still exists."""
    known = {"monitor": view.monitors, "receiver": receivers}
    for (name, pairs), value in stored.items():
        labels = dict(pairs)
        if (
            name == spec.name
            and labels.keys() == set(spec.labels)
            and all(label not in known or text in known[label] for label, text in pairs)
        ):
            yield tuple(clean(labels[label]) for label in spec.labels), value


def _counters(spec: Spec, view: View, receivers: Sequence[str]) -> list[Sample]:
    monitors = [
        name
        for name, monitor in view.monitors.items()
        if not spec.name.startswith("intake_") or isinstance(monitor.source, SpooledSource)
    ]
    known: dict[str, Sequence[str]] = {"monitor": monitors, "receiver": receivers}
    known.update(KNOWN_LABELS.get(spec.name, {}))
    values = dict.fromkeys(product(*(known[label] for label in spec.labels)), 0.0)
    for labels, value in _stored(spec, view, receivers, view.snapshot.counters):
        values[labels] = value
    return list(values.items())


def _histograms(spec: Spec, view: View, receivers: Sequence[str]) -> list[Sample]:
    return list(_stored(spec, view, receivers, view.snapshot.histograms))
