"""A profile of many features as a few runs of numbers: quick to merge, and small as bytes.

The daemon keeps one such blob for each bucket of what it has read. `pack` and `unpack` lose nothing: merging
packed profiles and unpacking the result gives the bits of merging the profiles themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from drift_monitor.core.errors import DamagedError
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Floats,
    Ids,
    Ints,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
    bounded,
)

FORMAT: Final = 2
_MAGIC: Final = b"drift-monitor bucket\n"
_LEVEL: Final = 1  # of zstd; more takes thrice the time for a twentieth of the bytes
_SMALL: Final = (np.uint8, np.uint16, np.uint32, np.int64)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the cells of each feature stand in a packed profile.

    Attributes:
        specs: the features, in order.
        pairs: what products are counted for; None when they are not.
        cells: where each feature's counts begin, and where the last ends, shape (F + 1,).
        lower: whole units at the lower edge of each cell, 0 in the cells of categories, shape (C,).
        key: a hash of all that decides what the numbers mean.
    """

    specs: tuple[Spec, ...]
    pairs: PairSpec | None = None
    cells: Ints = field(init=False)
    lower: Ints = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        widths = [
            len(spec.categories) if isinstance(spec, CategoricalSpec) else 2 * len(spec.edges) + 1
            for spec in self.specs
        ]
        object.__setattr__(self, "cells", np.cumsum([0, *widths], dtype=np.int64))
        lower = np.zeros(self.cells[-1], np.int64)
        for spec, start, end in zip(self.specs, self.cells[:-1], self.cells[1:], strict=True):
            if isinstance(spec, NumericSpec):
                lower[start:end] = spec.lower_units
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "key", self._key())

    def _key(self) -> str:
        digest = hashlib.sha256(f"{FORMAT}".encode())
        for spec in self.specs:
            if spec.segment is not None:
                digest.update(json.dumps([spec.column, spec.segment.column, spec.segment.value]).encode())
            if isinstance(spec, NumericSpec):
                digest.update(json.dumps([spec.name, spec.kind, spec.origin, spec.unit]).encode())
                digest.update(spec.edges.tobytes())
            else:
                names = json.dumps([spec.name, spec.kind, spec.complete, spec.categories])
                digest.update(names.encode())
        if self.pairs is not None:
            digest.update(json.dumps(self.pairs.names).encode())
            digest.update(self.pairs.centre.tobytes() + self.pairs.scale.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Packed:
    """The counts of F features, of which N are numeric, in the order of a `Layout`.

    Attributes:
        rows: how many.
        oldest, newest: event times in microseconds since 1970; None without rows that have one.
        present: whether the feature was counted on all rows, shape (F,); the numbers of others mean nothing.
        counts: rows a cell, shape (C,).
        sums: whole units a cell above its lower edge, counted for each row, 0 in the cells of categories, shape
            (C,). What is left of a value once its cell is known takes few bytes.
        numbers: saturated or other, nulls, NaN, +inf, -inf, shape (F, 5).
        squares: exact integers, 0 for categories, shape (F,), of dtype object.
        extremes: minimum and maximum, NaN for none, shape (F, 2).
        unseen: counts of unseen categories by feature's place.
        ids, products: see `Profile`.
    """

    rows: int
    oldest: int | None
    newest: int | None
    present: npt.NDArray[np.bool_]
    counts: Ints
    sums: Ints
    numbers: Ints
    squares: npt.NDArray[np.object_]
    extremes: Floats
    unseen: Mapping[int, Mapping[str, int]]
    ids: Ids | None = None
    products: Products | None = None

    @classmethod
    def merged(cls, blobs: Iterable[bytes], layout: Layout) -> Self:
        """The merge of one or more profiles from their bytes; rows are added only where there are some.

        Raises:
            DamagedError: the bytes are of another version, or damaged.
        """
        counts, sums = np.zeros((2, int(layout.cells[-1])), np.int64)
        parts = (cls._from_bytes(blob, layout, counts, sums) for blob in blobs)
        return reduce(partial(cls.merge, cells=(counts, sums)), parts)

    def merge(self, other: Self, *, cells: tuple[Ints, Ints] | None = None) -> Self:
        """Both, in any order; they have the same layout.

        Args:
            other: to be added.
            cells: counts and sums of both, where they are known.
        """
        counts, sums = cells or (self.counts + other.counts, self.sums + other.sums)
        unseen = {place: dict(names) for place, names in self.unseen.items()}
        for place, names in other.unseen.items():
            mine = unseen.setdefault(place, {})
            for name, count in names.items():
                mine[name] = mine.get(name, 0) + count
            unseen[place] = bounded(mine)
        times = [t for t in (self.oldest, other.oldest) if t is not None]
        last = [t for t in (self.newest, other.newest) if t is not None]
        if self.products is not None and other.products is not None:
            products: Products | None = self.products.merge(other.products)
        else:
            having, lacking = (other, self) if self.products is None else (self, other)
            products = None if lacking.rows else having.products
        return type(self)(
            self.rows + other.rows,
            min(times, default=None),
            max(last, default=None),
            self.present & other.present,
            counts,
            sums,
            self.numbers + other.numbers,
            self.squares + other.squares,
            np.stack(
                (
                    np.fmin(self.extremes[:, 0], other.extremes[:, 0]),
                    np.fmax(self.extremes[:, 1], other.extremes[:, 1]),
                ),
                axis=1,
            ),
            unseen,
            self.ids.merge(other.ids) if self.ids and other.ids else None,
            products,
        )

    def to_bytes(self) -> bytes:
        """One compressed, versioned blob; cells without rows take next to nothing."""
        filled = np.flatnonzero(self.counts)
        arrays: dict[str, npt.NDArray[Any]] = {
            "present": np.packbits(self.present),
            "cells": _narrow(np.diff(filled, prepend=0)),
            "counts": _narrow(self.counts[filled]),
            "sums": _planes(self.sums[filled]),
            "numbers": _narrow(self.numbers.ravel()),
            "extremes": self.extremes.ravel(),
        }
        if self.ids is not None:
            arrays |= {"hashes": self.ids.hashes, "ids": _narrow(self.ids.counts)}
        if self.products is not None:
            arrays |= {"steps": self.products.sums, "products": _planes(self.products.products)}
        head = {
            "format": FORMAT,
            "rows": self.rows,
            "oldest": self.oldest,
            "newest": self.newest,
            "squares": [f"{n:x}" for n in self.squares.tolist()],
            "unseen": {str(place): dict(names) for place, names in self.unseen.items() if names},
            "ids": None if self.ids is None else [self.ids.level, self.ids.rows],
            "products": None if self.products is None else self.products.rows,
            "size": None if self.products is None else len(self.products.products),
            "arrays": [[name, a.dtype.str, len(a)] for name, a in arrays.items()],
        }
        text = json.dumps(head).encode()
        whole = len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values())
        packed: bytes = pa.Codec("zstd", _LEVEL).compress(whole, asbytes=True)
        return _MAGIC + len(whole).to_bytes(8, "little") + packed

    @classmethod
    def from_bytes(cls, blob: bytes, layout: Layout) -> Self:
        """The inverse of `to_bytes`; raises as `merged` does."""
        return cls.merged([blob], layout)

    @classmethod
    def _from_bytes(cls, blob: bytes, layout: Layout, counts: Ints, sums: Ints) -> Self:
        """A profile whose cells are added to those of others."""
        start = len(_MAGIC) + 8
        if blob[: len(_MAGIC)] != _MAGIC:
            raise DamagedError("a kept profile is damaged, or of another version of drift-monitor")
        try:
            size = int.from_bytes(blob[len(_MAGIC) : start], "little")
            whole = pa.Codec("zstd").decompress(blob[start:], size, asbytes=True)
            at = 8 + int.from_bytes(whole[:8], "little")
            head = json.loads(whole[8:at])
            arrays = {}
            for name, dtype, length in head["arrays"]:
                arrays[name] = np.frombuffer(whole, np.dtype(dtype), length, at)
                at += arrays[name].nbytes
            return cls._of(head, arrays, layout, counts, sums)
        except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
            raise DamagedError(f"a kept profile is damaged ({type(error).__name__})") from error

    @classmethod
    def _of(
        cls,
        head: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        counts: Ints,
        sums: Ints,
    ) -> Self:
        features = len(layout.specs)
        filled = np.cumsum(arrays["cells"], dtype=np.int64)
        counts[filled] += arrays["counts"]
        sums[filled] += _whole(arrays["sums"], len(filled))
        squares = np.array([int(n, 16) for n in head["squares"]], object)
        ids = None
        if head["ids"] is not None:
            ids = Ids(arrays["hashes"], arrays["ids"].astype(np.int64), *head["ids"])
        products = None
        if head["products"] is not None:
            products = Products(
                head["products"], arrays["steps"], _whole(arrays["products"], head["size"]).astype(np.int64)
            )
        return cls(
            head["rows"],
            head["oldest"],
            head["newest"],
            np.unpackbits(arrays["present"], count=features).astype(np.bool_),
            counts,
            sums,
            arrays["numbers"].astype(np.int64).reshape(features, 5),
            squares,
            arrays["extremes"].reshape(features, 2),
            {int(place): names for place, names in head["unseen"].items()},
            ids,
            products,
        )


