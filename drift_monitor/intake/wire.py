"""How the daemon and a child that takes rows talk: frames of a JSON header and bytes, over a socket pair."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

_HEAD: Final = struct.Struct("<II")


def send_frame(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame; calls must not overlap.

    Raises:
        OSError: the other side is gone.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    connection.sendall(_HEAD.pack(len(text), len(body)) + text)
    if body:
        connection.sendall(body)


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Wait for one frame; None when the other side has ended.

    Raises:
        OSError: the connection broke.
    """
    head = _read(connection, _HEAD.size)
    if head is None:
        return None
    header, body = _HEAD.unpack(head)
    text, content = _read(connection, header), _read(connection, body)
    return None if text is None or content is None else (json.loads(text), bytes(content))


def _read(connection: socket.socket, size: int) -> bytearray | None:
    buffer = bytearray(size)
    view = memoryview(buffer)
    at = 0
    while at < size:
        got = connection.recv_into(view[at:])
        if not got:
            return None
        at += got
    return buffer
