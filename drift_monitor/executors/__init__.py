"""Who maps splits to summaries and merges them. One file an executor, one line in `EXECUTORS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from drift_monitor.executors.threads import map_merge

S = TypeVar("S")
T = TypeVar("T")
Progress = Callable[[int, int], None]


class Executor(Protocol):
    """Maps and merges; where and in which order is its own business."""

    def __call__(
        self,
        splits: Sequence[S],
        fold: Callable[[S], T],
        merge: Callable[[T, T], T],
        *,
        workers: int = 1,
        progress: Progress | None = None,
    ) -> T | None:
        """Summarise every split and merge the summaries.

        Args:
            splits: parts of a source.
            fold: summary of a part. An error in it ends the whole and is raised.
            merge: of two summaries, associative and commutative.
            workers: how many splits are read at once.
            progress: called with (splits done, splits in all), from one thread.

        Returns:
            None when there are no splits.
        """


EXECUTORS: Final[Mapping[str, Executor]] = {"threads": map_merge}
"""Name -> executor."""
