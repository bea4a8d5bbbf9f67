"""Starts the server of a pipeline from its own environment, and ends it with everything it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from install import folder, is_installed

T = TypeVar("T")
PATIENCE = 240  # seconds until something that must happen is given up
PROJECTS = Path(__file__).parent / "projects"


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Of tests that need an environment."""
    reason = f"{name} is not installed: make test-pipelines does that"
    return [
        pytest.mark.server,
        pytest.mark.slow,
        pytest.mark.timeout(2 * PATIENCE),
        pytest.mark.skipif(not is_installed(name), reason=reason),
    ]


def program(name: str, binary: str) -> Path:
    """A program of an environment."""
    return folder() / name / "bin" / binary


@contextmanager
def running(command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """A server and its children, until the block ends."""
    inherited = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**inherited, "PATH": path, "NO_COLOR": "1", **environment},
            start_new_session=True,
        )
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-5000:])
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group, which must not outlive the test."""
    for sign, seconds in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 15.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with suppress(ProcessLookupError):
            give_up = time.monotonic() + seconds
            while time.monotonic() < give_up:
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            continue
        return


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask(url: str, content: object = None, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that a server answers."""
    body = None if content is None else json.dumps(content).encode()
    request = Request(url, body, {"Content-Type": "application/json", **(headers or {})})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """Look again and again until there is something; a server that is not up yet has nothing."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with suppress(URLError, ConnectionError, TimeoutError):
            if found := look():
                return found
        time.sleep(0.3)
    raise AssertionError(f"waited {PATIENCE} s for {what}")
