"""The child that takes pushed rows: `python -m drift_monitor.intake.push_child`.

All requests that have come while the last ones were written go to disk together, with one wait for the disk for
each monitor, and are answered then.
"""

from __future__ import annotations

import queue
import time
from http import HTTPStatus
from typing import Any, Final

from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.intake.child import Files, Link, begin, figures
from drift_monitor.intake.layout import LiveColumn
from drift_monitor.intake.refused import RefusedError
from drift_monitor.intake.taking import FullError, Taking

_TOGETHER: Final = 64  # requests that are written with one wait
_REPORT: Final = 2.0  # seconds between two reports
_FORGET: Final = 600.0  # seconds between two looks for keys past their time
Frame = tuple[dict[str, Any], bytes]


class PushChild:
    """Takes requests from the daemon until that ends.

    Args:
        link: to the daemon.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._files = link, Files()
        self._taking: dict[str, Taking] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._next_report = self._next_forget = 0.0

    def run(self) -> None:
        """Work until the daemon says stop or is gone.

        Raises:
            OSError: the disk failed in a way after which only a new start knows what is on it.
        """
        running = True
        while running:
            group, running = self._group()
            for header, _ in group:
                if header["do"] == "configure":
                    self._configure(header["monitors"])
            self._answer([frame for frame in group if frame[0]["do"] == "records"])
            for header, _ in group:
                if header["do"] == "flush":
                    self._flush(header["id"], header["monitor"])
            self._look_after()
        self._files.stop()
        for taking in self._taking.values():
            taking.spool.close()

    def _group(self) -> tuple[list[Frame], bool]:
        """The frames that are there now, or the next one; whether more will come."""
        group: list[Frame] = []
        try:
            frame = self._link.inbox.get(timeout=0.5)
            while frame is not None:
                group.append(frame)
                if len(group) >= _TOGETHER:
                    break
                frame = self._link.inbox.get_nowait()
        except queue.Empty:
            return group, True
        return group, frame is not None

    def _configure(self, monitors: dict[str, dict[str, Any]]) -> None:
        for name in [name for name in self._taking if monitors.get(name) != self._made[name]]:
            self._files.look_after([])
            self._files.stop()  # nothing of it is being written any more
            self._files = Files()
            self._taking.pop(name).spool.close()
        for name, settings in monitors.items():
            if name in self._taking:
                continue
            try:
                monitor = Monitor.model_validate_json(settings["monitor"])
                columns = [LiveColumn.model_validate(each) for each in settings["columns"]]
                self._taking[name], self._made[name] = Taking(monitor, columns), settings
            except (DriftMonitorError, OSError) as error:
                self._link.send({"do": "problem", "monitor": name, "why": str(error)})
        self._files.look_after(taking.spool for taking in self._taking.values())

    def _answer(self, group: list[Frame]) -> None:
        answers: list[dict[str, Any]] = []
        touched = set()
        for header, body in group:
            name = header["monitor"]
            status, told = self._take(header, body)
            if status == HTTPStatus.ACCEPTED:
                touched.add(name)
            answers.append({"do": "answer", "id": header["id"], "status": status, "body": told})
        for name in touched:
            self._taking[name].spool.sync()  # if this fails, whatever was not answered is not known: start anew
        for answer in answers:
            self._link.send(answer)

    def _take(self, header: dict[str, Any], body: bytes) -> tuple[HTTPStatus, dict[str, object]]:
        taking = self._taking.get(header["monitor"])
        if taking is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the monitor is not ready to take rows; try again"}
        try:
            return HTTPStatus.ACCEPTED, taking.take(header["type"], header["headers"], header["key"], body)
        except FullError as error:
            return HTTPStatus.TOO_MANY_REQUESTS, error.told()
        except RefusedError as error:
            return error.status, error.told()
        except MemoryError:
            taking.counts["too_large"] += 1
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "it takes too much memory: send fewer rows"}
        except OSError as error:
            taking.counts["unavailable"] += 1
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the rows cannot be kept: {error.strerror}"}

    def _flush(self, identifier: int, name: str) -> None:
        taking = self._taking.get(name)
        seal = None if taking is None else taking.spool.roll()

        def done() -> None:
            self._link.send({"do": "answer", "id": identifier, "status": HTTPStatus.OK, "body": {}})

        self._files.seal(seal or (lambda: None), done)  # in order: what was begun before is finished then

    def _look_after(self) -> None:
        for taking in self._taking.values():
            if taking.spool.is_due and not taking.spool.is_full and (seal := taking.spool.roll()) is not None:
                self._files.seal(seal)
        now = time.monotonic()
        if now >= self._next_forget:
            self._next_forget = now + _FORGET
            for taking in self._taking.values():
                taking.spool.keys.forget()
        if now >= self._next_report:
            self._next_report = now + _REPORT
            for taking in self._taking.values():
                taking.expire()
            told = {name: taking.report() | figures(taking.spool) for name, taking in self._taking.items()}
            self._link.send({"do": "report", "monitors": told})


if __name__ == "__main__":
    PushChild(begin()).run()
