"""What a configuration file may say: strict, frozen, complete before anything starts. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import timedelta
from math import gcd
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from drift_monitor.config.clusters import Executor, SparkSource, ThreadsExecutor
from drift_monitor.config.daemon import Metrics, Retention, Server, Workers
from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.labels import Labels
from drift_monitor.config.loop import Refresh, Retrain, Reweight, unrefreshable
from drift_monitor.config.names import Name
from drift_monitor.config.receivers import Receiver, misplaced
from drift_monitor.config.segments import Segments, all_different, segmented
from drift_monitor.config.sources import FilesSource, Source, sample_of
from drift_monitor.config.tables import SqlSource
from drift_monitor.config.zones import TimeZone
from drift_monitor.core.policy import Alarm, Delay, Duration, Maintenance, Model, Quality, format_duration
from drift_monitor.core.types import EDGES, Kind

_PUSHED_EDGES = 20  # the least there are


_WEEKDAY = r"(mon|tue|wed|thu|fri|sat|sun)"


class ModelInfo(Model):
    """The model that is being watched; travels in messages and metrics.

    Attributes:
        name: of the model.
        version: of the model; a text, so in quotes where it looks like a number.
        owner: who answers for it.
    """

    name: str = ""
    version: str = ""
    owner: str = ""


class Schedule(Model):
    """When a monitor runs: `every` or `cron`.

    Attributes:
        every: the time between checks, counted from 1970-01-01 UTC, so that a restart changes nothing.
        timezone: in which `cron` is read.
    """

    every: Duration | None = None
    cron: Annotated[
        str | None,
        Field(description="minute hour day month weekday; weekdays by name (mon..sun), never by number"),
    ] = None
    timezone: TimeZone = "UTC"
    catch_up: Annotated[
        Literal["latest", "all"],
        Field(description="after downtime: evaluate the latest missed window, or every one"),
    ] = "latest"

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("give exactly one of `every` (such as 1h) or `cron` (such as '5 * * * *')")
        if self.every is not None and self.every < timedelta(seconds=1):
            raise ValueError(f"every must be at least 1s, got {format_duration(self.every)}")
        if self.cron is not None:
            self._check_cron(self.cron)
        return self

    @staticmethod
    def _check_cron(cron: str) -> None:
        fields = cron.split()
        if len(fields) != 5:
            raise ValueError(
                f"cron needs five fields (minute hour day month weekday), got {len(fields)}: {cron!r}"
            )
        weekday = fields[4].lower()
        if not re.fullmatch(rf"\*|{_WEEKDAY}(-{_WEEKDAY})?(,{_WEEKDAY}(-{_WEEKDAY})?)*", weekday):
            raise ValueError(
                f"cron weekday {fields[4]!r}: use names such as mon-fri, "
                "because numbers mean different days in different tools"
            )
        from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - a cluster's workers need none

        try:
            CronTrigger.from_crontab(cron)
        except ValueError as error:
            raise ValueError(f"cron {cron!r}: {error}") from None


class WindowConfig(Model):
    """How much event time one check looks at.

    Attributes:
        length: a whole number of buckets.
    """

    length: Duration = timedelta(days=1)
    delay: Annotated[Delay, Field(description="how long to wait for late rows after the window's end")] = (
        timedelta(0)
    )
    lateness: Annotated[
        Delay,
        Field(
            description="windows that ended up to this long before the last are judged again when rows come late"
        ),
    ] = timedelta(0)
    bucket: Annotated[Duration, Field(description="profiles are kept per bucket of event time and merged")] = (
        timedelta(hours=1)
    )
    incremental: Annotated[
        bool, Field(description="keep the buckets' profiles in the state, so that each row is read once")
    ] = True

    @model_validator(mode="after")
    def _whole_buckets(self) -> Self:
        if self.length % self.bucket:
            microsecond = timedelta(microseconds=1)
            fitting = gcd(self.length // microsecond, self.bucket // microsecond) * microsecond
            raise ValueError(
                f"length {format_duration(self.length)} is not a whole number of buckets "
                f"of {format_duration(self.bucket)}: add `bucket: {format_duration(fitting)}`"
            )
        return self


def covered(names: Iterable[str], known: Collection[str]) -> set[str]:
    """The columns that are meant by names: a name that is no column's stands for all that lie below it.

    Example:
        >>> sorted(covered(["payload", "a"], ["payload.age", "payload.geo.city", "a", "a.b"]))
        ['a', 'payload.age', 'payload.geo.city']
    """
    there, found = set(known), set[str]()
    for name in names:
        found |= {name} if name in there else {each for each in there if each.startswith(f"{name}.")}
    return found


class Columns(Model):
    """What the columns mean. Everything not named is a feature of the reference's kind.

    Attributes:
        prediction: the model's output; watched like a feature.
        label: the truth, where it arrives later; not watched.
        id: of a row, to count duplicates; not watched.
        ignore: columns that are not watched; `payload` is all that lies in it.
        edges: how fine the cells are in which numbers are counted: what lies between two edges is alike.
    """

    prediction: str | None = None
    label: str | None = None
    id: str | None = None
    features: Annotated[
        tuple[str, ...] | None, Field(description="only these; all when absent; as in `ignore`")
    ] = None
    ignore: tuple[str, ...] = ()
    kinds: Annotated[dict[str, Kind], Field(description="overrides of what the reference's types imply")] = {}
    edges: Annotated[int, Field(ge=20, le=4000, description="quantiles of a number that bound its cells")] = EDGES

    def watched(self, known: Collection[str], timestamp: str | None) -> list[str]:
        """Those of the known columns that are features, or the prediction, in their order."""
        apart = {*covered(self.ignore, known), timestamp, self.label, self.id} - {self.prediction}
        wanted = known if self.features is None else {*covered(self.features, known), self.prediction}
        return [name for name in known if name in wanted and name not in apart]


class Report(Model):
    """The Evidently report that is made when an episode opens.

    Attributes:
        enabled: whether one is made.
        deadline: a report that takes longer is given up.
    """

    enabled: bool = True
    rows: Annotated[int, Field(ge=100, le=1_000_000, description="row sample of each side")] = 20_000
    deadline: Duration = timedelta(minutes=5)


class Monitor(Model):
    """One watch: source, reference, window, schedule, policy.

    Attributes:
        model: what the data feeds.
        source: where live rows are.
        executor: who reads and folds them.
        schedule: when to check.
        window: what to check.
        columns: what the columns mean.
        segments: slices of the rows that are watched by themselves too: the frequent values of a categorical
            column (`carrier`), or some of its values (`{region: [eu, us]}`).
        alarm: when a change counts as drift, and when to speak of it.
        quality: when data counts as broken.
        maintenance: stretches without messages.
        report: the page made when an episode opens.
        labels: the truth, where it arrives in a source of its own.
        training: the training rows, for weights and refreshed sets; `reference` where that is a file.
        retrain: who is asked to retrain, and what holds that back.
        reweight: weights for the training rows.
        refresh: how a new training set is put together.
        downstream: who uses the model's output; named in messages.
        enabled: false keeps the section but does nothing.
    """

    model: ModelInfo = ModelInfo()
    reference: Annotated[Path, Field(description="a reference folder, or a training file to build one from")]
    source: Source
    executor: Executor = ThreadsExecutor()
    schedule: Schedule
    window: WindowConfig = WindowConfig()
    columns: Columns = Columns()
    segments: Annotated[tuple[Segments, ...], AfterValidator(all_different)] = ()
    alarm: Alarm = Alarm()
    quality: Quality = Quality()
    maintenance: tuple[Maintenance, ...] = ()
    report: Report = Report()
    labels: Labels | None = None
    training: Path | None = None
    retrain: Retrain | None = None
    reweight: Reweight = Reweight()
    refresh: Refresh = Refresh()
    downstream: tuple[str, ...] = ()
    notify: Annotated[tuple[str, ...], Field(description="receivers that hear of this monitor")] = ()
    enabled: bool = True

    @model_validator(mode="after")
    def _labels_can_be_counted(self) -> Self:
        retrain = self.retrain
        if retrain is not None and retrain.mode != "notify" and retrain.labels > 0 and self.columns.label is None:
            raise ValueError(
                "retrain needs to know whether live rows have labels: name columns.label, or set retrain.labels "
                "to 0 if the pipeline takes its labels from elsewhere"
            )
        if self.refresh.enabled and None in {self.columns.id, self.columns.label}:
            raise ValueError("refresh needs columns.id and columns.label")
        if self.refresh.enabled and (why := unrefreshable(self.source, self.labels)):
            raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _labels_can_be_joined(self) -> Self:
        if self.labels is not None and None in {self.columns.id, self.columns.label, self.source.timestamp}:
            raise ValueError(
                "labels needs columns.id and source.timestamp, by which they are joined to the predictions, and "
                "columns.label, the column that they become"
            )
        if self.labels is not None and self.columns.label in {self.columns.id, self.columns.prediction}:
            raise ValueError(
                f"labels becomes the column {self.columns.label!r} (columns.label), which is the id or the "
                "prediction as well: give the truth a name of its own"
            )
        return self

    @model_validator(mode="after")
    def _workers_can_read(self) -> Self:
        if isinstance(self.executor, ThreadsExecutor) or isinstance(self.source, FilesSource):
            return self
        if isinstance(self.source, SparkSource):
            raise ValueError(  # noqa: TRY004 - pydantic takes no TypeError
                "a table of Spark is folded by the Spark that `source` names: leave `executor` out"
            )
        raise ValueError(
            f"the workers of `executor: {{type: {self.executor.type}}}` read files, and a source of type "
            f"{self.source.type} is read by the process that checks: leave `executor` out"
        )

    @model_validator(mode="after")
    def _counted_by_the_database(self) -> Self:
        if not isinstance(self.source, SqlSource) or self.source.pushdown is None:
            return self
        if self.columns.edges > _PUSHED_EDGES:
            raise ValueError(
                f"`pushdown` needs `columns: {{edges: {_PUSHED_EDGES}}}` (they are {self.columns.edges}): a "
                "database compares each number with the edges"
            )
        unfit = {
            "alarm.multivariate: []": bool(self.alarm.multivariate),
            "report: {enabled: false}": self.report.enabled,
            "no segments": bool(self.segments),
            "no labels": self.labels is not None,
            "no refresh": self.refresh.enabled,
            "no reweight": self.reweight.enabled,
            "retrain.labels: 0": self.retrain is not None
            and self.retrain.mode != "notify"
            and self.retrain.labels > 0,
            "no quality.duplicates": self.quality.duplicates is not None,
        }
        if missing := [setting for setting, wrong in unfit.items() if wrong]:
            raise ValueError(f"no row leaves a database with `pushdown`, so this needs {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _segments_of_watched_columns(self) -> Self:
        columns = self.columns
        for column in self.segmented:
            if not columns.watched([column], self.source.timestamp):
                raise ValueError(f"segments has {column!r}, which is not watched (see columns)")
            if (kind := columns.kinds.get(column)) not in {None, "categorical", "boolean"}:
                raise ValueError(f"segments has {column!r}, which columns.kinds says is {kind}")
        return self

    @property
    def segmented(self) -> dict[str, tuple[str, ...] | None]:
        """The segments as values by column; None for those that are frequent."""
        return dict(segmented(self.segments))

    @model_validator(mode="after")
    def _kept_long_enough(self) -> Self:
        if (
            isinstance(self.source, SpooledSource)
            and self.source.keep is not None
            and self.source.keep < self.needed
        ):
            raise ValueError(
                f"source.keep is {format_duration(self.source.keep)}, but a window with its delay"
                f"{' and lateness' if self.window.lateness else ''}"
                f"{' and a refresh' if self.refresh.enabled else ''} needs {format_duration(self.needed)}"
            )
        return self

    @model_validator(mode="after")
    def _late_rows_are_noticed(self) -> Self:
        source, lateness = self.source, self.window.lateness
        if not lateness:
            return self
        table = source if isinstance(source, SqlSource) else None
        pushed = table is not None and table.pushdown is not None
        early = table is not None and not pushed and (table.lateness or timedelta(0)) < self.looked_back
        unfit = {
            "source.timestamp": source.timestamp is None,
            "window.incremental": not self.window.incremental,
            f"source.lateness of {format_duration(self.looked_back)} or more": early,
            "no source.pushdown": pushed,
            "no source.sample": sample_of(source) is not None,
            "another source than a table of Spark": isinstance(source, SparkSource),
        }
        if missing := [setting for setting, wrong in unfit.items() if wrong]:
            raise ValueError(
                f"window.lateness needs {', '.join(missing)}: kept profiles tell which rows came late"
            )
        return self

    @property
    def looked_back(self) -> timedelta:
        """How old the oldest row is that a check looks at, with the windows that it may reopen."""
        oldest = self.window.length + self.window.delay
        if not self.window.lateness:
            return oldest
        return oldest + self.window.lateness + (self.schedule.every or timedelta(0))

    @property
    def needed(self) -> timedelta:
        """How far back the rows are that a check or a refresh looks at."""
        window = self.looked_back
        if self.labels is not None:  # those whose labels are complete: up to a window more, since they are aligned
            window += self.window.length + self.labels.horizon
        return max(window, self.refresh.live + self.window.delay) if self.refresh.enabled else window


class Config(Model):
    """A whole configuration file. Relative paths are relative to the file.

    Attributes:
        state: folder of the database, built references and reports; one daemon at a time.
        server: metrics and pages.
        workers: the processes that check.
        retention: how long things are kept.
        metrics: how much /metrics says.
        receivers: who can be told, by name.
        monitors: what is watched, by name.
    """

    state: Path = Path("state")
    server: Server = Server()
    workers: Workers = Workers()
    retention: Retention = Retention()
    metrics: Metrics = Metrics()
    receivers: dict[Name, Receiver] = {}
    monitors: Annotated[dict[Name, Monitor], Field(min_length=1)]

    @model_validator(mode="after")
    def _results_are_kept(self) -> Self:
        for name, monitor in self.monitors.items():
            if monitor.window.lateness and monitor.looked_back > self.retention.results:
                found, kept = monitor.looked_back, self.retention.results
                message = (
                    f"monitors.{name}.window.lateness has windows of {format_duration(found)} judged again, and "
                    f"results are kept for {format_duration(kept)} (retention.results)"
                )
                raise PydanticCustomError("late_results", "{message}", {"message": message})
        return self

    @model_validator(mode="after")
    def _known_receivers(self) -> Self:
        for name, monitor in self.monitors.items():
            asked = [("notify", receiver) for receiver in monitor.notify]
            if monitor.retrain is not None:
                asked.append(("retrain.receiver", monitor.retrain.receiver))
            for setting, receiver in asked:
                if receiver not in self.receivers:
                    known = ", ".join(self.receivers) or "none are configured"
                    message = f"monitors.{name}.{setting}: unknown receiver {receiver!r} (known: {known})"
                    raise PydanticCustomError("unknown_receiver", "{message}", {"message": message})
                if why := misplaced(setting, self.receivers[receiver].type):
                    message = f"monitors.{name}.{setting}: receiver {receiver!r}: {why}"
                    raise PydanticCustomError("misplaced_receiver", "{message}", {"message": message})
        return self
