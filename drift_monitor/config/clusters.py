"""Who reads and folds the rows of a check: threads of the worker, or the user's own Spark or Dask. No I/O."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from drift_monitor.config.tables import Options, TableSource
from drift_monitor.core.policy import Model

MASTER_PATTERN = r"^(local(\[[0-9*, ]+\])?|spark://\S+|k8s://\S+|yarn|sc://\S+)$"
ADDRESS_PATTERN = r"^(tcp|tls|ucx|ws|wss)://[^\s/]+$"


class SparkCluster(Model):
    """Which Spark."""

    master: Annotated[
        str,
        Field(
            pattern=MASTER_PATTERN,
            description="`spark://host:7077`, `yarn`, `k8s://...`, `local[2]`, or `sc://host:15002` for Connect",
        ),
    ]
    python: Annotated[
        str | None,
        Field(min_length=1, description="of its workers; with a `local` master that of this process if absent"),
    ] = None
    options: Annotated[
        Options, Field(description="Spark's settings by name, such as `spark.executor.memory`")
    ] = {}


class ThreadsExecutor(Model):
    """Threads of the process that checks.

    Attributes:
        type: `threads`.
        workers: how many parts are read at once; more take less time, but more memory.
    """

    type: Literal["threads"] = "threads"
    workers: Annotated[int, Field(ge=1, le=64)] = 1


class SparkExecutor(SparkCluster):
    """A Spark, for files that all its workers can read. Needs the extra `spark` and Java 17.

    Attributes:
        type: `spark`.
    """

    type: Literal["spark"]


class DaskExecutor(Model):
    """A Dask cluster, for files that all its workers can read. Needs the extra `dask`.

    Attributes:
        type: `dask`.
    """

    type: Literal["dask"]
    address: Annotated[
        str | None, Field(pattern=ADDRESS_PATTERN, description="of the scheduler, such as `tcp://host:8786`")
    ] = None

    @model_validator(mode="after")
    def _a_cluster(self) -> Self:
        if self.address is None:
            raise ValueError(
                "give the `address` of your cluster's scheduler, such as tcp://host:8786: none is started here"
            )
        return self


def _type_of(executor: object) -> object:
    """The tag of an executor: `threads` where it names no type."""
    if isinstance(executor, dict):
        return executor.get("type", "threads")
    return getattr(executor, "type", "threads")


Executor = Annotated[
    Annotated[ThreadsExecutor, Tag("threads")]
    | Annotated[SparkExecutor, Tag("spark")]
    | Annotated[DaskExecutor, Tag("dask")],
    Discriminator(_type_of),
]


def place_of(executor: ThreadsExecutor | SparkExecutor | DaskExecutor) -> str | None:
    """What to call a cluster; None for threads."""
    if isinstance(executor, SparkExecutor):
        return f"Spark at {executor.master}"
    return f"Dask at {executor.address}" if isinstance(executor, DaskExecutor) else None


class SparkSource(TableSource, SparkCluster):
    """A table or a query of Spark, folded where its rows are. Needs the extra `spark` and Java 17.

    Attributes:
        type: `spark`.
        table: as Spark's SQL writes it, such as `catalog.schema.flights`.
        query: a SELECT, used instead of a table.
    """

    type: Literal["spark"]
    table: Annotated[str | None, Field(min_length=1)] = None
    query: Annotated[str | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        return self
