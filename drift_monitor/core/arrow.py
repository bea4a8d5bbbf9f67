"""Numbers from Arrow to numpy and back, without pandas, and without a copy where the type allows it.

`pyarrow.array` and `Array.to_numpy` import pandas, whatever they are given, to see whether it is something of
pandas. That takes half a second and 50 MB, which is much of a small check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


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


def has_value(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Where a column is neither null nor NaN, shape (n,)."""
    if isinstance(column.type, pa.DictionaryType):
        entries = np.append(has_value(column.dictionary), False)
        return np.asarray(entries[np.where(is_missing(column.indices), -1, as_numpy(column.indices))])
    found = ~is_missing(column)
    return found & ~np.isnan(as_numpy(column)) if pa.types.is_floating(column.type) else found


def numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    """The non-null values of a numeric or datetime column as float64; datetimes as seconds since 1970."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    return numbers_by_row(column.drop_null() if column.null_count else column)


def numbers_by_row(column: pa.Array) -> npt.NDArray[np.float64]:
    """The same, but with a number a row: anything where the column, which is no dictionary, is null."""
    t = column.type
    if pa.types.is_timestamp(t) or pa.types.is_date(t):
        return microseconds(column) / 1e6
    if pa.types.is_decimal(t):
        return _decimals(column)
    if t != pa.float64():
        column = pc.cast(column, pa.float64(), safe=False)
    return as_numpy(column)


def microseconds(column: pa.Array) -> npt.NDArray[np.int64]:
    """Timestamps as microseconds since 1970 UTC, for a column without nulls.

    Finer digits are cut; times that do not fit (past the year 290,000) become the farthest that does.
    """
    t = column.type
    if pa.types.is_date32(t):
        return _times(as_numpy(column).astype(np.int64), 86_400_000_000)
    if pa.types.is_date64(t):
        return _times(as_numpy(column), 1000)
    raw = as_numpy(column)
    return raw // 1000 if t.unit == "ns" else _times(raw, {"s": 1_000_000, "ms": 1000, "us": 1}[t.unit])


def _decimals(column: pa.Array) -> npt.NDArray[np.float64]:
    """The nearest float64 to each decimal.

    Arrow's own cast multiplies by 10**-scale, which turns 0.3 into 0.30000000000000004. A division rounds once, so
    correctly, where both numbers are exact: up to 2**53 and 10**22. Past these, the digits are parsed.
    """
    t = column.type
    unscaled = column.view(getattr(pa, f"decimal{t.bit_width}")(t.precision, 0))
    whole = as_numpy(pc.cast(unscaled, pa.float64()))
    if 0 <= t.scale <= 22 and np.abs(whole).max(initial=0) < 2**53:
        return np.asarray(whole / 10.0**t.scale)
    return as_numpy(pc.cast(pc.cast(column, pa.string()), pa.float64()))


def _times(raw: npt.NDArray[np.signedinteger[Any]], factor: int) -> npt.NDArray[np.int64]:
    most = (2**63 - 1) // factor
    return np.asarray(np.clip(raw, -most, most) * factor, np.int64)


def _bits(data: pa.Buffer | None, offset: int, count: int) -> npt.NDArray[np.bool_]:
    if data is None or not count:
        return np.zeros(0, np.bool_)
    packed = np.frombuffer(data, np.uint8, offset=offset // 8)
    return np.unpackbits(packed, count=offset % 8 + count, bitorder="little")[offset % 8 :].view(np.bool_)
