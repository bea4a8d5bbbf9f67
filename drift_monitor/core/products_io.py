"""Products of features as Arrow tables: a row a bucket, and in the metadata the steps that were counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa

from drift_monitor.core.arrow import as_arrow, as_numpy
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.profile import Ints

FORMAT: Final = 1
COLUMNS: Final = pa.schema(
    [
        ("bucket", pa.int64()),
        ("rows", pa.int64()),
        ("sums", pa.list_(pa.int64())),
        ("products", pa.list_(pa.int64())),
    ]
)
_VERSION: Final = b"drift-monitor products format"
_PAIRS: Final = b"drift-monitor pairs"


def schema_of(pairs: PairSpec | None) -> pa.Schema:
    """The schema of a table of products, which tells names, centres and scales as JSON; none of them for None."""
    kept = {"names": pairs.names, "centre": pairs.centre.tolist(), "scale": pairs.scale.tolist()} if pairs else {}
    return COLUMNS.with_metadata({_VERSION: str(FORMAT).encode(), _PAIRS: json.dumps(kept).encode()})


def pairs_of(schema: pa.Schema) -> PairSpec | None:
    """The inverse of `schema_of`.

    Raises:
        BadReferenceError: it is of another version of the format.
    """
    metadata = schema.metadata or {}
    version = metadata.get(_VERSION, b"none").decode("utf-8", "replace")
    if version != str(FORMAT):
        raise BadReferenceError(
            f"products of format {version} cannot be read: this version of drift-monitor reads format {FORMAT}"
        )
    if schema.names != COLUMNS.names:
        raise BadReferenceError(f"products have the columns {schema.names} and not {COLUMNS.names}")
    kept = json.loads(metadata[_PAIRS])
    if not kept:
        return None
    return PairSpec(tuple(kept["names"]), np.array(kept["centre"]), np.array(kept["scale"]))


def products_to_table(products: Mapping[int, Products], pairs: PairSpec | None) -> pa.Table:
    """One row a bucket.

    Args:
        products: by start of bucket.
        pairs: what they were counted for; None when there are none.
    """
    starts = sorted(products)
    columns = [
        as_arrow(np.array(starts, np.int64)),
        as_arrow(np.array([products[start].rows for start in starts], np.int64)),
        _lists([products[start].sums for start in starts]),
        _lists([products[start].products for start in starts]),
    ]
    return pa.Table.from_arrays(columns, schema=schema_of(pairs))


def products_from_table(table: pa.Table) -> dict[int, Products]:
    """The inverse of `products_to_table`; the numbers stay where the table has them.

    Raises:
        BadReferenceError: it is of another version of the format.
    """
    pairs_of(table.schema)
    starts, rows, sums, products = (table[name].combine_chunks() for name in COLUMNS.names)
    return {
        start: Products(count, *numbers)
        for start, count, *numbers in zip(
            as_numpy(starts).tolist(), as_numpy(rows).tolist(), _unlisted(sums), _unlisted(products), strict=True
        )
    }


def _lists(rows: list[Ints]) -> pa.Array:
    """Arrays of the same length as one column of lists."""
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    offsets = np.arange(len(rows) + 1) * (len(rows[0]) if rows else 0)
    return pa.ListArray.from_arrays(as_arrow(offsets.astype(np.int32)), as_arrow(flat))


def _unlisted(column: pa.ListArray) -> list[Ints]:
    offsets = as_numpy(column.offsets).tolist()
    flat = as_numpy(column.values)
    return [flat[low:high] for low, high in pairwise(offsets)]
