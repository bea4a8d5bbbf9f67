"""A PostgreSQL of one's own on loopback, with a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cr%et@/:?#'\" ü"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them off the PATH."""
    found = shutil.which("pg_ctl")
    folders = [
        *([Path(found).parent] if found else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]
    return next((f for f in folders if (f / "pg_ctl").exists() and (f / "initdb").exists()), None)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running() -> Iterator[int]:
    """Start a server; gives its port. It runs as `postgres` where we are root, which cannot enter our folders."""
    bin_ = programs()
    assert bin_ is not None
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="drift-monitor-postgres-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "password").write_text(PASSWORD + "\n")
        if as_user:
            shutil.chown(home, "postgres")
            shutil.chown(home / "password", "postgres")
        yield from _serve(bin_, home, as_user)


def _serve(bin_: Path, home: Path, as_user: list[str]) -> Iterator[int]:
    data, port, password = home / "data", free_port(), home / "password"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(bin_ / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=home)
        log = home / "log"
        assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")

    run("initdb", "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync",
        "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip
    run("pg_ctl", "-D", str(data), "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield port
    finally:
        run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")


def uri(port: int, password: str = PASSWORD) -> str:
    return f"postgresql://postgres:{quote(password, safe='')}@127.0.0.1:{port}/postgres"
