"""Old training rows and labelled live rows -> the parts of a new training set, as Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from drift_monitor.actions.refresh import TRAIN, RefreshError
from drift_monitor.actions.sorted_files import SortedFiles
from drift_monitor.actions.training_keys import KeyColumns, Reading
from drift_monitor.actions.training_rows import (
    NO_TIME,
    Side,
    kind_of_type,
    open_live,
    open_training,
    other_columns,
)
from drift_monitor.config.labels import Labels
from drift_monitor.config.loop import Refresh
from drift_monitor.config.models import Columns
from drift_monitor.config.sources import Source as SourceConfig
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.split import Fate, Keys, arrange, decide
from drift_monitor.core.types import Window
from drift_monitor.sources import Source
from drift_monitor.sources.files import Files, FileSplit
from drift_monitor.sources.labelled import MANY, Labelled, open_labelled

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Recipe:
    """What a training set is made of, and how.

    Attributes:
        training: path of the old training rows: a file, a folder or a glob.
        source: of the live rows.
        columns: what they mean; `id` and `label` are needed.
        settings: policy, cap, parts, seed.
        window: length of the groups of the event time, where rows are to be taken by it.
        labels: where the labels of the live rows are, when they are not in these.
    """

    training: str
    source: SourceConfig
    columns: Columns
    settings: Refresh
    window: timedelta
    labels: Labels | None = None

    @property
    def id(self) -> str:
        """The column of ids.

        Raises:
            RefreshError: there is none.
        """
        if self.columns.id is None:
            raise RefreshError(
                "columns.id is not set: without ids rows cannot be told apart, nor fall in the same part again"
            )
        return self.columns.id

    @property
    def label(self) -> str:
        """The column of labels.

        Raises:
            RefreshError: there is none.
        """
        if self.columns.label is None:
            raise RefreshError("columns.label is not set: only rows whose truth is known can be learnt from")
        return self.columns.label


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        rows: of each part.
        training, live: rows by `Fate`, in lower case.
        groups: values of the `by` columns, rows that could be taken, rows that were.
        newest: event time of the newest row in microseconds since 1970; None when no row has one.
        dropped_columns: that only the live rows have.
        live_files, label_files: path -> bytes, of the files of live rows and of late labels that were read.
    """

    rows: list[int]
    training: dict[str, int]
    live: dict[str, int]
    groups: list[tuple[tuple[str | None, ...], int, int]]
    newest: int | None
    dropped_columns: list[str]
    live_files: dict[str, int]
    label_files: dict[str, int]


