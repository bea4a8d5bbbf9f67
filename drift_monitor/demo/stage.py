"""What both demos stand on: lines about steps, a port, what to type, and to stay until Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.types import Outcome
from drift_monitor.demo.daemon import Daemon

MARKS: Final = {
    Outcome.OK: ("·", "green"),
    Outcome.DRIFT: ("D", "red"),
    Outcome.BROKEN: ("B", "magenta"),
    Outcome.NO_DATA: ("0", "yellow"),
    Outcome.CANNOT_JUDGE: ("?", "yellow"),
}
"""A mark for a window, by its verdict, and its style."""


class DemoError(DriftMonitorError):
    """The demo cannot run."""


@dataclass
class Step:
    """A step under way.

    Attributes:
        text: what it is; the line about it begins with that.
        say: show something in its place meanwhile.
        notes: for the line about it.
    """

    text: str
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)

    def progress(self, done: int, total: int) -> None:
        """Show how far it is."""
        self.say(f"{self.text}: {done} of {total}")


@contextlib.contextmanager
def step(console: Console, text: str) -> Iterator[Step]:
    """A line about a step once it is done: the notes that were added, and how long it took."""
    began = time.monotonic()
    with spinner(console, text) as say:
        under_way = Step(text, say)
        yield under_way
    console.print(Text("; ".join([under_way.text, *under_way.notes, f"{time.monotonic() - began:.1f} s"])))


@contextlib.contextmanager
def spinner(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Say what is going on, where there is a terminal to say it on."""
    if not console.is_terminal:
        yield lambda _text: None
        return
    with console.status(Text(text)) as status:
        yield lambda update: status.update(Text(update))


def free_port(port: int) -> int:
    """The port, once it is known that nobody has it; a free one for 0.

    Raises:
        DemoError: somebody has it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"the demo cannot listen on 127.0.0.1:{port} ({error.strerror}): use --port with another, "
                "or --port 0 for a free one"
            ) from error
        free: int = probe.getsockname()[1]
    return free


def typed_program() -> str:
    """What to type to run this program: with its folder, unless that is on the path."""
    if shutil.which("drift-monitor"):
        return "drift-monitor"
    return str(shown(Path(sys.executable).with_name("drift-monitor")))


def shown(path: Path) -> Path:
    """Relative to where the person is, when it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def serve(daemon: Daemon, console: Console) -> None:
    """Stay until Ctrl-C, or until the daemon is stopped."""
    console.print("Press Ctrl-C to stop.")
    with contextlib.suppress(KeyboardInterrupt):
        daemon.wait()
    console.print("stopped")