def pack(profile: Profile, layout: Layout) -> Packed:
    """A profile of (some of) the layout's features as runs of numbers."""
    features, size = len(layout.specs), int(layout.cells[-1])
    present = np.zeros(features, np.bool_)
    counts, sums = np.zeros((2, size), np.int64)
    numbers = np.zeros((features, 5), np.int64)
    squares = np.zeros(features, object)
    extremes = np.full((features, 2), math.nan)
    unseen: dict[int, Mapping[str, int]] = {}
    for i, (spec, low, high) in enumerate(zip(layout.specs, layout.cells[:-1], layout.cells[1:], strict=True)):
        found = profile.features.get(spec.name)
        if found is None:
            continue
        present[i] = True
        counts[low:high] = found.counts
        if isinstance(found, NumericProfile):
            sums[low:high] = found.sums - found.counts * layout.lower[low:high]
            numbers[i] = (found.saturated, found.nulls, found.nans, found.pos_inf, found.neg_inf)
            squares[i] = found.squares
            extremes[i] = (found.minimum, found.maximum)
        else:
            numbers[i, :2] = (found.other, found.nulls)
            if found.unseen:
                unseen[i] = found.unseen
    return Packed(
        profile.rows,
        profile.oldest,
        profile.newest,
        present,
        counts,
        sums,
        numbers,
        squares,
        extremes,
        unseen,
        profile.ids,
        profile.products,
    )


