"""A journal: rows on disk a moment after they came, in the order in which they came.

A file of frames: 16 bytes (mark, length of the header, length of the body, CRC-32 of both), a header in JSON, a
body. The body of the first frame is an Arrow schema, that of a frame of rows one record batch of it. Whatever a
crash left half written at the end fails its CRC and is not there.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from drift_monitor.reference.version import sync_folder

_HEAD: Final = struct.Struct("<4sIII")
_MARK: Final = b"DMJ1"
_LONGEST_HEADER: Final = 1 << 28


class Journal:
    """A journal that is being written.

    Args:
        path: of a file that does not exist.
        schema: of the rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.size = self._synced = 0
        self.append({"kind": "schema"}, schema.serialize())

    def append(self, header: dict[str, Any], body: pa.Buffer | bytes = b"") -> None:
        """Write a frame. It is durable after the next `sync`.

        Raises:
            OSError: it cannot be written; nothing of it stays.
        """
        text = json.dumps(header, separators=(",", ":")).encode()
        crc = zlib.crc32(body, zlib.crc32(text))
        parts = [memoryview(_HEAD.pack(_MARK, len(text), len(body), crc)), memoryview(text), memoryview(body)]
        left = sum(map(len, parts))
        size = self.size + left
        try:
            while parts:
                written = os.writev(self._file, parts)
                while parts and written >= len(parts[0]):
                    written -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][written:]
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size = size

    def sync(self) -> None:
        """Wait until all frames are on disk.

        Raises:
            OSError: they are not.
        """
        if self._synced == self.size:
            return
        os.fdatasync(self._file)
        if not self._synced:
            sync_folder(self.path.parent)
        self._synced = self.size

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def read_frames(path: Path) -> Iterator[tuple[dict[str, Any], pa.Buffer]]:
    """The whole frames of a journal.

    Raises:
        OSError: it cannot be read.
    """
    if not path.stat().st_size:
        return
    with pa.memory_map(str(path)) as file:
        size = file.size()
        while file.tell() + _HEAD.size <= size:
            mark, header, body, crc = _HEAD.unpack(file.read_buffer(_HEAD.size))
            if mark != _MARK or header > _LONGEST_HEADER or file.tell() + header + body > size:
                return
            text, content = file.read_buffer(header), file.read_buffer(body)
            if zlib.crc32(content, zlib.crc32(text)) != crc:
                return
            yield json.loads(text.to_pybytes()), content
