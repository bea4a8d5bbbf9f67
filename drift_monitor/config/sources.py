"""Where live rows are: files, or one of the kinds with a module of its own. No I/O."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from drift_monitor.config.clusters import SparkSource
from drift_monitor.config.intake import KafkaSource, PushSource
from drift_monitor.config.tables import DeltaSource, IcebergSource, SqlSource
from drift_monitor.config.zones import TimeZone
from drift_monitor.core.policy import Model

ENDPOINT_PATTERN = r"^https?://[^/?#@\s]+$"

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
