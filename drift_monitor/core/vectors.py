"""Lists of numbers, such as embeddings, as numbers that can be watched.

A vector x of d dimensions becomes its length d as a category, its Euclidean norm, and `PROJECTIONS` inner products
with fixed unit directions. Direction k is g[k, :d] divided by its norm. g[k, j] is the sum of twelve numbers of 16
bits, less twelve times their mean, so Gaussian but for its far tails (Irwin-Hall). They are the four quarters of
the numbers 3 t, 3 t + 1 and 3 t + 2, t = 65,536 k + j, of the generator SplitMix64 that begins at 0. So directions
depend on no seed, name or machine, and the first ones stay what they are if there are ever more.

Sums run over the dimensions in their order, in float64, for all rows side by side: each row has the same bits
whatever batch it is in. A library for matrices would be quicker, and add in an order of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.splitmix import GOLDEN, mixed

PROJECTIONS: Final = 8
PARTS: Final = ("norm", "length", *(f"p{k}" for k in range(PROJECTIONS)))
LONGEST: Final = 1 << 16
"""Dimensions of a vector; a longer one has a length and nothing else."""
_ROWS: Final = 2048  # side by side: their sums stay in the cache
_MEAN: Final = 12 * (2**16 - 1) // 2

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def is_vector(dtype: pa.DataType) -> bool:
    """Whether a type is that of lists of numbers.

    Example:
        >>> is_vector(pa.list_(pa.float16(), 3)), is_vector(pa.list_(pa.string())), is_vector(pa.float64())
        (True, False, False)
    """
    t = pa.types
    lists = (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view)
    if not any(is_a(dtype) for is_a in lists):
        return False
    return bool(t.is_floating(dtype.value_type) or t.is_integer(dtype.value_type))


def vector_parts(column: pa.Array, parts: Collection[str]) -> dict[str, pa.Array]:
    """What vectors become.

    Args:
        column: of a type that `is_vector` knows, n rows.
        parts: those of `PARTS` that are wanted.

    Returns:
        Part -> float64, n rows; the length is a dictionary of texts. All are null where the vector is null. All
        but the length are null where it is empty, longer than `LONGEST`, or has a null in it. NaN and infinities
        go through.

    Example:
        >>> found = vector_parts(pa.array([[3.0, 4.0], None, []]), ["norm", "length"])
        >>> found["norm"].to_pylist(), found["length"].to_pylist()
        ([5.0, None, None], ['2', None, '0'])
    """
    starts, lengths = _extents(column)
    missing = is_missing(column)
    found: dict[str, pa.Array] = {}
    if "length" in parts:
        found["length"] = _texts(lengths, missing)
    wanted = [part for part in PARTS if part in parts and part != "length"]
    if not wanted:
        return found
    child = column.values
    unusable = missing | (lengths == 0) | (lengths > LONGEST)
    if child.null_count:
        nulls = np.concatenate(([0], np.cumsum(is_missing(child))))
        at = np.where(unusable, 0, starts)
        unusable |= nulls[at + np.where(unusable, 0, lengths)] > nulls[at]
    directions = [int(part[1:]) for part in wanted if part != "norm"]
    values = np.zeros((len(wanted), len(column)))
    rows = np.flatnonzero(~unusable)
    for low in range(0, len(rows), _ROWS):
        block = rows[low : low + _ROWS]
        squares, products = _sums(child, starts[block], lengths[block], directions)
        values[:, block] = [squares, *products] if "norm" in wanted else products
    for part, row in zip(wanted, values, strict=True):
        found[part] = as_arrow(row, missing=unusable)
    return found


def part_type(part: str) -> pa.DataType:
    """The type of a part; texts may also come as a dictionary."""
    return pa.string() if part == "length" else pa.float64()


def _texts(lengths: _Ints, missing: npt.NDArray[np.bool_]) -> pa.DictionaryArray:
    distinct, codes = np.unique(lengths, return_inverse=True)
    indices = as_arrow(codes.astype(np.int32), missing=missing)
    return pa.DictionaryArray.from_arrays(indices, pc.cast(as_arrow(distinct), pa.string()))


def _extents(column: pa.Array) -> tuple[_Ints, _Ints]:
    """Where each list begins in the values, and how long it is; 0 and 0 for null."""
    count, missing = len(column), is_missing(column)
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        starts, lengths = (column.offset + np.arange(count)) * width, np.full(count, width)
    elif pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        starts, lengths = (as_numpy(part).astype(np.int64) for part in (column.offsets, column.sizes))
    else:
        ends = as_numpy(column.offsets).astype(np.int64)
        starts, lengths = ends[:-1], np.diff(ends)
    return np.where(missing, 0, starts), np.where(missing, 0, lengths)


def _sums(child: pa.Array, starts: _Ints, lengths: _Ints, directions: list[int]) -> tuple[_Floats, _Floats]:
    """Norms, shape (n,), and products with unit directions, shape (directions, n)."""
    order = np.argsort(-lengths, kind="stable")
    first, last = int(starts.min()), int((starts + lengths).max())
    numbers = as_numpy(pc.cast(child.slice(first, last - first), pa.float64(), safe=False))
    at, sizes = (starts - first)[order], lengths[order]
    longest = int(sizes[0])
    weights, roots = _directions(1 << (longest - 1).bit_length())
    weights = np.ascontiguousarray(weights[directions, :longest].T)
    squares, products = np.zeros(len(order)), np.zeros((len(directions), len(order)))
    # how many of the rows, the longest first, have a dimension j
    having = np.searchsorted(-sizes, -np.arange(longest), "left").tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        for j, count in enumerate(having):
            x = numbers[at[:count] + j]
            squares[:count] += x * x
            if directions:
                products[:, :count] += weights[j, :, None] * x
        products /= roots[directions][:, sizes - 1]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.sqrt(squares)[back], products[:, back]


@cache
def _directions(dimensions: int) -> tuple[_Floats, _Floats]:
    """g[k, j], and the norm of its first j + 1 numbers; shapes (PROJECTIONS, dimensions)."""
    k, j = np.arange(PROJECTIONS, dtype=np.uint64), np.arange(dimensions, dtype=np.uint64)
    t = (k[:, None] * np.uint64(LONGEST) + j)[..., None] * np.uint64(3) + np.arange(3, dtype=np.uint64)
    words = mixed(np.asarray((t + np.uint64(1)) * GOLDEN, np.uint64))
    quarters = [(words >> np.uint64(shift)) & np.uint64(2**16 - 1) for shift in (0, 16, 32, 48)]
    g = (sum(quarters).sum(axis=-1).astype(np.int64) - _MEAN).astype(np.float64)  # type: ignore[union-attr]
    return g, np.sqrt(np.cumsum(g * g, axis=1))
