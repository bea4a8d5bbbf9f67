"""What a configuration file may say: strict, frozen, complete before anything starts. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import timedelta
from ipaddress import ip_address
from math import gcd
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, HttpUrl, Tag, model_validator
from pydantic_core import PydanticCustomError

from drift_monitor.config.clusters import Executor, SparkSource, ThreadsExecutor
from drift_monitor.config.intake import KafkaSource, PushSource, SpooledSource
from drift_monitor.config.receivers import Receiver, misplaced
from drift_monitor.config.tables import DeltaSource, IcebergSource, SqlSource, TableSource
from drift_monitor.config.zones import TimeZone
from drift_monitor.core.policy import (
    Alarm,
    Delay,
    Duration,
    Maintenance,
    Model,
    Quality,
    Share,
    Size,
    format_duration,
)
from drift_monitor.core.types import EDGES, Kind

_PUSHED_EDGES = 20  # the least there are
_WEEKDAY = r"(mon|tue|wed|thu|fri|sat|sun)"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
ENDPOINT_PATTERN = r"^https?://[^/?#@\s]+$"
LISTEN_PATTERN = r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"


Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Server(Model):
    """Where /metrics and the pages are served.

    Attributes:
        listen: host:port; other machines can reach it only when a `token_file` guards it.
    """

    listen: Annotated[str, Field(pattern=LISTEN_PATTERN)] = "127.0.0.1:9877"
    token_file: Annotated[Path | None, Field(description="bearer token that guards all but health")] = None
    reload_endpoint: Annotated[bool, Field(description="serve POST /-/reload")] = False
    public_url: Annotated[
        HttpUrl | None, Field(description="how people reach this server, for links in messages")
    ] = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to bind."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        host = self.address[0]
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.address[1] > 65535:
            raise ValueError(f"port {self.address[1]} is above 65535")
        if not self.is_loopback and self.token_file is None:
            raise ValueError(
                f"{self.listen} can be reached from other machines: set token_file, or listen on 127.0.0.1"
            )
        return self


class Workers(Model):
    """The child processes that evaluate windows.

    Attributes:
        count: how many windows are evaluated at the same time.
    """

    count: Annotated[int, Field(ge=1, le=64)] = 1
    deadline: Annotated[Duration, Field(description="a run that takes longer is killed")] = timedelta(minutes=10)
    memory: Annotated[
        Size, Field(ge=64 * 2**20, description="a run that needs more is killed")  # less cannot even import numpy
    ] = 2 * 2**30
    idle: Annotated[Duration, Field(description="a worker without work for this long ends")] = timedelta(minutes=1)
    grace: Annotated[Duration, Field(description="how long a stop waits for runs in progress")] = timedelta(
        seconds=20
    )


class Retention(Model):
    """How long finished things are kept.

    Attributes:
        runs: runs with their verdicts, closed episodes.
        reports: Evidently pages.
    """

    results: Annotated[
        Duration, Field(description="what a run found feature by feature, nearly all of the database")
    ] = timedelta(days=30)
    runs: Duration = timedelta(days=400)
    reports: Duration = timedelta(days=90)
    delivered: Annotated[Duration, Field(description="delivered messages; dead letters stay until dropped")] = (
        timedelta(days=30)
    )


FeatureDetail = Literal["quality", "p_values", "statistics"]


class Metrics(Model):
    """Which per-feature series are on /metrics; /metrics/features has all of one monitor.

    Attributes:
        features: all of them, those that drifted, the `top_k` most drifted, or none.
        top_k: how many, with `features: top_k`.
    """

    features: Literal["all", "drifted", "top_k", "none"] = "all"
    top_k: Annotated[int, Field(ge=1)] = 20
    max_series: Annotated[int, Field(ge=0, description="budget for per-feature series of all monitors")] = 10_000
    detail: Annotated[
        tuple[FeatureDetail, ...],
        Field(
            description="told of a feature besides score, threshold and verdict: shares of null, out-of-range "
            "and new values; the p-value of every method; its statistic"
        ),
    ] = ("quality",)


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


_TEXT_ENDINGS: Final = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


class FilesSource(Model):
    """Files that a path or glob names: Parquet, CSV or JSONL.

    Attributes:
        type: `files`.
        format: told by the file names' endings when `auto`; `sagemaker`: what an endpoint captures, as JSON lines.
        inputs, outputs: of captures, names of the values that come without, as CSV does.
    """

    type: Literal["files"] = "files"
    path: Annotated[
        str, Field(min_length=1, description="a file, folder or glob; * ? [] and ** work; also `s3://bucket/...`")
    ]
    format: Literal["auto", "parquet", "csv", "jsonl", "sagemaker"] = "auto"
    timestamp: Annotated[
        str | None, Field(description="event-time column; without one the whole source is a window")
    ] = None
    timezone: Annotated[TimeZone, Field(description="of timestamps that carry none")] = "UTC"
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    hive: Annotated[bool, Field(description="read key=value folder names as columns")] = False
    endpoint: Annotated[
        str | None,
        Field(pattern=ENDPOINT_PATTERN, description="URL of an object store that speaks S3 but is not AWS"),
    ] = None
    region: Annotated[str | None, Field(min_length=1, description="of the bucket; looked up if absent")] = None
    sample: Annotated[
        float | None,
        Field(
            gt=0, lt=100, description="percent of the Parquet row groups of each hour that are read; all if absent"
        ),
    ] = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        named = [*self.inputs, *self.outputs]
        if named and self.format != "sagemaker":
            raise ValueError("`inputs` and `outputs` go with `format: sagemaker`: other files name their columns")
        if repeated := next((name for name in named if named.count(name) > 1), None):
            raise ValueError(f"{repeated!r} is named twice in `inputs` and `outputs`")
        return self

    @model_validator(mode="after")
    def _known_store(self) -> Self:
        scheme, found, _ = self.path.partition("://")
        if found and scheme != "s3":
            raise ValueError(
                f"files at {scheme}:// cannot be read: `path` names files on this machine, or s3://bucket/..."
            )
        if not found and (self.endpoint is not None or self.region is not None):
            raise ValueError("`endpoint` and `region` are for a `path` that begins with s3://")
        return self

    @model_validator(mode="after")
    def _sample_of_parquet(self) -> Self:
        text = self.path.lower().endswith(_TEXT_ENDINGS) if self.format == "auto" else self.format != "parquet"
        if self.sample is not None and text:
            raise ValueError("`sample` chooses row groups of Parquet files, and text has none: leave it out")
        return self


def _type_of(source: object) -> object:
    """The tag of a source: `files` where it names no type, or is no section at all, which that model says."""
    return source.get("type", "files") if isinstance(source, dict) else getattr(source, "type", "files")


Source = Annotated[
    Annotated[FilesSource, Tag("files")]
    | Annotated[SqlSource, Tag("sql")]
    | Annotated[DeltaSource, Tag("delta")]
    | Annotated[IcebergSource, Tag("iceberg")]
    | Annotated[SparkSource, Tag("spark")]
    | Annotated[PushSource, Tag("push")]
    | Annotated[KafkaSource, Tag("kafka")],
    Discriminator(_type_of),  # a validator before the union would make strict models refuse what JSON has
]


LabelSource = Annotated[
    Annotated[FilesSource, Tag("files")]
    | Annotated[SqlSource, Tag("sql")]
    | Annotated[DeltaSource, Tag("delta")]
    | Annotated[IcebergSource, Tag("iceberg")],
    Discriminator(_type_of),
]


def sample_of(source: Source) -> float | None:
    """Percent of a source's pages or row groups that are to be read; None when all are."""
    return source.sample if isinstance(source, SqlSource | FilesSource) else None


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


