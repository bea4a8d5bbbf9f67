"""Carries retrainings on: prepares them, follows their messages, gives up silent ones, promotes live ones.

What takes long is done one after another in a thread of its own, in child processes; the ledger knows how far each
retraining is, so that what a crash cut off is done again at the next start.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from drift_monitor.config.loop import Retrain
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.retraining import (
    Event,
    Retraining,
    RetrainingError,
    State,
    due_to_lapse,
    hand_id,
)
from drift_monitor.core.types import Episode, Message, ReferenceId
from drift_monitor.service.logs import fields
from drift_monitor.service.promotions import promotion_of
from drift_monitor.service.retrain_work import Work, prepare, promotion
from drift_monitor.service.retraining_messages import Sender, about, not_promoted, request_id, retrained
from drift_monitor.service.retrainings import Say
from drift_monitor.service.store import Store

log = logging.getLogger(__name__)

FOLDER = "retrainings"
SETTLED = "the drift ended by itself"
_KNOWN = 1000  # retrainings of a monitor among which the promoted one is looked for


class Retrainer:
    """The daemon's side of the loop.

    Args:
        store: the ledger.
        config: what runs now.
        sender: who speaks.
        kick: called when a message was entered in the outbox.
        work: what is done in child processes.
    """

    def __init__(
        self,
        store: Store,
        config: Callable[[], Config],
        sender: Callable[[], Sender],
        kick: Callable[[], None],
        work: Work | None = None,
    ) -> None:
        self._store, self._config, self._sender, self._kick = store, config, sender, kick
        self._work = work or Work()
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queued: set[str] = set()
        self._thread = threading.Thread(target=self._serve, name="retrainings", daemon=True)

    def start(self) -> None:
        """Begin to do what takes long. It ends, as its child does, with the process."""
        self._thread.start()

    # -- what is asked from outside ----------------------------------------------------------------

    def move(self, name: str, event: Event, **news: object) -> Retraining:
        """Apply an event from outside and send what follows from it.

        Raises:
            RetrainingError: there is no such retraining, or the event cannot follow.
            StoreError: it cannot be stored.
        """
        ledger = self._store.retrainings
        known = ledger.find(name)
        monitor = self._monitor(known)
        if monitor is None:
            raise RetrainingError(f"monitor {known.monitor!r} has no `retrain` section any more")
        if event is Event.APPROVE and known.state is State.PROPOSED:
            event, newer = self._with_the_newest_rows(known, monitor)
            news |= newer
        after = ledger.move(known.id, event, datetime.now(UTC), self._say(monitor), **news)
        self._kick()
        return after

    def _with_the_newest_rows(self, proposed: Retraining, monitor: Monitor) -> tuple[Event, dict[str, object]]:
        """How an approval goes on: what was made for a proposal that waited is made anew, then it is sent."""
        judged = self._store.snapshot().latest_judged.get(proposed.monitor)
        made = monitor.refresh.enabled or monitor.reweight.enabled
        if not made or judged is None or judged.window.end <= proposed.window.end:
            return Event.APPROVE, {}
        if why := self._store.retrainings.broken(proposed.monitor):
            raise RetrainingError(f"retraining {proposed.id[:8]} cannot be approved: {why}")
        return Event.RESUME, {"window": judged.window}

    def begin(self, monitor: str, by: str) -> Retraining:
        """Ask for a retraining by hand, whatever the guard rails say but for two: broken data, and one at a time.

        Raises:
            RetrainingError: it cannot be begun now.
            StoreError: it cannot be stored.
        """
        section = self._config().monitors.get(monitor)
        if section is None or section.retrain is None:
            raise RetrainingError(f"monitor {monitor[:100]!r} is not configured, or has no `retrain` section")
        if why := self._store.retrainings.broken(monitor):
            raise RetrainingError(f"{monitor} cannot be retrained now: {why}")
        snapshot = self._store.snapshot()
        judged = snapshot.latest_judged.get(monitor)
        if judged is None:
            raise RetrainingError(f"{monitor} cannot be retrained yet: no window was judged")
        now = datetime.now(UTC)
        begun = Retraining(
            id=hand_id(monitor, now),
            monitor=monitor,
            episode=None,
            opened=judged.window.end,
            window=judged.window,
            reason=f"asked for by {by}; at the newest window: {judged.reason}",
            features=tuple(feature.name for feature in judged.drifted),
            receiver=section.retrain.receiver,
            mode="by hand",
            created=now,
            changed=now,
            decided_by=by,
        )
        if not self._store.retrainings.put(begun):
            raise RetrainingError(f"another retraining of {monitor} is under way: one at a time")
        return begun

    # -- what is looked after ----------------------------------------------------------------------

    def look(self) -> None:
        """Move on whatever can be moved on without long work, and queue the rest.

        Raises:
            StoreError: the store cannot be used.
        """
        for retraining in self._store.retrainings.active():
            monitor = self._monitor(retraining)
            if monitor is None or monitor.retrain is None:
                continue
            try:
                self._look_at(retraining, monitor.retrain)
            except RetrainingError as error:  # somebody else moved it on since it was read
                log.info("a retraining moved meanwhile", extra=fields(retraining=retraining.id, error=error))

    def _look_at(self, retraining: Retraining, retrain: Retrain) -> None:
        if retraining.state in {State.PREPARING, State.PROPOSED} and self._is_over(retraining):
            self.move(retraining.id, Event.LAPSE, note=SETTLED)
            return
        if why := due_to_lapse(retraining, datetime.now(UTC), expires=retrain.expires, timeout=retrain.timeout):
            self.move(retraining.id, Event.LAPSE, note=why)
        elif retraining.state is State.APPROVED:
            self._follow_message(retraining)
        elif retraining.state in {State.PREPARING, State.LIVE} and retraining.id not in self._queued:
            self._queued.add(retraining.id)
            self._queue.put(retraining.id)

    def _is_over(self, retraining: Retraining) -> bool:
        if retraining.episode is None:
            return False
        episode = self._store.retrainings.episode(retraining.episode)
        return episode is None or episode.closed is not None

    def _follow_message(self, retraining: Retraining) -> None:
        found = self._store.retrainings.message_state(retraining.receiver, request_id(retraining.id))
        if found is None:
            self.move(retraining.id, Event.DEAD, note="the request was dropped from the outbox")
        elif found[0] == "delivered":
            self.move(retraining.id, Event.DELIVERED)
        elif found[0] == "dead":
            self.move(retraining.id, Event.DEAD, note=f"the pipeline's receiver did not take it: {found[1]}")

    # -- what takes long ---------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            name = self._queue.get()
            try:
                self.work_on(name)
            except DriftMonitorError as error:
                log.error("a retraining cannot go on now", extra=fields(retraining=name, error=error))  # noqa: TRY400
            except Exception:
                log.exception("a retraining cannot go on now", extra=fields(retraining=name))
            finally:
                self._queued.discard(name)

    def work_on(self, name: str) -> None:
        """Prepare a retraining, or promote what a live one was trained on; returns when it is done.

        Raises:
            DriftMonitorError: the store cannot be used, or it moved on meanwhile.
        """
        retraining = self._store.retrainings.find(name)
        monitor = self._monitor(retraining)
        if monitor is None or monitor.retrain is None:
            return
        if retraining.state is State.PREPARING:
            self._prepare(retraining, monitor, monitor.retrain)
        elif retraining.state is State.LIVE and not retraining.settled:
            self._promote(retraining, monitor, monitor.retrain)

    def _prepare(self, retraining: Retraining, monitor: Monitor, retrain: Retrain) -> None:
        state = self._config().state
        made = prepare(retraining, monitor, retrain, state, state / FOLDER / retraining.id, self._work)
        why = self._store.retrainings.broken(retraining.monitor) or made.unlabelled(retrain.labels)
        if why:
            note = "; ".join([why, *made.notes])
            self.move(retraining.id, Event.WITHHOLD, **made.news() | {"note": note, "decided_by": ""})
        elif retraining.mode == "propose" and not retraining.decided_by:
            self.move(retraining.id, Event.PREPARED, **made.news())
        else:
            by = retraining.decided_by or "the configuration (mode: auto)"
            self.move(retraining.id, Event.APPROVE, **made.news() | {"decided_by": by})

    def _promote(self, retraining: Retraining, monitor: Monitor, retrain: Retrain) -> None:
        reference = self._reference(retraining.monitor)
        at = self._newest_end(retraining)
        try:
            self._refuse_older(retraining)
            request = promotion(retraining, monitor, retrain, self._config().state, at)
            version = self._work.promote(request, retrain.deadline).version
        except DriftMonitorError as error:
            if (done := promotion_of(self._config().state, retraining.monitor)) and done.is_of(retraining):
                self._record_promotion(retraining, monitor, done.version, at)  # it ended before its answer came
                return
            sender = self._sender()
            self._store.retrainings.settle(
                retraining, str(error), lambda r: not_promoted(r, monitor, sender, reference=reference)
            )
            self._kick()
        else:
            self._record_promotion(retraining, monitor, version, at)

    def _refuse_older(self, retraining: Retraining) -> None:
        """A report that comes late must not bring back the training data of a model that was replaced since.

        Raises:
            RetrainingError: a younger retraining was promoted.
        """
        found = promotion_of(self._config().state, retraining.monitor)
        if found is None or found.retraining == retraining.id:
            return
        known = self._store.retrainings.newest(retraining.monitor, _KNOWN)
        if any(r.id == found.retraining and r.created > retraining.created for r in known):
            raise RetrainingError(
                f"retraining {found.retraining[:8]} was asked for later, its training data is the reference: to "
                "go back to an older model, name that model's training data as `reference`"
            )

    def _record_promotion(self, retraining: Retraining, monitor: Monitor, version: str, at: datetime) -> None:
        now, sender = datetime.now(UTC), self._sender()

        def close(episode: Episode) -> tuple[Episode, list[tuple[str, Message]]]:
            end = max(at, episode.updated)
            ended = episode.model_copy(update={"closed": end, "updated": end, "retrained": True, "held": {}})
            return ended, retrained(ended, retraining, monitor, sender)

        self._store.retrainings.promoted(
            retraining, now, self._say(monitor), reference=version, at=at, close=close
        )
        self._kick()

    def purge(self, age: timedelta) -> None:
        """Delete weights and training sets past their time, but not those in use."""
        config = self._config()
        kept = {r.id for r in self._store.retrainings.active()}
        for name in config.monitors:
            found = promotion_of(config.state, name)
            kept |= set() if found is None else {found.retraining}
        for folder in (config.state / FOLDER).glob("*"):
            if folder.name not in kept and folder.stat().st_mtime < time.time() - age.total_seconds():
                shutil.rmtree(folder, ignore_errors=True)

    # -- small things ------------------------------------------------------------------------------

    def _monitor(self, retraining: Retraining) -> Monitor | None:
        monitor = self._config().monitors.get(retraining.monitor)
        return monitor if monitor is not None and monitor.retrain is not None else None

    def _newest_end(self, retraining: Retraining) -> datetime:
        newest = self._store.newest_window(retraining.monitor)
        return retraining.window.end if newest is None else max(newest.end, retraining.window.end)

    def _reference(self, monitor: str) -> ReferenceId | None:
        judged = self._store.snapshot().latest_judged.get(monitor)
        return None if judged is None else judged.reference

    def _say(self, monitor: Monitor) -> Say:
        sender, snapshot = self._sender(), self._store.snapshot()
        references = {name: judged.reference for name, judged in snapshot.latest_judged.items()}
        return lambda retraining: about(retraining, monitor, sender, reference=references.get(retraining.monitor))
