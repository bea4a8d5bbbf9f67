"""The daemon's own settings: where it listens, who evaluates, what is kept and exported. No I/O."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, model_validator

from drift_monitor.core.policy import Duration, Model, Size

LISTEN_PATTERN = r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"


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
