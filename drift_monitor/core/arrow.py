"""Numbers from Arrow to numpy and back, without a copy and without pandas.

`pyarrow.array` and `Array.to_numpy` import pandas, whatever they are given, to see whether it is something of
pandas. That takes half a second and 50 MB, which is much of a small check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def as_arrow(values: npt.NDArray[Any], *, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """The Arrow array of the same numbers or truth values.

    Args:
        values: shape (n,).
        missing: shape (n,), where the result is null; None for nowhere.

    Example:
        >>> as_arrow(np.array([1, 2, 3]), missing=np.array([False, True, False])).to_pylist()
        [1, None, 3]
        >>> as_arrow(np.array([True, False])).type
        DataType(bool)
    """
    dtype = pa.from_numpy_dtype(values.dtype)
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    validity = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(dtype, len(values), [validity, pa.py_buffer(data)])


def as_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """The numbers or truth values of an Arrow array, read-only; anything where it is null.

    Timestamps, dates and durations come as the whole numbers that they are stored as.

    Example:
        >>> as_numpy(pa.array([1.5, 2.5, 3.5])[1:])
        array([2.5, 3.5])
        >>> as_numpy(pa.array([True, False, True])[1:])
        array([False,  True])
    """
    t = array.type
    data = array.buffers()[1]
    if pa.types.is_boolean(t):
        return _bits(data, array.offset, len(array))
    letter = "f" if pa.types.is_floating(t) else "u" if pa.types.is_unsigned_integer(t) else "i"
    dtype = np.dtype(f"{letter}{t.bit_width // 8}")
    if data is None or not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def is_missing(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Where an Arrow array is null, shape (n,).

    Example:
        >>> is_missing(pa.array([1, None, 3])[1:])
        array([ True, False])
    """
    validity = array.buffers()[0]
    if validity is None:
        return np.full(len(array), pa.types.is_null(array.type))
    return ~_bits(validity, array.offset, len(array))


def _bits(data: pa.Buffer | None, offset: int, count: int) -> npt.NDArray[np.bool_]:
    if data is None or not count:
        return np.zeros(0, np.bool_)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=offset + count, bitorder="little")
    return bits[offset:].view(np.bool_)
