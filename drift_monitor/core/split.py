"""Which rows a training set keeps, and in which part each falls: decided by hashes of their ids.

With a seed s and the canonical text t of an id (`id_texts`), three numbers are read from one digest, each of eight
bytes, the first the most significant:

    d = BLAKE2b(s in decimal + ":" + t, 24 bytes);   identity = d[0:8];   place = d[8:16];   rank = d[16:24]

Rows of one identity are the same row. `place / 2**64` falls in a part's share of [0, 1). Of too many rows those of
the lowest ranks stay. So nothing depends on the order of the rows, on the files that hold them, or on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.splitmix import GOLDEN, mixed

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Fate(IntEnum):
    """What became of a row that was read."""

    TAKEN = 0
    NO_ID = 1
    NO_TIME = 2
    NO_LABEL = 3
    DUPLICATE = 4  # a later row of its own side has the same id
    REPLACED = 5  # a live row has the id of this training row
    BEFORE_SPAN = 6
    OVER_CAP = 7


@dataclass(frozen=True, eq=False)
class Hashes:
    """Of ids, shape (n,) each.

    Attributes:
        valid: where there is an id; the others are anything where there is none.
        identity, place, rank: see the module.
    """

    valid: Bools
    identity: Words
    place: Words
    rank: Words


def hash_ids(column: pa.Array, seed: int) -> Hashes:
    """The hashes of ids.

    Args:
        column: of texts, bytes, truth values or numbers, or a dictionary of them.
        seed: of the split.

    Raises:
        SchemaError: the column holds something else.

    Example (the second word of a digest):
        >>> digest = blake2b(b"0:7", digest_size=24).digest()
        >>> int(hash_ids(pa.array([7]), 0).place[0]) == int.from_bytes(digest[8:16], "big")
        True
    """
    if isinstance(column.type, pa.DictionaryType):
        missing = is_missing(column.indices)
        used, at = np.unique(np.where(missing, -1, as_numpy(column.indices)), return_inverse=True)
        # a null of the dictionary's for those that are missing
        found = hash_ids(column.dictionary.take(as_arrow(used, missing=used < 0)), seed)
        return Hashes(found.valid[at], found.identity[at], found.place[at], found.rank[at])
    texts = id_texts(column)
    salt = f"{seed}:".encode()
    digests = [blake2b(salt + (t or b""), digest_size=24).digest() for t in texts]
    words = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 3).astype(np.uint64)
    valid = np.array([t is not None for t in texts], np.bool_)
    return Hashes(valid, *(np.ascontiguousarray(words[:, i]) for i in range(3)))


def id_texts(column: pa.Array) -> list[bytes | None]:
    """Ids as texts that do not depend on the type: the number 7, the decimal 7.00 and the text "7" are one id.

    Texts and bytes are taken as they are; whole numbers in decimal; decimals without zeros at the end; truth
    values as `true` and `false`; other numbers as the shortest text that reads back as the same. Null and NaN are
    no ids.

    Raises:
        SchemaError: the column holds something else.

    Example:
        >>> id_texts(pa.array(["7", "007", None])), id_texts(pa.array([7.0, 0.5, math.nan]))
        ([b'7', b'007', None], [b'7', b'0.5', None])
    """
    return list(id_bytes(column).to_pylist())


def id_bytes(column: pa.Array) -> pa.Array:
    """The same as an Arrow array of `large_binary`, null where there is no id."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    t, of, target = column.type, pa.types, pa.large_binary()
    if of.is_null(t):
        return pa.nulls(len(column), target)
    if of.is_binary(t) or of.is_large_binary(t) or of.is_fixed_size_binary(t) or of.is_binary_view(t):
        return pc.cast(column, target)
    if of.is_string(t) or of.is_large_string(t) or of.is_string_view(t) or of.is_integer(t) or of.is_boolean(t):
        return pc.cast(pc.cast(column, pa.large_string()), target)
    if of.is_decimal(t):
        texts = [None if v is None else _plain(format(v, "f")).encode() for v in column.to_pylist()]
    elif of.is_floating(t):
        texts = [None if v is None or math.isnan(v) else _number(v).encode() for v in column.to_pylist()]
    else:
        raise SchemaError(f"ids cannot be {t}: they are texts, bytes or numbers")
    return pa.array(texts, target)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _plain(digits: str) -> str:
    shorter = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if shorter == "-0" else shorter


