"""A finished run as the store has it, with what is needed to tell why it was or was not an alert."""

from __future__ import annotations

from datetime import datetime

from drift_monitor.core.types import CheckResult, Episode, Lane, Outcome, Value
from drift_monitor.service.store import Store

_LANES: tuple[Lane, ...] = ("drift", "quality")
_HISTORY = 1000  # the longest persistence
_EPISODES = 1000


class StoredRun(Value):
    """One run and what was before it.

    Attributes:
        run: its id.
        result: what is kept of it.
        history: verdicts of the monitor's windows before it, newest first.
        episodes: of each lane the newest two that had opened by the end of its window, as they are now.
    """

    run: int
    result: CheckResult
    history: tuple[Outcome, ...] = ()
    episodes: tuple[Episode, ...] = ()


def stored_run(store: Store, run: int) -> StoredRun | None:
    """A run by its id; None when there is none that is finished and can be read.

    Raises:
        StoreError: the store cannot be used.
    """
    result = store.result(run)
    if result is None:
        return None
    end = result.window.end
    opened = [e for e in store.episodes(result.monitor, _EPISODES) if e.opened <= end]
    return StoredRun(
        run=run,
        result=result,
        history=tuple(store.history(result.monitor, end, _HISTORY)),
        episodes=tuple(e for lane in _LANES for e in [e for e in opened if e.lane == lane][:2]),
    )


def find_run(store: Store, monitor: str, end: datetime | None) -> int | None:
    """The id of the finished run of the window that ends at a time, or of the newest; None when there is none.

    Raises:
        StoreError: the store cannot be used.
    """
    if end is not None:
        return store.run_of(monitor, end)
    newest = store.results(monitor, 1)
    return newest[0][0] if newest else None
