"""What a version of a training set is: its `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from drift_monitor.actions.refresh import MANIFEST, RefreshError
from drift_monitor.config.labels import Labels
from drift_monitor.config.loop import Refresh
from drift_monitor.config.models import Columns
from drift_monitor.config.sources import Source
from drift_monitor.core.types import Outcome, Value, Window

FORMAT: Final = 1
_OUTSIDE_THE_HASH: Final = ("version", "sha256", "places")


class InputFile(Value):
    """A file that was read.

    Attributes:
        name: without folders.
        bytes: that were read; text may have grown since.
        sha256: of these.
    """

    name: str
    bytes: int
    sha256: str


class Inputs(Value):
    """All that were read, in the order of their paths."""

    training: tuple[InputFile, ...]
    live: tuple[InputFile, ...]
    labels: tuple[InputFile, ...] = ()


class Places(Value):
    """Where the inputs were; no part of the content.

    Attributes:
        training_path: file, folder or glob of the old training rows.
        training, live, label_files: a path for each of the inputs.
        source: of the live rows.
        labels: where late labels were, and how they were joined; None where the live rows had theirs.
    """

    training_path: str
    training: tuple[str, ...]
    live: tuple[str, ...]
    source: Source
    label_files: tuple[str, ...] = ()
    labels: Labels | None = None


class Counts(Value):
    """What became of the rows of one side.

    Attributes:
        read: all of them.
        taken: into the set.
        dropped: reason -> rows.
    """

    read: int
    taken: int
    dropped: dict[str, int]


class LiveWindow(Value):
    """A window of the live stretch.

    Attributes:
        window: the stretch of event time that was judged; None for the whole source.
        rows: that the check counted.
        verdict: of the monitor's own check.
        taken: whether its rows were read.
        reason: why not; empty when they were.
    """

    window: Window | None
    rows: int
    verdict: Outcome
    taken: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.window or 'the whole source'}: {self.verdict.value}: {self.reason}"


class Group(Value):
    """A group of the stratified policy.

    Attributes:
        values: of the `by` columns.
        rows: that could be taken.
        taken: of these.
    """

    values: tuple[str | None, ...]
    rows: int
    taken: int


class Part(Value):
    """One of the files.

    Attributes:
        name: of the part.
        share: of all ids that fall in it.
        rows: in it.
        file: its name.
        bytes: its size.
        sha256: of its bytes.
    """

    name: str
    share: float
    rows: int
    file: str
    bytes: int
    sha256: str


class RefreshManifest(Value):
    """A version of a training set.

    Attributes:
        format: of the version folder; a reader refuses one that it does not know.
        version: name of the folder: day of the newest row and start of the hash.
        sha256: of everything else in this file but `places`; so of the content, since the hash of each part is in
            here.
        places: where the inputs were.
        monitor: its name.
        columns: what they mean.
        settings: policy, cap, parts, seed.
        window: length of the monitor's windows, in seconds.
        stretch: of live event time; None for the whole source.
        windows: in it, oldest first.
        inputs: what was read.
        schema: columns of the parts and their Arrow types.
        dropped_columns: that only the live rows have.
        training, live: rows by what became of them.
        labelled: share of the live rows that have a label.
        groups: of the stratified policy, by name; the first 1000.
        parts: the files, in the order of their shares.
        packages: versions that made it.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    format: Literal[1] = FORMAT
    version: str = ""
    sha256: str = ""
    places: Places
    monitor: str
    columns: Columns
    settings: Refresh
    window: float
    stretch: Window | None
    windows: tuple[LiveWindow, ...]
    inputs: Inputs
    schema_: Annotated[dict[str, str], Field(alias="schema")]
    dropped_columns: tuple[str, ...]
    training: Counts
    live: Counts
    labelled: float
    groups: tuple[Group, ...] = ()
    parts: tuple[Part, ...]
    packages: dict[str, str]

    def sealed(self, day: str) -> RefreshManifest:
        """The same with its hash and its version name filled in."""
        digest = _content_hash(self.model_dump(mode="json"))
        return self.model_copy(update={"sha256": digest, "version": f"{day}-{digest[:12]}"})


def _content_hash(manifest: dict[str, Any]) -> str:
    """The sha256 of a manifest as JSON: sorted keys, no spaces, without what does not belong to the content."""
    content = {key: value for key, value in manifest.items() if key not in _OUTSIDE_THE_HASH}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(path: Path) -> RefreshManifest:
    """Read and check a manifest.

    Args:
        path: of the file or of its folder.

    Raises:
        RefreshError: it is missing, of an unknown format, or was changed after it was written.
    """
    path = path / MANIFEST if path.is_dir() else path
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except OSError as error:
        raise RefreshError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RefreshError(f"{path} is damaged: it is not JSON ({error})") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT or "parts" not in data:
        raise RefreshError(
            f"{path} is no manifest of a training set that this version of drift-monitor reads (format {FORMAT}, "
            f"got {found!r:.40})"
        )
    try:
        manifest = RefreshManifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefreshError(f"{path} is damaged: {where}: {first['msg']} (got {first['input']!r:.80})") from error
    actual = _content_hash(data)
    if actual != manifest.sha256:
        raise RefreshError(
            f"{path} was changed after it was written: its content has sha256 {actual[:12]}..., it says "
            f"{manifest.sha256[:12]}...; restore it, or make the training set again"
        )
    return manifest
