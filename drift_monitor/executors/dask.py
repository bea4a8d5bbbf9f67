"""Splits on a Dask cluster: each is a task that reads its rows by itself and sends back packed profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from drift_monitor.clusters.dask import client
from drift_monitor.clusters.work import Work, answer, heard
from drift_monitor.config.clusters import DaskExecutor
from drift_monitor.core.folding import Folded

S = TypeVar("S")


class Dask:
    """See `Executor`. A new split goes out when one has come back.

    A task that is lost with its worker is run again, as often as distributed.scheduler.allowed-failures says.
    """

    def __init__(self, config: DaskExecutor) -> None:
        self._config = config

    def each(self, splits: Sequence[S], fold: Callable[[S], Folded], *, most: int) -> Iterator[tuple[S, Folded]]:
        """See `Executor`."""
        if not splits:
            return
        with client(self._config) as (dask, library):
            # a task of its own, whose result every worker fetches once, and which is made anew where it was lost
            opened = dask.submit(Work.open, Work.of(fold), pure=False)
            waiting, running = iter(splits), library.as_completed(loop=dask.loop)
            sent: dict[str, S] = {}

            def send(split: S) -> None:
                future = dask.submit(_run, opened, split, pure=False)
                sent[future.key] = split
                running.add(future)

            for _, split in zip(range(most), waiting, strict=False):
                send(split)
            for future in running:
                said = future.result()
                future.release()
                for split in waiting:
                    send(split)
                    break
                yield sent.pop(future.key), heard(said)


def _run(fold: Callable[[S], Folded], split: S) -> bytes:
    """What a worker does."""
    return answer(lambda: fold(split))