class Inputs:
    """The opened inputs of a training set.

    Args:
        recipe: what to open.
        temporary: a folder for what is spilled.
        training, live, labels: path -> bytes, to read nothing but these files, as they were.

    Raises:
        DriftMonitorError: an input or a column that is needed is not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        temporary: Path,
        training: Mapping[str, int] | None = None,
        live: Mapping[str, int] | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        self._recipe, self._temporary = recipe, temporary
        needed = [("columns.id", recipe.id), ("columns.label", recipe.label)]
        timezone = recipe.source.timezone
        self._given, self._rows, self.schema = open_training(
            recipe.training, recipe.columns, timezone, temporary, training, nested=False
        )
        needed += [("refresh.by", name) for name in recipe.settings.by]
        if recipe.settings.policy == "sliding":
            if recipe.source.timestamp is None:
                raise RefreshError("policy sliding needs event times: source.timestamp is not set")
            needed.append(("source.timestamp", recipe.source.timestamp))
        for setting, name in needed:
            if name not in self.schema.names:
                raise SchemaError(f"the training file {recipe.training!r} has no column {name!r} ({setting})")
            if pa.types.is_nested(self.schema.field(name).type):
                raise SchemaError(f"column {name!r} ({setting}) is {self.schema.field(name).type}: use a flat one")
        self._live = self._source = _only(open_live(recipe.source, self.schema, recipe.id), live)
        if recipe.labels is not None:
            kind = kind_of_type(self.schema.field(recipe.label).type)
            columns, timestamp = recipe.columns, recipe.source.timestamp
            labelled = open_labelled(self._live, recipe.labels, columns, timestamp, kind, MANY)
            labelled.truth = _only(labelled.truth, labels)
            self._source = labelled

    @property
    def training_files(self) -> dict[str, int]:
        """Path -> bytes."""
        return self._given.sizes

    def other_columns(self, window: Window | None) -> list[str]:
        """The columns that only the live rows have.

        Raises:
            SchemaError: they lack one of the training file's.
        """
        return other_columns(self._source, window, self.schema)

    def write(self, stretches: Sequence[Window | None], target: Path, progress: Progress) -> Made:
        """Write a file for each part.

        Args:
            stretches: of event time, of which live rows are read; None for all.
            target: folder of the parts.
            progress: what is told.

        Raises:
            RefreshError: no live row can be taken.
            DriftMonitorError: rows cannot be read, or do not fit the training file.
        """
        settings = self._recipe.settings
        label_files: dict[str, int] = {}
        if isinstance(self._source, Labelled):
            label_files = self._look_up([window for window in stretches if window is not None])
        dropped = sorted({name for window in stretches for name in self.other_columns(window)})
        sides = self._sides(stretches)
        progress.plan(2 * sum(len(side.splits) for side in sides) + len(settings.parts))
        reading = Reading(sides, self._key_columns(), progress.done)
        keys = reading.keys
        span = None if settings.span is None else settings.span // _MICROSECOND
        decide(keys, reading.contents, span=span, max_rows=settings.max_rows)
        training, live = keys.counts()
        _refuse_nothing_new(live)
        position, rows = arrange(keys, len(settings.parts))
        if not rows[list(settings.parts).index(TRAIN)]:
            raise RefreshError(f"none of the {sum(rows):,} rows fall in the part {TRAIN!r}: there are too few")
        spill = self._temporary / "spill"
        spill.mkdir()
        files = SortedFiles(spill, self.schema, rows)
        for batch, numbers in reading.batches(position >= 0, progress.done):
            files.add(batch, keys.part[numbers], position[numbers])
        for number, name in enumerate(settings.parts):
            files.write(number, target / f"{name}.parquet")
            progress.done()
        times = keys.time[position >= 0]
        newest = int(times.max(initial=NO_TIME))
        return Made(
            rows=rows,
            training=training,
            live=live,
            groups=_groups(keys, reading.groups),
            newest=None if newest == NO_TIME else newest,
            dropped_columns=dropped,
            live_files=_files_of(self._live, sides[1].splits),
            label_files=label_files,
        )

    def _look_up(self, stretches: Sequence[Window]) -> dict[str, int]:
        """Join the late labels; the files that these are in."""
        source = self._source
        assert isinstance(source, Labelled)  # noqa: S101 - the caller saw to it
        whole = Window(start=min(w.start for w in stretches), end=max(w.end for w in stretches))
        until = source.look_up(whole)
        return _files_of(source.truth, source.truth.splits(until))

    def _sides(self, stretches: Sequence[Window | None]) -> tuple[Side, Side]:
        timestamp, timezone = self._recipe.source.timestamp, self._recipe.source.timezone
        old = Side(
            source=self._rows,
            splits=self._rows.splits(None),
            schema=self.schema,
            timestamp=timestamp if timestamp in self.schema.names else None,
            timezone=timezone,
            live=False,
        )
        splits = [split for window in stretches for split in self._source.splits(window)]
        return old, Side(self._source, splits, self.schema, timestamp, timezone, live=True)

    def _key_columns(self) -> KeyColumns:
        recipe, settings = self._recipe, self._recipe.settings
        return KeyColumns(
            id=recipe.id,
            label=recipe.label,
            by=settings.by if settings.policy == "stratified" else (),
            width=recipe.window // _MICROSECOND,
            shares=tuple(settings.parts.values()),
            seed=settings.seed,
            need_time=settings.policy == "sliding",
        )


class Progress:
    """Steps done, of those that are known of so far.

    Args:
        tell: called with (steps done, steps in all).
    """

    def __init__(self, tell: Callable[[int, int], None] | None) -> None:
        self._tell = tell
        self._done = self._all = 0

    def plan(self, steps: int) -> None:
        """There are more to do."""
        self._all += steps

    def done(self) -> None:
        """One is done."""
        self._done += 1
        if self._tell is not None:
            self._tell(self._done, self._all)


def _refuse_nothing_new(live: Mapping[str, int]) -> None:
    if live.get("taken"):
        return
    why = ", ".join(f"{count:,} {fate.replace('_', ' ')}" for fate, count in live.items())
    raise RefreshError(
        f"there is nothing new to learn from: of {sum(live.values()):,} live rows none can be taken"
        + (f" ({why})" if why else "")
    )


def _groups(keys: Keys, names: Sequence[tuple[str | None, ...]]) -> list[tuple[tuple[str | None, ...], int, int]]:
    if keys.group is None:
        return []
    could = np.isin(keys.fate, [Fate.TAKEN, Fate.OVER_CAP])
    rows = np.bincount(keys.group[could], minlength=len(names)).tolist()
    taken = np.bincount(keys.group[keys.fate == Fate.TAKEN], minlength=len(names)).tolist()
    return [each for each in zip(names, rows, taken, strict=True) if each[1]]


def _only(source: Source[Any], sizes: Mapping[str, int] | None) -> Source[Any]:
    return source.only(sizes) if sizes is not None and isinstance(source, Files) else source


def _files_of(source: Source[Any], splits: Sequence[Any]) -> dict[str, int]:
    if not isinstance(source, Files):
        return {}
    read = {split.path for split in splits if isinstance(split, FileSplit)}
    return {path: size for path, size in source.sizes.items() if path in read}
