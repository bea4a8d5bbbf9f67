"""What follows drift: weights, a refreshed training set, a retraining. No I/O."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from drift_monitor.config.labels import Labels
from drift_monitor.config.names import Name
from drift_monitor.config.sources import FilesSource, Source, sample_of
from drift_monitor.config.tables import TableSource
from drift_monitor.core.policy import Delay, Duration, Model, Share


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
