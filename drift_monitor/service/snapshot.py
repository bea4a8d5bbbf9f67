"""All that metrics and pages are drawn from, as it was at one moment."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import CheckResult, Episode
from drift_monitor.service.counters import Series, read_counters, read_exemplars, read_histograms
from drift_monitor.service.database import Database, time_of
from drift_monitor.service.exposition import Buckets, Exemplar
from drift_monitor.service.readable import Readable
from drift_monitor.service.retrainings import read_retrainings


@dataclass(frozen=True)
class Snapshot:
    """Everything that metrics and lists are drawn from, read in one transaction.

    Its results go without statistics and histograms, which are most of their size: they are kept in memory.
    """

    latest: Mapping[str, CheckResult]  # by monitor: the newest finished window, whatever its verdict
    latest_judged: Mapping[str, CheckResult]  # by monitor: the newest window judged ok, drift or broken
    finished: Mapping[str, datetime]  # by monitor: when the daemon's last run ended (its clock)
    succeeded: Mapping[str, datetime]  # by monitor: when its last run that judged ended
    open_episodes: tuple[Episode, ...]
    counters: Mapping[Series, float]
    histograms: Mapping[Series, Buckets]  # bounds, counts, sum: `Store`
    outbox: Mapping[tuple[str, str], tuple[int, datetime | None]]  # (receiver, state) -> count, oldest created
    disabled_receivers: Mapping[str, str] = field(default_factory=dict)  # receiver -> why
    last_delivery: Mapping[str, datetime] = field(default_factory=dict)  # receiver -> when it last took a message
    judged_runs: Mapping[str, int] = field(default_factory=dict)  # by monitor: the run of `latest_judged`
    retrainings: Mapping[str, Retraining] = field(default_factory=dict)  # by monitor: the newest
    exemplars: Mapping[Series, Sequence[Exemplar]] = field(default_factory=dict)  # of a histogram one a bucket


class Snapshots:
    """Reads snapshots, and remembers the results of the last one: they take time."""

    def __init__(self, database: Database, readable: Readable) -> None:
        self._database, self._readable = database, readable
        self._parsed: dict[int, CheckResult | None] = {}  # by run
        self._forgotten = 0
        self._lock = threading.Lock()

    def forget(self, run: int) -> None:
        """Read the result of a run anew: it is another one now."""
        with self._lock:
            self._forgotten += 1
            self._parsed = {known: result for known, result in self._parsed.items() if known != run}

    def read(self) -> Snapshot:
        """What is there now."""
        forgotten = self._forgotten
        with self._database.transaction("DEFERRED") as db:
            latest = db.run("latest").fetchall()
            wanted = {run for row in latest for run in row[1:3] if run is not None}
            known = self._parsed  # once: another thread may put its own there
            rows = [db.run("result", run=run).fetchone() for run in wanted - known.keys()]
            episodes = db.run("open_episodes").fetchall()
            counters = dict(read_counters(db))
            histograms = dict(read_histograms(db))
            exemplars: dict[Series, list[Exemplar]] = {}
            for series, run, value, at in read_exemplars(db):
                exemplars.setdefault(series, []).append(Exemplar(run, value, time_of(at)))
            totals = db.run("outbox_totals").fetchall()
            disabled = db.run("disabled_receivers").fetchall()
            successes = db.run("last_successes").fetchall()
            retrainings = read_retrainings(db.run("newest_retrainings").fetchall())
        parsed = {run: known[run] for run in wanted & known.keys()}
        parsed |= {row[0]: _light(self._readable.result(*row)) for row in rows}
        with self._lock:
            if self._forgotten == forgotten:  # else one of these may be old
                self._parsed = parsed
        return Snapshot(
            latest={monitor: found for monitor, run, _, _, _ in latest if (found := parsed.get(run))},
            latest_judged={monitor: found for monitor, _, run, _, _ in latest if (found := parsed.get(run))},
            finished={monitor: time_of(at) for monitor, _, _, at, _ in latest if at is not None},
            succeeded={monitor: time_of(at) for monitor, _, _, _, at in latest if at is not None},
            open_episodes=tuple(self._readable.episodes(episodes)),
            counters=counters,
            histograms=histograms,
            outbox={(receiver, state): (n, time_of(oldest)) for receiver, state, n, oldest in totals},
            disabled_receivers=dict(disabled),
            last_delivery={receiver: time_of(at) for receiver, at in successes},
            judged_runs={monitor: run for monitor, _, run, _, _ in latest if run is not None},
            retrainings={found.monitor: found for found in retrainings},
            exemplars=exemplars,
        )


def _light(result: CheckResult | None) -> CheckResult | None:
    """A result of 500 features in a fifth of the memory."""
    if result is None:
        return None
    features = tuple(f.model_copy(update={"statistics": {}, "histogram": None}) for f in result.features)
    return result.model_copy(update={"features": features})
