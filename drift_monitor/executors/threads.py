"""Splits in threads of this process: Arrow decodes and numpy sorts without the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from drift_monitor.config.clusters import ThreadsExecutor

S = TypeVar("S")
T = TypeVar("T")


class Threads:
    """See `Executor`. The order is that of the splits, and as many are in hand as there are workers."""

    def __init__(self, config: ThreadsExecutor) -> None:
        self._workers = config.workers

    def each(self, splits: Sequence[S], fold: Callable[[S], T], *, most: int) -> Iterator[tuple[S, T]]:  # noqa: ARG002
        """See `Executor`."""
        return mapped(splits, fold, self._workers)


def map_merge(
    splits: Sequence[S],
    fold: Callable[[S], T],
    merge: Callable[[T, T], T],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> T | None:
    """Summarise every split and merge the summaries; at most `workers` of them and the merged one are in memory.

    Args:
        splits: parts of a source.
        fold: summary of a part. An error in it ends the whole and is raised.
        merge: of two summaries, associative and commutative.
        workers: how many splits are read at once.
        progress: called with (splits done, splits in all), from one thread.

    Returns:
        None when there are no splits.
    """
    whole: T | None = None
    for done, (_, part) in enumerate(mapped(splits, fold, workers), 1):
        whole = part if whole is None else merge(whole, part)
        if progress is not None:
            progress(done, len(splits))
    return whole


def mapped(splits: Sequence[S], fold: Callable[[S], T], workers: int) -> Iterator[tuple[S, T]]:
    """Every split with its summary, in their order."""
    if workers == 1 or len(splits) < 2:
        for split in splits:
            yield split, fold(split)
        return
    with ThreadPoolExecutor(workers) as pool:
        running: deque[tuple[S, Future[T]]] = deque()
        try:
            for split in splits:
                if len(running) == workers:
                    first, future = running.popleft()
                    yield first, future.result()
                running.append((split, pool.submit(fold, split)))
            while running:
                first, future = running.popleft()
                yield first, future.result()
        finally:
            for _, future in running:
                future.cancel()
