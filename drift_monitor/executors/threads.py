"""Splits in threads of this process: Arrow decodes and numpy sorts without the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def map_merge(
    splits: Sequence[S],
    fold: Callable[[S], T],
    merge: Callable[[T, T], T],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> T | None:
    """See `Executor`. At most `workers` summaries and the merged one are in memory at a time."""
    whole: T | None = None
    for done, part in enumerate(_parts(splits, fold, workers), 1):
        whole = part if whole is None else merge(whole, part)
        if progress is not None:
            progress(done, len(splits))
    return whole


def _parts(splits: Sequence[S], fold: Callable[[S], T], workers: int) -> Iterator[T]:
    if workers == 1 or len(splits) < 2:
        yield from map(fold, splits)
        return
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[T]] = deque()
        try:
            for split in splits:
                if len(running) == workers:
                    yield running.popleft().result()
                running.append(pool.submit(fold, split))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
