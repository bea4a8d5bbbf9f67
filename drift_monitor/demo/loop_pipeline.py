"""The retraining pipeline as a child of the demo: `examples/retraining_pipeline/pipeline.py`."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from types import TracebackType
from typing import Final, Self

from drift_monitor.demo.daemon import end
from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP
from drift_monitor.demo.loop_folder import LoopFolder
from drift_monitor.demo.loop_plan import FIRST_VERSION
from drift_monitor.demo.stage import DemoError

_COMMAND: Final = (sys.executable, "-m", "drift_monitor.demo.retraining_pipeline")
_LISTENING: Final = "listening on "
_READY: Final = 60.0  # seconds
_GRACE: Final = 10.0


def first_model(place: LoopFolder) -> None:
    """Have the pipeline train the first model and make it live.

    Raises:
        DemoError: it could not.
    """
    command = [*_COMMAND, "first", *_about(place), "--training", str(place.training), "--version", FIRST_VERSION]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise DemoError(f"the first model could not be trained: {done.stderr.strip()[-500:]}")


class PipelineProcess:
    """The pipeline, listening while the `with` block lasts.

    Args:
        place: the demo's folder.
        daemon: URL of the daemon that it works for.
    """

    def __init__(self, place: LoopFolder, daemon: str) -> None:
        self._place, self._daemon = place, daemon
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.url = ""

    def __enter__(self) -> Self:
        place = self._place
        serve = ["--listen", "127.0.0.1:0", "--daemon", self._daemon, "--inbox", str(place.inbox)]
        self._process = subprocess.Popen(
            [*_COMMAND, "serve", *_about(place), *serve, "--secret-file", str(place.pipeline_secret)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        self._reader = threading.Thread(target=self._read, name="pipeline log", daemon=True)
        self._reader.start()
        try:
            self.url = self._until_it_listens()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def said(self) -> list[str]:
        """Its log lines since the last call, without the time."""
        lines = []
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                lines.append(_message(line))
        return lines

    def _end(self) -> None:
        end(self._process, _GRACE)
        self._reader.join()

    def _until_it_listens(self) -> str:
        last = "it said nothing"
        try:
            while (line := self._lines.get(timeout=_READY)) is not None:
                last = _message(line)
                if last.startswith(_LISTENING):
                    return last.removeprefix(_LISTENING)
        except queue.Empty:
            pass
        raise DemoError(f"the pipeline did not begin to listen: {last}; its log is {self._place.pipeline_log}")

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        with self._process.stderr as lines, self._place.pipeline_log.open("w") as log:
            for line in lines:
                log.write(line)
                log.flush()
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def _message(line: str) -> str:
    """A log line without its date, time and level."""
    return line.split(" ", 3)[-1]


def _about(place: LoopFolder) -> list[str]:
    columns = ["--label", LABEL, "--id", IDENTIFIER, "--time", TIMESTAMP]
    return ["--models", str(place.models), *columns]


def _environment() -> dict[str, str]:
    """Threads that wait for each other spin: beside other work two take longer than one."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
