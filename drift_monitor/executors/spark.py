"""Splits on a Spark: each is a task that reads its rows by itself and sends back packed profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import pyarrow as pa

from drift_monitor.clusters.spark import explained, map_in_arrow, session
from drift_monitor.clusters.work import Work, answer, heard
from drift_monitor.config.clusters import SparkExecutor
from drift_monitor.core.folding import Folded
from drift_monitor.executors.threads import mapped

S = TypeVar("S")
_AHEAD: Final = 2  # waves under way, so that no core waits for the last task of a wave
_INTO: Final = "split long, said binary"


class Spark:
    """See `Executor`. Splits go out in waves, so that what comes back is bounded.

    A task that is lost with its worker is run again by Spark, as often as spark.task.maxFailures says.
    """

    def __init__(self, config: SparkExecutor) -> None:
        self._config = config

    def each(self, splits: Sequence[S], fold: Callable[[S], Folded], *, most: int) -> Iterator[tuple[S, Folded]]:
        """See `Executor`."""
        if not splits:
            return
        size = max(1, most // _AHEAD)
        waves = [splits[at : at + size] for at in range(0, len(splits), size)]
        with session(self._config) as spark, explained(self._config):

            def run(wave: Sequence[S]) -> list[Any]:
                job = _Job(Work.of((fold, list(wave))))
                numbers = spark.range(0, len(wave), 1, numPartitions=len(wave))
                found: list[Any] = map_in_arrow(numbers, job, _INTO).collect()
                return found

            for wave, rows in mapped(waves, run, _AHEAD):
                for number, said in rows:
                    yield wave[number], heard(bytes(said))


class _Job:
    """Batches of numbers of splits -> what each was folded into."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        fold, splits = self._work.open()
        for batch in batches:
            for number in batch.column(0).to_pylist():
                said = answer(partial(fold, splits[number]))
                columns = [pa.array([number], pa.int64()), pa.array([said], pa.binary())]
                yield pa.RecordBatch.from_arrays(columns, names=["split", "said"])