def parts_of(place: Words, shares: Sequence[float]) -> npt.NDArray[np.int16]:
    """The part of each row: the first whose cumulated share of 2**64 is above its place, or the last.

    Args:
        place: shape (n,).
        shares: of the parts, in order; they sum to 1.

    Example:
        >>> parts_of(np.array([0, 2**63, 2**64 - 1], np.uint64), [0.5, 0.25, 0.25]).tolist()
        [0, 1, 2]
    """
    ends = [min(math.ceil(math.fsum(shares[: i + 1]) * 2**64), 2**64 - 1) for i in range(len(shares) - 1)]
    return np.searchsorted(np.array(ends, np.uint64), place, "right").astype(np.int16)


@dataclass(frozen=True, eq=False)
class Keys:
    """What is kept in memory of every row that was read, shape (n,) each: training rows first, then live ones.

    Attributes:
        trained: how many of them are training rows.
        fate: `Fate` by what the row alone tells; changed by `decide`.
        identity, rank: hashes of the ids.
        time: microseconds since 1970; the smallest number where there is none.
        part: of the split.
        group: number of the row's group, by name of the group; None without groups.
    """

    trained: int
    fate: npt.NDArray[np.uint8]
    identity: Words
    rank: Words
    time: Ints
    part: npt.NDArray[np.int16]
    group: npt.NDArray[np.int32] | None = None

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Rows by fate, of the training rows and of the live ones; those that did not happen are left out."""
        sides = self.fate[: self.trained], self.fate[self.trained :]
        training, live = (np.bincount(side, minlength=len(Fate)).tolist() for side in sides)
        return (
            {f.name.lower(): training[f] for f in Fate if training[f]},
            {f.name.lower(): live[f] for f in Fate if live[f]},
        )


def decide(
    keys: Keys, contents: Callable[[Ints], Words], *, span: int | None = None, max_rows: int | None = None
) -> None:
    """Fill in the fate of every row.

    Of rows with one id a live one stays, and of those the newest; where times are equal too, the one with the
    largest hash of its content. Then the span is applied, then the cap.

    Args:
        keys: `fate` is written to.
        contents: hashes of the content of rows that are given by number; asked for rarely.
        span: microseconds that are kept, up to the newest row; None for all.
        max_rows: shared out over the groups where there are any; None for no cap.
    """
    taken = np.flatnonzero(keys.fate == Fate.TAKEN)
    _drop_repeated(keys, taken, contents)
    if span is not None:
        taken = np.flatnonzero(keys.fate == Fate.TAKEN)
        if len(taken):
            oldest = int(keys.time[taken].max()) - span
            keys.fate[taken[keys.time[taken] <= oldest]] = Fate.BEFORE_SPAN
    if max_rows is not None:
        taken = np.flatnonzero(keys.fate == Fate.TAKEN)
        if len(taken) > max_rows:
            keys.fate[taken] = Fate.OVER_CAP
            keys.fate[_lowest(keys, taken, max_rows)] = Fate.TAKEN


def _drop_repeated(keys: Keys, rows: Ints, contents: Callable[[Ints], Words]) -> None:
    order = rows[np.argsort(keys.identity[rows])]
    ids = keys.identity[order]
    same = ids[1:] == ids[:-1]
    crowd = order[np.append(same, False) | np.append(False, same)] if len(order) else order
    if not len(crowd):
        return
    live, identity, time = crowd >= keys.trained, keys.identity[crowd], keys.time[crowd]
    by = np.lexsort((time, live, identity))
    crowd, live, identity, time = crowd[by], live[by], identity[by], time[by]
    last = np.append(identity[1:] != identity[:-1], True)
    which = np.cumsum(last) - last  # the number of a row's id among the repeated ones
    best = np.flatnonzero(last)
    tied = (live == live[best][which]) & (time == time[best][which])
    content = np.zeros(len(crowd), np.uint64)
    doubtful = tied & (np.bincount(which, weights=tied)[which] > 1)
    if doubtful.any():
        at = np.flatnonzero(doubtful)
        at = at[np.argsort(crowd[at])]
        content[at] = contents(crowd[at])
    by = np.lexsort((content, tied, which))
    winner = np.zeros(len(crowd), np.bool_)
    winner[by[np.flatnonzero(last)]] = True
    replaced = ~live & live[best][which]
    keys.fate[crowd[~winner]] = np.where(replaced[~winner], Fate.REPLACED, Fate.DUPLICATE)


def _lowest(keys: Keys, rows: Ints, most: int) -> Ints:
    """Of these rows the `most` of the lowest ranks, or of each group as many as is its due."""
    rank, identity = keys.rank[rows], keys.identity[rows]
    if keys.group is None:
        edge = np.partition(rank, most - 1)[most - 1]
        below, at = rows[rank < edge], rows[rank == edge]
        at = at[np.argsort(keys.identity[at])]
        return np.concatenate((below, at[: most - len(below)]))
    group = keys.group[rows]
    sizes = np.bincount(group)
    quotas = share_out(sizes, most)
    order = np.lexsort((identity, rank, group))
    within = np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[group[order]]
    return np.asarray(rows[order[within < quotas[group[order]]]])


def share_out(sizes: npt.NDArray[np.integer[Any]], most: int) -> Ints:
    """Share a number of rows out over groups: all get the same, but none more than it has.

    What a small group does not use goes to the others. With a larger total no group gets less.

    Args:
        sizes: rows of each group, shape (g,).
        most: rows to share out.

    Returns:
        Rows for each group; two groups that have more than they get differ by one at most, the first ones having
        one more.

    Example:
        >>> share_out(np.array([2, 100, 50, 3]), 20).tolist()
        [2, 8, 7, 3]
    """
    low, high = 0, int(sizes.max(initial=0))
    while low < high:  # the highest level that the total reaches
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(sizes, middle).sum()) <= most else (low, middle - 1)
    quotas: Ints = np.minimum(sizes, low).astype(np.int64)
    quotas[np.flatnonzero(sizes > low)[: most - int(quotas.sum())]] += 1
    return quotas


def arrange(keys: Keys, parts: int) -> tuple[Ints, list[int]]:
    """Where the rows that are taken stand in their parts: by time, then by identity.

    Args:
        keys: after `decide`.
        parts: how many there are.

    Returns:
        Position of each row in its part, -1 for those not taken, shape (n,); and the rows of each part.
    """
    taken = np.flatnonzero(keys.fate == Fate.TAKEN)
    part = keys.part[taken]
    taken = taken[np.lexsort((keys.identity[taken], keys.time[taken], part))]
    rows = np.bincount(part, minlength=parts)
    position = np.full(len(keys.fate), -1, np.int64)
    position[taken] = np.arange(len(taken)) - np.repeat(np.cumsum(rows) - rows, rows)
    return position, rows.tolist()


def hash_contents(batch: pa.RecordBatch) -> Words:
    """A hash of each row, of the exact values of its columns, shape (n,)."""
    whole = np.zeros(batch.num_rows, np.uint64)
    for column in batch.columns:
        whole = mixed(whole ^ (_words(column) + GOLDEN))
    return whole


def _words(column: pa.Array) -> Words:
    t = column.type
    if isinstance(t, pa.DictionaryType):
        entries = np.append(_words(column.dictionary), np.uint64(1))
        at = np.where(is_missing(column.indices), len(entries) - 1, as_numpy(column.indices))
        return np.asarray(entries[at])
    if pa.types.is_primitive(t) and t.bit_width <= 64 and not pa.types.is_decimal(t):
        raw = as_numpy(column)
        bits = raw.astype(np.uint64) if raw.dtype == np.bool_ else raw.view(f"u{raw.dtype.itemsize}")
        found = mixed(bits.astype(np.uint64))
    elif pa.types.is_null(t):
        found = np.zeros(len(column), np.uint64)
    else:
        texts = pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
        values = id_texts(column) if texts else [repr(value).encode() for value in column.to_pylist()]
        digests = [blake2b(value or b"", digest_size=8).digest() for value in values]
        found = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    return np.where(is_missing(column), np.uint64(1), found)
