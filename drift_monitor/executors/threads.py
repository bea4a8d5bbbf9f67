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