MOST_SEGMENTS = 20
"""Of one column."""


def _as_text(value: object) -> object:
    """A category as results name it: `true` and `7` are values of columns of truth values and whole numbers."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


SegmentValue = Annotated[str, BeforeValidator(_as_text)]
Segments = Annotated[
    Annotated[str, Tag("column")]
    | Annotated[
        dict[str, Annotated[tuple[SegmentValue, ...], Field(min_length=1, max_length=MOST_SEGMENTS)]],
        Tag("values"),
    ],
    Discriminator(lambda item: "values" if isinstance(item, dict) else "column"),
]


def _segmented(items: tuple[Segments, ...]) -> list[tuple[str, tuple[str, ...] | None]]:
    sections = [{item: None} if isinstance(item, str) else item for item in items]
    return [(column, values) for section in sections for column, values in section.items()]


def _all_different(items: tuple[Segments, ...]) -> tuple[Segments, ...]:
    if not all(items):
        raise ValueError("has an item that names no column")
    seen: set[str] = set()
    for column, values in _segmented(items):
        if column in seen or len(set(values or ())) < len(values or ()):
            raise ValueError(f"names {column!r} or one of its values twice")
        seen.add(column)
    return items


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


class Reweight(Model):
    """Weights that make the training rows look like the live ones; made when a drift episode opens.

    Attributes:
        enabled: whether they are made by the daemon; `drift-monitor reweight` makes them in any case.
        method: a domain classifier, raking on `columns`, or what fits the drift.
        columns: to rake; the drifted features when empty.
        learner: import path of a scikit-learn estimator such as `sklearn.linear_model.Ridge`, on which the gate
            decides; gradient boosting when absent.
        seed: of samples, folds and models.
    """

    enabled: bool = False
    method: Literal["auto", "classifier", "raking"] = "auto"
    columns: tuple[str, ...] = ()
    mix: Annotated[
        float,
        Field(gt=0, lt=1, description="lambda of relative weights: none is above 1/mix (r / ((1 - mix) + mix r))"),
    ] = 0.01
    learner: Annotated[str | None, Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")] = None
    live_rows: Annotated[int, Field(ge=500, le=5_000_000, description="live rows that are looked at")] = 100_000
    seed: Annotated[int, Field(ge=0)] = 0


class Refresh(Model):
    """A new version of the training set, from the old one and labelled live rows.

    Attributes:
        enabled: whether the daemon makes one for each retraining; `drift-monitor refresh` makes one in any case.
        policy: `append` adds the live rows; `sliding` keeps the newest `span`; `stratified` keeps as many rows of
            each group of `by` as the cap allows.
        span: event time that a sliding set covers, counted back from its newest row.
        max_rows: of the new set; the cap thins by a hash of the id, so the same rows stay.
        by: columns whose values make the groups.
        parts: shares of the split, one of them `train`; a row always falls in the same part.
        live: stretch of live event time that is taken in, counted back from the window's end.
        seed: of the split and the thinning.
    """

    enabled: bool = False
    policy: Literal["append", "sliding", "stratified"] = "append"
    span: Duration | None = None
    max_rows: Annotated[int | None, Field(ge=1)] = None
    by: tuple[str, ...] = ()
    parts: Annotated[dict[Name, Share], Field(min_length=1)] = {"train": 0.8, "test": 0.2}
    live: Duration = timedelta(days=28)
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if abs(sum(self.parts.values()) - 1) > 1e-9:
            raise ValueError(f"the parts must sum to 1, got {sum(self.parts.values()):g}")
        if "train" not in self.parts:
            raise ValueError(f"one of the parts must be called train, got {', '.join(self.parts)}")
        if (self.policy == "sliding") != (self.span is not None):
            raise ValueError("`span` goes with `policy: sliding`, and is needed there, such as span: 90d")
        if self.policy == "stratified" and not (self.by and self.max_rows):
            raise ValueError("`policy: stratified` needs `by` and `max_rows`")
        return self


class Costs(Model):
    """What wrong decisions cost, in any one unit.

    Attributes:
        false_negative: of a case that the model did not see coming.
        false_positive: of a false alarm of the model's.
    """

    false_negative: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    false_positive: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Labels(Model):
    """The truth that arrives later, in a source of its own, and is joined to the predictions by their ids.

    Attributes:
        source: of the labels: an id, the truth, and when it was known (`timestamp`, needed here).
        horizon: how long after its prediction a label still counts.
        threshold: a prediction from here on says yes, where the truth is yes or no.
        costs: of wrong decisions; reported beside the share of them.
    """

    source: LabelSource
    id: Annotated[str | None, Field(min_length=1, description="its column of ids; `columns.id` if absent")] = None
    label: Annotated[
        str | None, Field(min_length=1, description="its column of the truth; `columns.label` if absent")
    ] = None
    horizon: Duration
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    costs: Costs | None = None

    @model_validator(mode="after")
    def _dated(self) -> Self:
        if sample_of(self.source) is not None:
            raise ValueError("labels.source cannot be a sample, which leaves out labels: take `sample` away")
        if isinstance(self.source, SqlSource) and self.source.pushdown is not None:
            raise ValueError("labels.source is joined row by row: take `pushdown` away")
        if self.source.timestamp is None:
            raise ValueError("labels.source needs `timestamp`: the column that says when a label was known")
        return self


def unrefreshable(source: Source, labels: Labels | None) -> str | None:
    """Why no training set can be made from a source's rows and its late labels; None when one can.

    A version can be made again from its manifest, which names files and their bytes; a table of today does not
    have the rows of last month, nor any order.
    """
    for each in [source] if labels is None else [source, labels.source]:
        if isinstance(each, TableSource) or (isinstance(each, FilesSource) and "://" in each.path):
            return (
                "a training set is refreshed from files on this machine: copy the labelled live rows to Parquet "
                "files and run `drift-monitor refresh` for a monitor whose source is these files"
            )
    if sample_of(source) is not None:
        return (
            "a training set takes in all labelled live rows, and `source.sample` leaves most out: run "
            "`drift-monitor refresh` for a monitor of the same files without it"
        )
    return None


class Retrain(Model):
    """What happens when a drift episode opens: nothing without this section.

    Attributes:
        receiver: of the pipeline.
        mode: `notify` only tells; `propose` asks a person (`drift-monitor approve`); `auto` asks the pipeline.
        timeout: a pipeline that has reported nothing new for this long has failed to answer.
        labels: the share of the window's rows that must have a label; without labels only weights can be offered.
        promote: whether the training data of a model that went live becomes the reference.
    """

    receiver: Name
    mode: Literal["notify", "propose", "auto"] = "propose"
    cooldown: Annotated[Delay, Field(description="after a retraining ended, none is begun for this long")] = (
        timedelta(days=7)
    )
    per_month: Annotated[int, Field(ge=1, description="retrainings in any 30 days")] = 4
    min_rows: Annotated[int, Field(ge=1, description="rows that the drifted window must have")] = 1000
    labels: Annotated[float, Field(ge=0, le=1)] = 0.5
    expires: Annotated[Duration, Field(description="a proposal that nobody decides on ends after this long")] = (
        timedelta(days=7)
    )
    timeout: Duration = timedelta(days=1)
    deadline: Annotated[
        Duration, Field(description="to compute weights and training set, or to build the new reference")
    ] = timedelta(hours=1)
    trial: Annotated[
        Duration, Field(description="after a promotion the old reference is compared too for this long")
    ] = timedelta(days=14)
    give_up: Annotated[
        int, Field(ge=1, description="after so many retrainings that did not end the drift a person must act")
    ] = 2
    promote: bool = True
    mlflow_secret_file: Annotated[
        Path | None, Field(description="secret of MLflow's registry webhook, which can tell that a model is live")
    ] = None
    mlflow_alias: Annotated[str, Field(description="the alias that the live model has in MLflow")] = "champion"


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
    segments: Annotated[tuple[Segments, ...], AfterValidator(_all_different)] = ()
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
        return dict(_segmented(self.segments))

    @model_validator(mode="after")
    def _kept_long_enough(self) -> Self:
        if (
            isinstance(self.source, SpooledSource)
            and self.source.keep is not None
            and self.source.keep < self.needed
        ):
            raise ValueError(
                f"source.keep is {format_duration(self.source.keep)}, but a window with its delay"
                f"{' and a refresh' if self.refresh.enabled else ''} needs {format_duration(self.needed)}"
            )
        return self

    @property
    def needed(self) -> timedelta:
        """How far back the rows are that a check or a refresh looks at."""
        window = self.window.length + self.window.delay
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