def unpack(packed: Packed, layout: Layout) -> Profile:
    """The inverse of `pack`; features that are not present are left out."""
    features: dict[str, FeatureProfile] = {}
    numbers, squares = packed.numbers.tolist(), packed.squares.tolist()
    extremes, cells = packed.extremes.tolist(), layout.cells.tolist()
    whole = packed.sums + packed.counts * layout.lower
    for i, spec in enumerate(layout.specs):
        if not packed.present[i]:
            continue
        counts = packed.counts[cells[i] : cells[i + 1]]
        if isinstance(spec, NumericSpec):
            sums = whole[cells[i] : cells[i + 1]]
            features[spec.name] = NumericProfile(counts, sums, squares[i], *numbers[i], *extremes[i])
        else:
            other, nulls, *_ = numbers[i]
            features[spec.name] = CategoricalProfile(counts, other, packed.unseen.get(i, {}), nulls)
    return Profile(packed.rows, features, packed.oldest, packed.newest, packed.ids, packed.products)


def packed_bytes(layout: Layout) -> int:
    """Memory that one packed profile takes, about."""
    return 16 * int(layout.cells[-1]) + 200 * (len(layout.specs) + 1)


def _narrow(values: Ints) -> npt.NDArray[Any]:
    """The same numbers in the smallest type that holds them."""
    if len(values) and values.min() < 0:
        return values.astype(np.int64)
    top = int(values.max()) if len(values) else 0
    return values.astype(next(t for t in _SMALL if top <= np.iinfo(t).max))


def _planes(values: Ints) -> npt.NDArray[np.uint8]:
    """The bytes of numbers, the lowest of all first, so that what is alike stands together; as many as they need.

    A number comes before its negative: 0, -1, 1, -2, ...
    """
    ordered = ((values << 1) ^ (values >> 63)).astype("<i8").view(np.uint64)
    width = (int(ordered.max(initial=0)).bit_length() + 7) // 8
    return np.ascontiguousarray(ordered.view(np.uint8).reshape(-1, 8)[:, :width].T).ravel()


def _whole(planes: npt.NDArray[np.uint8], size: int) -> npt.NDArray[Any]:
    """The inverse, for so many numbers, which may be of 32 bits."""
    width = len(planes) // max(size, 1)
    wide = width > np.dtype(np.uint32).itemsize
    ordered: npt.NDArray[Any] = np.zeros(size, np.uint64 if wide else np.uint32)
    number = ordered.dtype.type
    for place, plane in enumerate(planes.reshape(width, size)):
        ordered |= plane.astype(number) << number(8 * place)
    numbers = (ordered >> number(1)) ^ (~(ordered & number(1)) + number(1))
    return np.asarray(numbers.view(np.int64 if wide else np.int32))
