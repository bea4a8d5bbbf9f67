"""How a check reads from kept buckets: what is new goes into them, and the window comes out of them."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import pyarrow as pa

from drift_monitor import __version__
from drift_monitor.core.errors import DriftMonitorError, ExecutorError, SchemaError, SourceError, StoreError
from drift_monitor.core.folding import Folded, Folding
from drift_monitor.core.late_rows import origin_of
from drift_monitor.core.packed import unpack
from drift_monitor.core.types import ReferenceId, Window
from drift_monitor.service.bucket_store import BucketStore, discard, is_damaged, path_of
from drift_monitor.service.buckets import Buckets
from drift_monitor.sources.parquet_files import micros

if TYPE_CHECKING:
    from drift_monitor.core.profile import Profile
    from drift_monitor.service.channels import LastDay
    from drift_monitor.service.evaluate import CheckRequest, Earlier
    from drift_monitor.sources import Unit

_MICROSECOND: Final = timedelta(microseconds=1)
_log = logging.getLogger(__name__)

Each = Callable[[Sequence[Any], Folding], Iterator[tuple[Any, Folded]]]
"""(parts of a source, how to fold them) -> every part with what it was folded into, in any order."""


class Kept:
    """What one check may use of the rows that were read before; where it may not, it reads the window directly.

    Args:
        request: of the check.
        source: opened for it.
        reference: with which the window is compared.
        store: the monitor's database; None where buckets cannot serve.

    Attributes:
        read_from: what the window was made of; None until it was read, and where it is read directly.
    """

    def __init__(
        self, request: CheckRequest, source: Any, reference: ReferenceId, store: BucketStore | None
    ) -> None:
        self._request, self._source, self._reference, self._store = request, source, reference, store
        self._mine: tuple[list[Any], int, int] | None = (
            None  # units, start and end of the window, once it was read
        )
        self.read_from: str | None = None

    @classmethod
    @contextmanager
    def open(cls, request: CheckRequest, source: Any, reference: ReferenceId) -> Iterator[Self]:
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
        kept = cls(request, source, reference, store)
        try:
            yield kept
        finally:
            kept._close()

    def read(
        self,
        folding: Folding,
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
        each: Each,
    ) -> tuple[Mapping[int, Profile], int] | None:
        """The profiles of the stretches of the window, after what is new was read.

        Args:
            folding: of the window into its stretches.
            day: looks at rows as they are read.
            progress: called with (parts read, parts that are new).
            each: folds parts of the source that are new.

        Returns:
            Profiles by start of stretch and the number of rows without a usable time; None where the window has to
            be read directly.
        """
        window, width = self._request.window, self._request.monitor.window.bucket // _MICROSECOND
        if self._store is None or window is None or folding.starts is None:
            return None
        end = micros(window)[1]
        cuts = folding.starts.tolist()
        if any(t % width for t in (*cuts, end)):
            return None
        try:
            return self._read(self._store, folding, (cuts, end), day, progress, each)
        except (StoreError, sqlite3.Error) as error:
            self._close()
            _give_up(self._request, error)
        except ExecutorError:
            raise
        except (SourceError, SchemaError) as error:  # of rows that the window may not need
            _log.info("%s: every row of the window is read: %s", self._request.name, error)
        return None

    def _read(
        self,
        store: BucketStore,
        folding: Folding,
        stretch: tuple[Sequence[int], int],
        day: LastDay | None,
        progress: Callable[[int, int], None] | None,
        each: Each,
    ) -> tuple[Mapping[int, Profile], int] | None:
        source, layout, (cuts, end) = self._source, folding.layout, stretch
        buckets, folding = self._kept_as(store, folding)
        units = source.units(self._request.window, folding.columns, self._request.monitor.window.bucket)
        unread = buckets.unread(units, cuts[0])
        if day is not None:
            day.begin()
        empty = self._read_in(buckets, unread, folding, each, progress)
        if day is not None:
            last = source.units(day.window, folding.columns, self._request.monitor.window.bucket)
            day.complete = {unit.identity for unit in last} <= {unit.identity for unit in unread}
        units = [unit for unit in units if unit.identity not in empty]
        found = buckets.window(units, cuts, end)
        self._mine = units, cuts[0], end
        if found is None:
            return None
        [made_of] = buckets.made_of(units, [(cuts[0], end)])
        self.read_from = f"{self._origin(buckets)}:{made_of}"
        return {start: unpack(packed, layout) for start, packed in found[0].items()}, found[1]

    def look_back(self, folding: Folding, each: Each) -> tuple[Window, ...]:
        """The earlier windows of the request that are made of something else now; then forget what is not needed.

        What is new in them is read. Whatever goes wrong with rows of theirs, it costs this look and not the check.
        """
        store = self._store
        if store is None or self._mine is None:
            return ()
        buckets, folding = self._kept_as(store, folding)
        origin, (units, start, end) = self._origin(buckets), self._mine
        oldest = start - (end - start) - self._request.monitor.window.lateness // _MICROSECOND
        earlier = [at for at in self._request.earlier if origin_of(at.read_from) == origin]
        found: list[Window] = []
        try:
            for group in [earlier, *([at] for at in earlier)] if earlier else ():
                try:
                    changed, theirs = self._changed(buckets, group, folding, each)
                except (DriftMonitorError, pa.ArrowException) as error:
                    what = group[0].window if len(group) == 1 else "one of the earlier windows"
                    _log.warning("%s: no late rows are found in %s: %s", self._request.name, what, error)
                    continue
                found, units = [*found, *changed], [*units, *theirs]
                if group is earlier:
                    break
            start = min([start, *(micros(at.window)[0] for at in earlier)])
            store.keep_footers(self._source.footers)
            buckets.forget(units, start, end, oldest)
        except Exception:  # noqa: BLE001 - the window itself is read
            _log.exception("%s: no late rows of earlier windows are looked for", self._request.name)
        return tuple(dict.fromkeys(found))

    def _changed(
        self, buckets: Buckets, earlier: Sequence[Earlier], folding: Folding, each: Each
    ) -> tuple[list[Window], list[Any]]:
        """Which of some windows are made of something else now, and the units that may hold rows of them."""
        wide = Window(start=min(at.window.start for at in earlier), end=max(at.window.end for at in earlier))
        units = self._source.units(wide, folding.columns, self._request.monitor.window.bucket)
        empty = self._read_in(buckets, buckets.unread(units, micros(wide)[0]), folding, each, None)
        units = [unit for unit in units if unit.identity not in empty]
        now = buckets.made_of(units, [micros(at.window) for at in earlier])
        before = [at.read_from.partition(":")[2] for at in earlier]
        return [at.window for at, was, is_ in zip(earlier, before, now, strict=True) if was != is_], units

    def _kept_as(self, store: BucketStore, folding: Folding) -> tuple[Buckets, Folding]:
        """The buckets of a layout, and how rows are folded into them."""
        width = self._request.monitor.window.bucket
        buckets = Buckets(store, folding.layout, self._reading(), width)
        return buckets, replace(folding, starts=None, width=width, limit=buckets.limit)

    def _read_in(
        self,
        buckets: Buckets,
        unread: Sequence[Any],
        folding: Folding,
        each: Each,
        progress: Callable[[int, int], None] | None,
    ) -> set[bytes]:
        """Fold what is new and keep it; which of a database's buckets had no rows."""
        done, empty = 0, set[bytes]()
        reads = dict(_reads(self._source, unread, buckets.limit))
        for split, folded in each(list(reads), folding):
            if folded.scattered:
                buckets.keep(split, folded)
            else:
                empty |= _keep(buckets, reads[split], folded)
            done += len(reads[split])
            if progress is not None:
                progress(done, len(unread))
        return empty

    def _origin(self, buckets: Buckets) -> str:
        """What has to be the same for two hashes to be comparable: layout, source, and reference."""
        source = self._request.monitor.source.model_dump_json()
        text = f"{buckets.key}\0{source}\0{self._reference.sha256}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _reading(self) -> str:
        """What else decides what is read as what; another version of this program may read otherwise."""
        monitor = self._request.monitor
        kinds = {name: str(kind) for name, kind in sorted(monitor.columns.kinds.items())}
        names = [getattr(monitor.source, setting, ()) for setting in ("inputs", "outputs")]  # of captures
        return json.dumps(
            [__version__, monitor.source.timestamp, monitor.source.timezone, monitor.columns.id, kinds, *names]
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


def _keep(buckets: Buckets, shared: Mapping[int | None, Unit], folded: Folded) -> set[bytes]:
    """Keep what was read at once, and return which of a database's buckets had no rows: some may come yet."""
    empty = set()
    for start, unit in shared.items():
        own = tuple(part for part in folded.parts if start is None or part[0] == start)
        if own or start is None:
            buckets.keep(unit, replace(folded, parts=own))
        else:
            empty.add(unit.identity)
    return empty


def _give_up(request: CheckRequest, error: Exception) -> None:
    """Say that kept buckets cannot be used, and delete them if they never will be."""
    _log.warning("%s: every row of the window is read: kept buckets: %s", request.name, error)
    if is_damaged(error):
        discard(path_of(request.state, request.name))
