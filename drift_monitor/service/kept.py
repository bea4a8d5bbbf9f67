"""How a check reads from kept buckets: what is new goes into them, and the window comes out of them."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from drift_monitor import __version__
from drift_monitor.core.errors import SchemaError, SourceError, StoreError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.packed import Layout, unpack
from drift_monitor.service.bucket_store import BucketStore, discard, is_damaged, path_of
from drift_monitor.service.buckets import Buckets, TooManyBuckets, fold_unit

if TYPE_CHECKING:
    import pyarrow as pa

    from drift_monitor.core.products import PairSpec
    from drift_monitor.core.profile import Profile, Spec
    from drift_monitor.service.channels import LastDay
    from drift_monitor.service.evaluate import CheckRequest
    from drift_monitor.sources import Unit

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_log = logging.getLogger(__name__)


class Kept:
    """What one check may use of the rows that were read before; where it may not, it reads the window directly.

    Args:
        request: of the check.
        source: opened for it.
        store: the monitor's database; None where buckets cannot serve.
    """

    def __init__(self, request: CheckRequest, source: Any, store: BucketStore | None) -> None:
        self._request, self._source, self._store = request, source, store

    @classmethod
    @contextmanager
    def open(cls, request: CheckRequest, source: Any) -> Iterator[Self]:
        """For the time of a check. The source is told what is known of its files: no old one is opened again."""
        monitor, store = request.monitor, None
        fits = hasattr(source, "units") and request.window is not None and monitor.source.timestamp is not None
        if fits and monitor.window.incremental:
            try:
                store = BucketStore(path_of(request.state, request.name))
                source.known = store.footers()
            except (StoreError, sqlite3.Error) as error:
                if store is not None:
                    store.close()
                    store = None
                _give_up(request, error)
        kept = cls(request, source, store)
        try:
            yield kept
        finally:
            kept._close()

    def read(
        self,
        specs: Sequence[Spec],
        pairs: PairSpec | None,
        columns: Sequence[str],
        cuts: Sequence[int],
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Mapping[int, Profile], int] | None:
        """The profiles of the stretches of the window, after what is new was read.

        Args:
            specs: the features.
            pairs: what products are counted for.
            columns: to read.
            cuts: where the stretches begin, in microseconds since 1970.
            day: looks at rows as they are read.
            progress: called with (parts read, parts that are new).

        Returns:
            Profiles by start of stretch and the number of rows without a usable time; None where the window has to
            be read directly.
        """
        window, width = self._request.window, self._request.monitor.window.bucket // _MICROSECOND
        if self._store is None or window is None:
            return None
        end = (window.end - _EPOCH) // _MICROSECOND
        if any(t % width for t in (*cuts, end)):
            return None
        try:
            return self._read(self._store, Layout(tuple(specs), pairs), columns, (cuts, end), day, progress)
        except (StoreError, sqlite3.Error) as error:
            self._close()
            _give_up(self._request, error)
        except (SourceError, SchemaError) as error:  # of rows that the window may not need
            _log.info("%s: every row of the window is read: %s", self._request.name, error)
        return None

    def _read(
        self,
        store: BucketStore,
        layout: Layout,
        columns: Sequence[str],
        stretch: tuple[Sequence[int], int],
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Mapping[int, Profile], int] | None:
        monitor, source, (cuts, end) = self._request.monitor, self._source, stretch
        timestamp, width = monitor.source.timestamp or "", monitor.window.bucket

        def fold(batches: Iterator[pa.RecordBatch]) -> Mapping[int, Profile]:
            return profile_buckets(
                layout.specs,
                batches,
                timestamp=timestamp,
                bucket=width,
                id_column=monitor.columns.id,
                pairs=layout.pairs,
            )

        buckets = Buckets(store, layout, self._reading(), width)
        units = source.units(self._request.window, columns, width)
        unread = buckets.unread(units, cuts[0])
        if day is not None:
            day.begin()
        done = 0
        for split, shared in _reads(source, unread, buckets.limit):
            try:
                rows = source.batches(split, columns)
                rows = rows if day is None else day.watch(rows)
                profiles, lost = fold_unit(fold, rows, timestamp, width, buckets.limit)
            except TooManyBuckets:
                buckets.give_up(split)
            else:
                for start, unit in shared.items():
                    own = {t: p for t, p in profiles.items() if start is None or t == start}
                    buckets.keep(unit, own, lost)
            done += len(shared)
            if progress is not None:
                progress(done, len(unread))
        if day is not None:
            last = source.units(day.window, columns, width)
            day.complete = {unit.identity for unit in last} <= {unit.identity for unit in unread}
        found = buckets.window(units, cuts, end)
        store.keep_footers(source.footers)
        buckets.forget(units, cuts[0], end)
        if found is None:
            return None
        return {start: unpack(packed, layout) for start, packed in found[0].items()}, found[1]

    def _reading(self) -> str:
        """What else decides what is read as what; another version of this program may read otherwise."""
        monitor = self._request.monitor
        kinds = {name: str(kind) for name, kind in sorted(monitor.columns.kinds.items())}
        return json.dumps(
            [__version__, monitor.source.timestamp, monitor.source.timezone, monitor.columns.id, kinds]
        )

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def _reads(source: Any, units: Sequence[Unit], most: int) -> Iterator[tuple[Unit, dict[int | None, Unit]]]:
    """What is read at once, and the units in it by the bucket that each of them is; None where it is no bucket."""
    if hasattr(source, "joined"):
        yield from source.joined(units, most)
    else:
        for unit in units:
            yield unit, {None: unit}


def _give_up(request: CheckRequest, error: Exception) -> None:
    """Say that kept buckets cannot be used, and delete them if they never will be."""
    _log.warning("%s: every row of the window is read: kept buckets: %s", request.name, error)
    if is_damaged(error):
        discard(path_of(request.state, request.name))
