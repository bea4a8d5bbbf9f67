"""What a version of a reference is: its `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from drift_monitor.config.models import Columns
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.types import EDGES, Kind, ReferenceId, Role, UtcDatetime, Value

FORMAT: Final = 2
NAME: Final = "manifest.json"
_OUTSIDE_THE_HASH: Final = ("version", "sha256", "created")


class FileHash(Value):
    """A file and what must be in it."""

    bytes: int
    sha256: str


class Feature(Value):
    """A column that is watched.

    Attributes:
        type: its Arrow type in the training data.
        warning: why it may be of little use; None when nothing speaks against it.
    """

    name: str
    kind: Kind
    role: Role
    type: str
    warning: str | None = None


class Segmented(Value):
    """A column of which values are watched by themselves.

    Attributes:
        column: name of it.
        frequent: whether they are the values that are frequent enough, and not ones that were named.
        rows: of the training data, by value.
    """

    column: str
    frequent: bool
    rows: dict[str, int]


class Training(Value):
    """The data that a version was built from.

    Attributes:
        files: names, without folders.
        sha256: of the file's bytes; with more than one file, of their hashes in the order of their names.
    """

    files: tuple[str, ...]
    bytes: int
    sha256: str


class Manifest(Value):
    """A version of a reference.

    Attributes:
        format: of the version folder; a reader refuses one that it does not know.
        version: name of the folder: day of creation and start of the hash.
        sha256: of everything else in this file but `created`; so of the content, since the hash of each other
            file is in here.
        created: when it was built.
        training: what it was built from.
        rows: that were used.
        invalid_rows: left out, because their event time could not be read.
        start, end: event times of the first and the last row; None without a timestamp column.
        schema: columns of the training data and their Arrow types.
        stored: the ways to those that lie in others, such as `payload.age` in `payload`; see `core.columns`.
        columns: what they mean.
        timestamp, timezone: column of event time, and the zone of times that carry none.
        bucket: length of the profiles kept, in seconds.
        features: those watched.
        segments: whose features are watched apart.
        model_version: of the model that was trained on it, where that is known.
        split: how the training rows were chosen, as told by whoever built it.
        seed: of the row sample.
        sample_rows: in it.
        warnings: about columns that are not watched, and rows left out.
        packages: versions that built it.
        files: in the folder.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    format: Literal[2] = FORMAT
    version: str
    sha256: str
    created: UtcDatetime
    training: Training
    rows: int
    invalid_rows: int
    start: UtcDatetime | None
    end: UtcDatetime | None
    schema_: Annotated[dict[str, str], Field(alias="schema")]
    columns: Columns
    timestamp: str | None
    timezone: str
    bucket: float
    features: tuple[Feature, ...]
    split: str
    seed: int
    sample_rows: int
    warnings: tuple[str, ...]
    packages: dict[str, str]
    files: dict[str, FileHash]
    model_version: str = ""
    stored: dict[str, tuple[str, ...]] = {}
    segments: tuple[Segmented, ...] = ()

    @property
    def id(self) -> ReferenceId:
        """What results say of it."""
        return ReferenceId(
            version=self.version,
            sha256=self.sha256,
            rows=self.rows,
            created=self.created,
            model_version=self.model_version,
        )

    @property
    def bucket_length(self) -> timedelta:
        """Length of the profiles kept."""
        return timedelta(seconds=self.bucket)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Feature -> kind."""
        return {feature.name: feature.kind for feature in self.features}

    def sealed(self) -> Manifest:
        """The same with its hash and its version name filled in."""
        digest = content_hash(json.loads(self.to_json()))
        return self.model_copy(update={"sha256": digest, "version": f"{self.created:%Y-%m-%d}-{digest[:12]}"})

    def to_json(self) -> bytes:
        """The file, without what was not set and once could not be: so old versions keep their hash."""
        unset = {name: True for name in ("model_version", "stored", "segments") if not getattr(self, name)}
        later = {"columns": {"edges"}} if self.columns.edges == EDGES else {}
        return self.model_dump_json(indent=2, exclude={**unset, **later}).encode() + b"\n"


def content_hash(manifest: dict[str, Any]) -> str:
    """The sha256 of a manifest as JSON: sorted keys, no spaces, without what does not belong to the content."""
    content = {key: value for key, value in manifest.items() if key not in _OUTSIDE_THE_HASH}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a version folder.

    Raises:
        BadReferenceError: it is missing, of an unknown format, or was changed after it was written.
    """
    path = folder / NAME
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except FileNotFoundError:
        raise BadReferenceError(f"{folder} is no reference version: it has no {NAME}") from None
    except OSError as error:
        raise BadReferenceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadReferenceError(f"{path} is damaged: it is not JSON ({error})") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise BadReferenceError(
            f"{path} has format {found!r}, this version of drift-monitor reads format {FORMAT}: build the version "
            "again from its training data"
        )
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadReferenceError(
            f"{path} is damaged: {where}: {first['msg']} (got {first['input']!r:.80})"
        ) from error
    actual = content_hash(data)
    if actual != manifest.sha256:
        raise BadReferenceError(
            f"{path} was changed after it was written: its content has sha256 {actual[:12]}..., it says "
            f"{manifest.sha256[:12]}...; restore it, or build the version again"
        )
    return manifest
