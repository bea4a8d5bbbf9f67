"""Sources whose rows are sent to the daemon, which keeps them in a spool. No I/O."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from drift_monitor.config.zones import TimeZone
from drift_monitor.core.policy import Duration, Model, Size

LARGEST_BODY: Final = 64 * 2**20
"""Bytes of a request that any setting may allow: so much is in memory a few times over while it is read."""
_OURS: Final = frozenset(
    {
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "enable.partition.eof",
    }
)


class SpooledSource(Model):
    """What a source has whose rows are kept in a spool: a folder of Parquet files that the daemon writes."""

    timestamp: Annotated[str, Field(min_length=1, description="event-time column")]
    arrival: Annotated[
        bool, Field(description="a row without an event time gets that of its arrival; otherwise it is refused")
    ] = False
    timezone: Annotated[TimeZone, Field(description="of timestamps that carry none")] = "UTC"
    spool: Annotated[
        Path | None,
        Field(description="folder in which the rows are kept; `spool/<monitor>` in the state if absent"),
    ] = None
    keep: Annotated[
        Duration | None,
        Field(
            description="how long after their arrival; if absent, what windows and refreshes need and 3 days more"
        ),
    ] = None


class PushSource(SpooledSource):
    """Rows that are sent to `POST /api/v1/monitors/{monitor}/records`.

    Attributes:
        type: `push`.
        max_body: the largest request taken.
    """

    type: Literal["push"]
    max_body: Annotated[Size, Field(ge=1024, le=LARGEST_BODY)] = 8 * 2**20
    positions: Annotated[
        tuple[str, ...],
        Field(description="names of the values in KServe's lists; the features in the reference's order if empty"),
    ] = ()
    join_within: Annotated[
        Duration, Field(description="how long a KServe request waits for its response, and the reverse")
    ] = timedelta(minutes=10)


class KafkaSource(SpooledSource):
    """Rows from a Kafka topic, one a message.

    Attributes:
        type: `kafka`.
        topic: to read.
        format: of a message: a JSON object, or a bare Avro record.
    """

    type: Literal["kafka"]
    bootstrap: Annotated[str, Field(min_length=1, description="brokers, host:port with commas between")]
    topic: Annotated[str, Field(min_length=1)]
    format: Literal["json", "avro"] = "json"
    avro_schema: Annotated[
        str | None, Field(description="the schema that Avro messages were written with, as JSON text")
    ] = None
    schema_file: Annotated[Path | None, Field(description="or a file that holds it")] = None
    header_bytes: Annotated[
        int, Field(ge=0, le=1024, description="bytes before the record: 5 where Confluent's serializer wrote it")
    ] = 0
    start: Annotated[
        Literal["earliest", "latest"], Field(description="where to begin in a partition that was never read")
    ] = "earliest"
    options: Annotated[
        dict[str, str], Field(description="options of librdkafka by name, such as security.protocol")
    ] = {}
    option_files: Annotated[
        dict[str, Path], Field(description="the same with values in files, such as sasl.password")
    ] = {}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [value for value in (self.avro_schema, self.schema_file) if value is not None]
        if self.format == "avro" and len(given) != 1:
            raise ValueError("`format: avro` needs exactly one of `avro_schema` and `schema_file`")
        if self.format != "avro" and given:
            raise ValueError("a schema goes with `format: avro` only")
        ours = sorted(_OURS & {*self.options, *self.option_files})
        if ours:
            raise ValueError(f"option {ours[0]} is set by drift-monitor itself: leave it out")
        return self


Spooled = PushSource | KafkaSource
