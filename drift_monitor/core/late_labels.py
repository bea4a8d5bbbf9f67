"""Labels that are known later than the rows which they are the truth of, joined by id.

A row has the newest label of its id that was known no earlier than the row's own time and no later than a horizon
after it. Of two that were known at one time, the one that is read last counts. Ids are compared as texts: the
number 7 is the text "7" and not "007".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, has_value, is_missing
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.fold import hash_bytes
from drift_monitor.core.split import Bools, Ints, Words, id_bytes

Rows = tuple[pa.Array, pa.Array, pa.Array]
"""Ids, when the label was known (`timestamp[us]`), labels; of one length."""


def keys_of(ids: pa.Array) -> tuple[Bools, Words]:
    """Where there is an id, and a hash of it, anything where there is none; shape (n,) each.

    Two ids have the same hash once in 2**64 pairs.

    Raises:
        SchemaError: these cannot be ids.
    """
    if isinstance(ids.type, pa.DictionaryType):
        valid, keys = keys_of(pa.concat_arrays([ids.dictionary, pa.nulls(1, ids.dictionary.type)]))
        at = np.where(is_missing(ids.indices), len(ids.dictionary), as_numpy(ids.indices))
        return valid[at], keys[at]
    texts = id_bytes(ids)
    valid = ~is_missing(texts)
    keys = np.zeros(len(ids), np.uint64)
    keys[valid] = hash_bytes(texts.drop_null())
    return valid, keys


@dataclass(frozen=True, eq=False)
class LateLabels:
    """Labels by id and time.

    Attributes:
        key: hashes of the ids, rising, shape (n,).
        time: when each was known, in microseconds since 1970, rising for each id.
        value: the labels, n of them.
    """

    key: Words
    time: Ints
    value: pa.Array

    @classmethod
    def gather(cls, wanted: Words, batches: Iterable[Rows], dtype: pa.DataType, most: int) -> LateLabels:
        """Keep the labels of the wanted ids; null, NaN, and what has no time are none.

        Args:
            wanted: hashes of ids, rising.
            batches: of the labels' source.
            dtype: of the labels.
            most: labels that are kept at once; each takes about 24 bytes and as much again while they are sorted.

        Raises:
            SchemaError: there are more, or what is an id or a label cannot be one.
        """
        keys: list[Words] = []
        times: list[Ints] = []
        values: list[pa.Array] = []
        kept = 0
        for ids, known, labels in batches:
            valid, key = keys_of(ids)
            valid &= has_value(labels) & ~is_missing(known)
            if len(wanted):
                near = np.minimum(_places(wanted, key, "left"), len(wanted) - 1)
                valid &= wanted[near] == key
            rows = np.flatnonzero(valid) if len(wanted) else np.empty(0, np.int64)
            if (kept := kept + len(rows)) > most:
                raise SchemaError(
                    f"more than {most:,} labels belong to the predictions of a stretch: so many are not joined"
                )
            keys.append(key[rows])
            times.append(as_numpy(known)[rows])
            values.append(_plain(labels.take(as_arrow(rows)), dtype))
        key, time = _joined(keys, np.uint64), _joined(times, np.int64)
        order = np.lexsort((time, key))
        value = pa.chunked_array(values, _type(dtype))
        if isinstance(value.type, pa.DictionaryType):
            value = value.unify_dictionaries()
        return cls(key[order], time[order], value.combine_chunks().take(as_arrow(order)))

    def of(self, ids: pa.Array, times: pa.Array, horizon: int) -> pa.Array:
        """The label of each row, null where it has none.

        Args:
            ids: of the rows.
            times: of the rows, `timestamp[us]`.
            horizon: in microseconds.
        """
        valid, key = keys_of(ids)
        valid &= ~is_missing(times)
        begin = as_numpy(times)
        first, low = self._known_by(key, begin + horizon)
        valid &= low > first
        found = np.where(valid, low - 1, 0)
        if len(self.time):
            valid &= self.time[found] >= begin
        return self.value.take(as_arrow(found, missing=~valid))

    def outside(self, ids: pa.Array, times: pa.Array, horizon: int) -> Ints:
        """How long after its row a label was known, of each row that has labels outside the horizon alone.

        Of several the first later one counts, or else the last earlier one, which is negative.

        Args:
            ids: of the rows.
            times: of the rows, `timestamp[us]`.
            horizon: in microseconds.

        Returns:
            Microseconds, one a row that has such a label.
        """
        valid, key = keys_of(ids)
        valid &= ~is_missing(times)
        if not len(self.time):
            return np.empty(0, np.int64)
        begin = as_numpy(times)
        first, low = self._known_by(key, begin + horizon)
        last = self.time[np.maximum(low - 1, 0)] - begin
        earlier = low > first
        valid &= ~(earlier & (last >= 0))
        later = low < _places(self.key, key, "right")
        coming = self.time[np.minimum(low, len(self.time) - 1)] - begin
        delays: Ints = np.where(later, coming, last)[valid & (later | earlier)]
        return delays

    def _known_by(self, key: Words, bound: Ints) -> tuple[Ints, Ints]:
        """Where the labels of each row's id begin, and where those known by a time end; shape (n,) each."""
        low, high = _places(self.key, key, "left"), _places(self.key, key, "right")
        first = low
        while (going := low < high).any():
            middle = (low + high) // 2
            by_then = going & (self.time[np.minimum(middle, max(len(self.time) - 1, 0))] <= bound)
            low = np.where(by_then, middle + 1, low)
            high = np.where(going & ~by_then, middle, high)
        return first, low


def _places(among: Words, keys: Words, side: Literal["left", "right"]) -> Ints:
    """`searchsorted`, which is ten times as fast on keys that rise."""
    order = np.argsort(keys)
    found = np.empty(len(keys), np.int64)
    found[order] = np.searchsorted(among, keys[order], side)
    return found


def _type(dtype: pa.DataType) -> pa.DataType:
    of = pa.types
    text = of.is_string(dtype) or of.is_large_string(dtype) or of.is_string_view(dtype)
    return pa.dictionary(pa.int32(), pa.large_string()) if text else dtype


def _plain(labels: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Labels as one type; texts, of which there are few, as a dictionary."""
    if isinstance(labels.type, pa.DictionaryType):
        labels = labels.dictionary_decode()
    kept = _type(dtype)
    if isinstance(kept, pa.DictionaryType):
        return pc.cast(labels, kept.value_type).dictionary_encode()
    return pc.cast(labels, dtype)


def _joined(parts: list[npt.NDArray[Any]], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
