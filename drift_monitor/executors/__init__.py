"""Who folds the parts of a source. One file an executor, one line in `EXECUTORS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from drift_monitor.core.folding import Folded
from drift_monitor.executors.dask import Dask
from drift_monitor.executors.spark import Spark
from drift_monitor.executors.threads import Threads

S = TypeVar("S")


class Executor(Protocol):
    """Folds parts; where and in which order is its own business."""

    def each(self, splits: Sequence[S], fold: Callable[[S], Folded], *, most: int) -> Iterator[tuple[S, Folded]]:
        """Every split with what it was folded into.

        Args:
            splits: parts of a source that can be pickled.
            fold: what to do with a part; it can be pickled, too. An error in it ends the whole and is raised.
            most: how many folded parts may be in hand at once.

        Raises:
            ExecutorError: the cluster fails; the message says which and what to do.
        """


EXECUTORS: Final[Mapping[str, Callable[[Any], Executor]]] = {"threads": Threads, "spark": Spark, "dask": Dask}
"""Executor type -> open(configuration); nothing is started before there is something to fold."""
