"""A server on loopback that does what its script says, and remembers what it was asked."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A server that takes one request a connection and then does what the next of its scripts says."""

    scripts: Sequence[Callable[[socket.socket], None]]  # the last one serves all further connections
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    left: threading.Event = field(default_factory=threading.Event)  # the client was seen to hang up
    url: str = ""

    def wait_for_connection(self) -> int:
        """How many connections there were, once there was one: a client may be done before it is counted."""
        give_up = time.monotonic() + 60
        while not self.connections and time.monotonic() < give_up:
            time.sleep(0.01)
        return self.connections

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            script = self.scripts[min(self.connections, len(self.scripts) - 1)]
            self.connections += 1
            threading.Thread(target=self.talk, args=(connection, script), daemon=True).start()

    def talk(self, connection: socket.socket, script: Callable[[socket.socket], None]) -> None:
        with connection:
            try:
                talking = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
                with talking:
                    if request := read_request(talking):
                        self.requests.append(request)
                        script(talking)
            except OSError:
                self.left.set()


def read_request(connection: socket.socket) -> Request | None:
    with connection.makefile("rb") as stream:
        line = stream.readline().decode("latin-1").strip()
        if not line:
            return None
        headers = {}
        while header := stream.readline().decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return Request(line, headers, stream.read(int(headers.get("content-length", 0))))


@contextmanager
def serving(*scripts: Callable[[socket.socket], None] | bytes, **options: Any) -> Iterator[Server]:
    server = Server([says(each) if isinstance(each, bytes) else each for each in scripts], **options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme = "https" if server.tls else "http"
        server.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/hook?x=1"
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


def status(line: str, headers: str = "", body: str = "") -> bytes:
    return f"HTTP/1.1 {line}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def drips(head: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    """Say `head`, then a drop every few milliseconds until the client hangs up."""

    def script(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)
            time.sleep(0.02)

    return script


def hangs(connection: socket.socket) -> None:
    if not connection.recv(1):
        raise ConnectionResetError  # the client hung up


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
