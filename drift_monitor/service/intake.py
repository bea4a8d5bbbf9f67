"""The children that take rows in, seen from the daemon: started, asked, and started again when they die."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from drift_monitor.actions.process import ProcessError, run_process
from drift_monitor.config.intake import KafkaSource, PushSource, SpooledSource
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import StoreError
from drift_monitor.service.columns_cache import ColumnsCache, stamp_of
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.intake_child import Child
from drift_monitor.service.live_columns import COMMAND as FIND_COLUMNS
from drift_monitor.service.logs import fields
from drift_monitor.service.promotions import RECORD, promoted_folder

log = logging.getLogger(__name__)

PUSH: Final = ""
"""The child that takes pushed rows of all monitors; the others are named for their monitor."""
MOST_BYTES: Final = 64 * 2**20
"""Of requests that wait to be durable."""
MOST_REQUESTS: Final = 16
"""That wait to be durable; the server has more threads than these."""
ANSWER: Final = 30.0  # seconds a request may take
FLUSH: Final = 10.0  # seconds a check waits for the rows that were taken before it
_LOOK: Final = 1.0
_MOMENT: Final = 0.1
_COUNT: Final = 5.0  # seconds between two writes of counters to the store
_BUILD: Final = timedelta(hours=1)  # to build a reference
_PAUSES: Final = (0.2, 1.0, 5.0, 30.0)  # seconds until a child that died is started again
_LIVED: Final = 60.0  # seconds after which the pauses begin anew
_GRACE: Final = 20.0  # seconds for a child to finish


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        told: for whoever asked.
        again: seconds after which to ask again; None where that would not help.
    """

    status: HTTPStatus
    told: Mapping[str, object]
    again: int | None = None


@dataclass
class Figures:
    """How the intake of a monitor stands.

    Attributes:
        waiting: events that wait for their other half.
        files, bytes: of its spool.
        newest: when rows were last taken, in seconds since 1970.
        lag: partition -> messages not read yet.
    """

    waiting: int | None = None
    files: int | None = None
    bytes: int | None = None
    newest: float | None = None
    lag: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Settings:
    """What a child needs to know of a monitor, and what that was found from."""

    name: str
    monitor: Monitor
    stamp: str
    columns: list[dict[str, Any]] | None
    retry: float = 0.0

    @cached_property
    def told(self) -> dict[str, Any]:
        """The same for a child."""
        return {"name": self.name, "monitor": self.monitor.model_dump_json(), "columns": self.columns}


