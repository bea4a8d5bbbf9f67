"""A part of a source, read by the process that opened the source or by a worker that opens it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.folding import Folded, Folding
from drift_monitor.core.types import Kind
from drift_monitor.sources import Source
from drift_monitor.sources.files import Files

Watch = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Reading:
    """Split -> what it is folded into. When it is pickled, the open source stays behind.

    Args:
        config: of the source, with absolute paths; only files can be opened again elsewhere.
        kinds: of the features.
        folding: what becomes of the rows.
        source: that is open here.
        watch: looks at the rows as they come by here.
    """

    def __init__(
        self,
        config: Any,
        kinds: Mapping[str, Kind],
        folding: Folding,
        source: Source[Any] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._config, self._kinds, self._folding = config, dict(kinds), folding
        self._source, self._watch = source, watch

    def __call__(self, split: Any) -> Folded:
        """Read and fold."""
        source = self._source
        if source is None:
            source = self._reopened(split)
        rows = source.batches(split, self._folding.columns)
        return self._folding(rows if self._watch is None else self._watch(rows))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None, "_watch": None}

    def _reopened(self, split: Any) -> Files:
        """Just the split's file: nothing is listed."""
        assert isinstance(self._config, FilesSource)  # noqa: S101 - the configuration refuses others
        return Files(self._config, self._kinds, {split.path: split.size})
