"""Rows of a Delta table that are deleted by deletion vectors, written as the protocol has them.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-format and, for the bitmaps,
https://github.com/RoaringBitmap/RoaringFormatSpec
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa

_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_PROTOCOL = {
    "minReaderVersion": 3,
    "minWriterVersion": 7,
    "readerFeatures": ["deletionVectors"],
    "writerFeatures": ["deletionVectors"],
}


def vector(rows: Sequence[int]) -> dict[str, Any]:
    """The inline deletion vector of some rows of a file, by their places; at most 4,096, all below 65,536."""
    places = sorted(set(rows))
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(places) - 1, 16) + struct.pack(f"<{len(places)}H", *places)
    raw = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = raw + bytes(-len(raw) % 4)
    text = base64.b85encode(padded).translate(bytes.maketrans(_B85, _Z85)).decode()
    return {
        "storageType": "i",
        "pathOrInlineDv": text,
        "sizeInBytes": len(raw),
        "cardinality": len(places),
    }


def write_vectors(table: Path, deleted: Mapping[str, Sequence[int]]) -> None:
    """Write a version of a table in which rows of files are deleted, instead of those that were before.

    Args:
        table: its folder.
        deleted: places of rows, by the path of their file as the log has it; none for a file without.
    """
    version = deltalake.DeltaTable(table).version()
    files: dict[str, dict[str, Any]] = {}
    for number in range(version + 1):
        for line in (table / "_delta_log" / f"{number:020d}.json").read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                files[action["add"]["path"]] = action["add"]
            elif "remove" in action:
                files.pop(action["remove"]["path"], None)
    actions: list[dict[str, Any]] = [{"protocol": _PROTOCOL}]
    for path, rows in deleted.items():
        old = {"path": path, "deletionTimestamp": 1, "dataChange": True}
        new = {name: value for name, value in files[path].items() if name != "deletionVector"}
        if "deletionVector" in files[path]:
            old["deletionVector"] = files[path]["deletionVector"]
        if rows:
            new["deletionVector"] = vector(rows)
        actions += [{"remove": old}, {"add": new}]
    log = table / "_delta_log" / f"{version + 1:020d}.json"
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))


def data_files(table: Path) -> list[str]:
    """The paths of a table's files as its log has them, in order."""
    adds = deltalake.DeltaTable(table).get_add_actions(flatten=True)
    return sorted(pa.table(adds)["path"].to_pylist())