class Intake:
    """All children that take rows in.

    Args:
        count: adds to a counter of the store.
    """

    def __init__(self, count: Callable[[str, Mapping[str, str], float], None]) -> None:
        self._count = count
        self._config: Config | None = None
        self._lock = threading.Lock()
        self._bytes = self._requests = 0
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, tuple[int, float]] = {}
        self._settings: dict[str, _Settings] = {}
        self._told: dict[str, object] = {}
        self._tell_again: float | None = None  # what a child could not do at first
        self._pending: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._figures: dict[str, Figures] = defaultdict(Figures)
        self._problems: dict[str, str] = {}
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)

    @property
    def children(self) -> list[int]:
        """Process ids."""
        with self._lock:
            return [child.pid for child in self._children.values() if child.alive]

    @property
    def figures(self) -> Mapping[str, Figures]:
        """How each monitor's intake stands."""
        with self._lock:
            return dict(self._figures)

    @property
    def waiting(self) -> int:
        """Requests that wait to be durable."""
        return self._requests

    @property
    def problems(self) -> Mapping[str, str]:
        """Why monitors take no rows."""
        with self._lock:
            return dict(self._problems)

    def start(self, config: Config) -> None:
        """Begin to take rows."""
        self._config = config
        self._thread.start()

    def reconfigure(self, config: Config) -> None:
        """Take rows as another configuration says, soon."""
        self._config = config
        self._wake.set()

    def refuse_more(self) -> None:
        """Take no more requests: the daemon stops."""
        self._stopping.set()
        self._wake.set()

    def stop(self, grace: timedelta) -> None:
        """Let the children finish and end; those that need longer are killed, and lose nothing."""
        self.refuse_more()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            children = list(self._children.values())
            self._children.clear()
        for child in children:
            child.end()
        for child in children:
            child.join(grace.total_seconds())
        self._write_counts()

    # -- what is asked -----------------------------------------------------------------------------

    def room_for(self, name: str, size: int) -> Answer | None:
        """Reserve room for a request; why there is none, or None. Give it back with `leave`."""
        config = self._config
        monitor = config.monitors.get(name) if config is not None else None
        if monitor is None or not monitor.enabled or not isinstance(monitor.source, PushSource):
            return Answer(
                HTTPStatus.NOT_FOUND, {"error": "there is no enabled monitor of this name with source.type push"}
            )
        if size > monitor.source.max_body:
            self.refused(name, "too_large")
            told = {"error": f"the body has {size} bytes and source.max_body allows {monitor.source.max_body}"}
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
        if self._stopping.is_set():
            self.refused(name, "unavailable")
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the daemon is stopping"}, 5)
        with self._lock:
            if self._requests >= MOST_REQUESTS or self._bytes + size > MOST_BYTES:
                full = True
            else:
                full = False
                self._requests += 1
                self._bytes += size
        if full:
            self.refused(name, "queue_full")
            told = {"error": "more rows come than can be written: send them again in a while"}
            return Answer(HTTPStatus.TOO_MANY_REQUESTS, told, 1)
        return None

    def leave(self, size: int) -> None:
        """Give room back."""
        with self._lock:
            self._requests -= 1
            self._bytes -= size

    def take(self, name: str, kind: str, headers: Mapping[str, str], key: str | None, body: bytes) -> Answer:
        """Have rows written; it is answered when they are durable.

        Args:
            name: of the monitor, which takes rows.
            kind: content type, without parameters.
            headers: those that begin with `ce-`, in lower case.
            key: that makes repetitions known.
            body: as it was sent.
        """
        with self._lock:
            child, problem = self._children.get(PUSH), self._problems.get(name)
        if problem is not None:
            self.refused(name, "unavailable")
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": problem}, 30)
        if child is None:
            self.refused(name, "unavailable")
            return Answer(
                HTTPStatus.SERVICE_UNAVAILABLE, {"error": "rows cannot be taken yet: the daemon is starting"}, 1
            )
        request = {"do": "records", "monitor": name, "type": kind, "headers": dict(headers), "key": key}
        answer = child.ask(request, body, ANSWER)
        if answer is None:
            self.refused(name, "unavailable")
            told = {
                "error": "whether the rows were taken is not known: send them again, with the same Idempotency-Key"
            }
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, told, 1)
        status = HTTPStatus(answer["status"])
        again = {HTTPStatus.TOO_MANY_REQUESTS: 1, HTTPStatus.SERVICE_UNAVAILABLE: 5}.get(status)
        return Answer(status, answer["body"], again)

    def flush(self, name: str, monitor: Monitor) -> None:
        """Have all rows that were taken so far made visible to checks; waits for a bounded time."""
        kind = monitor.source.type
        if kind not in ("push", "kafka"):
            return
        give_up = time.monotonic() + FLUSH
        while (child := self._child(PUSH if kind == "push" else name)) is None and time.monotonic() < give_up:
            if self._stopping.wait(_MOMENT) or name in self.problems:
                break
        if child is None or child.ask({"do": "flush", "monitor": name}, b"", give_up - time.monotonic()) is None:
            log.warning("the newest rows may come too late for the next check", extra=fields(monitor=name))

    def _child(self, name: str) -> Child | None:
        with self._lock:
            return self._children.get(name)

    def refused(self, name: str, reason: str) -> None:
        """Count a request that was not taken."""
        with self._lock:
            self._pending[name]["intake_refused_total", reason] += 1

    # -- the children ------------------------------------------------------------------------------

    def _work(self) -> None:
        counted = time.monotonic()
        while not self._stopping.is_set():
            config = self._config
            if config is not None:
                self._look_after(config)
            if time.monotonic() - counted > _COUNT:
                counted = time.monotonic()
                self._write_counts()
            self._wake.wait(_LOOK)
            self._wake.clear()

    def _look_after(self, config: Config) -> None:
        monitors = {
            name: monitor
            for name, monitor in config.monitors.items()
            if monitor.enabled and isinstance(monitor.source, SpooledSource)
        }
        for name in self._settings.keys() - monitors.keys():
            del self._settings[name]
            with self._lock:
                self._figures.pop(name, None)
                self._problems.pop(name, None)
        for name, monitor in monitors.items():
            if self._stopping.is_set():
                return
            if self._find_columns(name, monitor, config.state):
                self._run_all()  # now, since the next may take long
        self._run_all()

    def _run_all(self) -> None:
        """Have the children run that are wanted, and no others."""
        pushed = {n: s for n, s in self._settings.items() if isinstance(s.monitor.source, PushSource)}
        wanted: dict[str, dict[str, Any]] = {}
        if any(settings.columns is not None for settings in pushed.values()):
            known = {name: s.told for name, s in pushed.items() if s.columns is not None}
            wanted[PUSH] = {"do": "configure", "monitors": known}
        for name, settings in self._settings.items():
            if isinstance(settings.monitor.source, KafkaSource) and settings.columns is not None:
                wanted[name] = {"do": "configure", **settings.told}
        for name in self._children.keys() - wanted.keys():
            self._end(name)
        for name, settings_ in wanted.items():
            self._run(name, settings_)

    def _find_columns(self, name: str, monitor: Monitor, state: Path) -> bool:
        """Learn which columns a monitor keeps, when its configuration or its reference changed; whether it did."""
        changed = [stamp_of(monitor.reference), stamp_of(promoted_folder(state, name) / RECORD)]
        stamp = f"{monitor.model_dump_json()} {changed}"
        known = self._settings.get(name)
        if (
            known is not None
            and known.stamp == stamp
            and (known.columns is not None or time.monotonic() < known.retry)
        ):
            return False
        cache = ColumnsCache(monitor.source)
        if (found := cache.read(stamp)) is not None:
            self._settings[name] = _Settings(name, monitor, stamp, found)
            return True
        request = CheckRequest(name=name, monitor=monitor, state=state, window=None)
        before = None if known is None else known.columns
        try:
            said = run_process(
                FIND_COLUMNS, request, _BUILD, doing="opening the reference", advice="build it beforehand"
            )
        except (ProcessError, OSError) as error:
            log.error("no rows are taken", extra=fields(monitor=name, reason=error))  # noqa: TRY400
            with self._lock:
                self._problems[name] = f"the monitor takes no rows: {error}"
            self._settings[name] = _Settings(name, monitor, stamp, before, time.monotonic() + _PAUSES[-1])
            return True
        with self._lock:
            self._problems.pop(name, None)
        self._settings[name] = _Settings(name, monitor, stamp, json.loads(said))
        cache.write(stamp, said)
        return True

    def _run(self, name: str, settings: dict[str, Any]) -> None:
        """Have a child run with these settings."""
        child = self._children.get(name)
        if child is not None and child.alive:
            again = name == PUSH and self._tell_again is not None and time.monotonic() > self._tell_again
            if self._told.get(name) == settings and not again:
                return
            if name == PUSH:
                self._tell_again = None
                child.tell(settings)
                self._told[name] = settings
                return
            self._end(name)
        elif child is not None:
            self._bury(name, child)
        deaths, last = self._deaths.get(name, (0, 0.0))
        if deaths and time.monotonic() - last < _PAUSES[min(deaths, len(_PAUSES)) - 1]:
            self._wake.wait(_PAUSES[0])
            return
        module = f"drift_monitor.intake.{'push_child' if name == PUSH else 'kafka_child'}"
        try:
            child = Child(module, self._heard, ANSWER)
        except OSError as error:
            log.error("rows cannot be taken", extra=fields(monitor=name, reason=error))  # noqa: TRY400
            return
        child.tell(settings)
        with self._lock:
            self._children[name], self._told[name] = child, settings
        log.info("intake started", extra=fields(monitor=name or "all that are pushed to", pid=child.pid))

    def _bury(self, name: str, child: Child) -> None:
        child.join(0)
        with self._lock:
            del self._children[name]
        deaths = 0 if time.monotonic() - child.born > _LIVED else self._deaths.get(name, (0, 0.0))[0]
        self._deaths[name] = (deaths + 1, time.monotonic())
        log.error(
            "intake died", extra=fields(monitor=name or "all that are pushed to", pid=child.pid, deaths=deaths + 1)
        )

    def _end(self, name: str) -> None:
        with self._lock:
            child = self._children.pop(name)
        child.end()
        child.join(_GRACE)

    # -- what they say -----------------------------------------------------------------------------

    def _heard(self, header: dict[str, Any]) -> None:
        if header["do"] == "problem":
            log.error("no rows are taken", extra=fields(monitor=header["monitor"], reason=header["why"]))
            self._tell_again = time.monotonic() + _PAUSES[2]
            return
        with self._lock:
            for name, told in header["monitors"].items():
                pending = self._pending[name]
                pending["intake_rows_total", ""] += told["rows"]
                for reason, count in told["refused"].items():
                    pending["intake_refused_total", reason] += count
                self._figures[name] = Figures(
                    told.get("waiting"), told["files"], told["bytes"], told["newest"], told.get("lag", {})
                )

    def _write_counts(self) -> None:
        """Put what was counted into the store, where counters live."""
        with self._lock:
            pending, self._pending = self._pending, defaultdict(Counter)
        for name, counts in pending.items():
            for (metric, reason), count in counts.items():
                if not count:
                    continue
                labels = {"monitor": name} | ({"reason": reason} if reason else {})
                try:
                    self._count(metric, labels, count)
                except StoreError:
                    with self._lock:
                        self._pending[name][metric, reason] += count
