"""Splits on a Dask cluster: each is a task that reads its rows by itself and sends back packed profiles."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from drift_monitor.clusters.dask import client
from drift_monitor.clusters.work import Work, heard
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
            open_work, run = functions()
            opened = dask.submit(open_work, pickle.dumps(Work.of(fold)), pure=False)
            waiting, running = iter(splits), library.as_completed(loop=dask.loop)
            sent: dict[str, S] = {}

            def send(split: S) -> None:
                future = dask.submit(run, opened, pickle.dumps(split), pure=False)
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


def functions() -> tuple[Callable[[bytes], Any], Callable[[Any, bytes], bytes]]:
    """What workers do. Made in here they are sent whole: the scheduler unpacks them and has no drift-monitor."""

    def opened(work: bytes) -> Any:
        from pickle import loads  # noqa: PLC0415

        return loads(work).open()  # noqa: S301 - from the driver

    def run(fold: Any, split: bytes) -> bytes:
        from functools import partial  # noqa: PLC0415
        from pickle import loads  # noqa: PLC0415

        from drift_monitor.clusters.work import answer  # noqa: PLC0415

        return answer(partial(fold, loads(split)))  # noqa: S301 - from the driver

    return opened, run
