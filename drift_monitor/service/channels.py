"""What a calibrated alarm looks at beside single features: correlations, and a classifier on whole rows."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from drift_monitor.core import classifier
from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing, microseconds
from drift_monitor.core.calibration import Calibration, Extra, RowsCalibration, Watch
from drift_monitor.core.history import DAY, Grid
from drift_monitor.core.pairs import pair_value, replay_pairs
from drift_monitor.core.profile import Floats, Profile, Spec, whole_columns
from drift_monitor.core.replay import OFFSETS, Runs, block_days, cross_scaled
from drift_monitor.core.types import Window
from drift_monitor.reference import Reference
from drift_monitor.sources import Source
from drift_monitor.sources.sample import Sampler, sample_rows, sample_schema

MOST_ROWS: Final = 1000
"""Rows of a day that the classifier sees at most; fewer where the reference's sample has fewer of its days."""
MOST_REFERENCE: Final = 1500
"""Rows of the reference that it sees at most."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_A_DAY: Final = timedelta(days=1)
_log = logging.getLogger(__name__)
_NAMED: Final = 3


class Values(NamedTuple):
    """Raw values of the further channels in one run, and what moved, in words."""

    values: dict[str, float]
    details: dict[str, str]


def replay_channels(
    watch: Watch,
    reference: Reference,
    grid: Grid,
    specs: Sequence[Spec],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Extra]:
    """The further channels over a monitor's own reference.

    Args:
        watch: the monitor.
        reference: that is replayed.
        grid: of its buckets.
        specs: the features that are watched; those of segments are left out here.
        progress: called with (days done, days in all) of the classifier.
    """
    runs, specs = watch.runs(grid), whole_columns(specs)
    found: dict[str, Extra] = {}
    if watch.alarm.drifted_features > 1 or watch.alarm.drifted_share or len(specs) < 2 or not len(runs.ends):
        return found
    names = [spec.name for spec in specs]
    whole = reference.pairs if "pairs" in watch.alarm.multivariate else None
    pairs = whole.only(names) if whole is not None else None
    if whole is not None and pairs is not None:
        products = {start: p.only(whole, pairs.names) for start, p in reference.products().items()}
        ratios, scale, known = replay_pairs(pairs, products, runs, watch.alarm.min_rows)
        found["pairs"] = Extra(ratios, scale, known)
    if "rows" in watch.alarm.multivariate and watch.lengths[-1] >= _A_DAY:
        rows = _replay_rows(watch, reference, grid, runs, specs, progress)
        if rows is not None:
            found["rows"] = rows
    return found


def _replay_rows(
    watch: Watch,
    reference: Reference,
    grid: Grid,
    runs: Runs,
    specs: Sequence[Spec],
    progress: Callable[[int, int], None] | None,
) -> Extra | None:
    sample = reference.sample()
    timestamp = reference.manifest.timestamp
    if timestamp is None:
        return None
    shift = _shift(watch)
    days = (microseconds(sample[timestamp].combine_chunks()) - shift) // DAY
    _, counts = np.unique(days, return_counts=True)
    usual = counts[counts >= classifier.MIN_ROWS]
    if len(usual) < len(counts) / 2:
        return None  # the sample is too thin for days of its own
    rows = int(min(MOST_ROWS, np.quantile(usual, 0.25)))
    encoding = classifier.Encoding(tuple(specs))
    seed = reference.manifest.seed
    found = classifier.replay(
        sample,
        days,
        encoding,
        rows=rows,
        most_reference=MOST_REFERENCE,
        gap_days=block_days(grid),
        seed=seed,
        progress=progress,
    )
    values = np.full(len(runs.ends), np.nan)
    ends = grid.start + runs.ends * grid.width
    for i, end in enumerate(ends.tolist()):
        if _daily(end, watch):
            values[i] = found.get((end - shift) // DAY - 1, math.nan)
    if np.isnan(values).all():
        return None
    # a third of the standard deviation of an AUC of independent rows
    floor = math.sqrt((rows + MOST_REFERENCE + 1) / (12 * rows * MOST_REFERENCE)) / 3
    scaled, scale = cross_scaled(values, runs.blocks, floor)
    return Extra(scaled, scale, RowsCalibration(rows=rows, most_reference=MOST_REFERENCE, seed=seed))


class LastDay:
    """The rows that the classifier looks at, picked while the window is read.

    Args:
        source: of the rows.
        schema: of the live data.
        window: of the run; its last day is looked at.
        names: of the features.
        rows: of the sample.
        timestamp: column of event time.
    """

    def __init__(
        self,
        source: Source[Any],
        schema: pa.Schema,
        window: Window,
        names: Sequence[str],
        rows: int,
        timestamp: str | None,
    ) -> None:
        self.window = Window(start=window.end - _A_DAY, end=window.end)
        self._source, self._names, self._rows, self._timestamp = source, names, rows, timestamp
        self._schema = sample_schema(schema, names)
        self._span = tuple((t - _EPOCH) // _MICROSECOND for t in (self.window.start, self.window.end))
        self._sampler: Sampler | None = None
        self._lock = threading.Lock()
        self.complete = False

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, looked at as they come by. `complete` is for the reader to say."""
        for batch in batches:
            with self._lock:  # the parts of a window may be read in threads
                if self._sampler is not None:
                    try:
                        self._sampler.add(self._inside(batch))
                    except MemoryError:
                        self._sampler = None
            yield batch

    def begin(self) -> None:
        """Forget what was seen: reading begins, maybe anew."""
        self._sampler = Sampler(self._schema, self._rows, timestamp=self._timestamp)
        self.complete = False

    def read_in(self, window: Window | None, fraction: float | None) -> None:
        """All batches of a window came by.

        Args:
            window: that was read; None for everything.
            fraction: of its rows where row groups were sampled: these may have passed over its last day, of which
                a sample of its own has rows.
        """
        self.complete = fraction is None and (window is None or window.start <= self.window.start)

    def rows(self) -> pa.Table:
        """The sample; of rows that did not all come by, the source is asked again.

        Raises:
            MemoryError: the rows are too large.
        """
        if self._sampler is not None and self.complete:
            return self._sampler.rows()
        return sample_rows(self._source, self.window, self._names, self._rows, timestamp=self._timestamp)

    def _inside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._timestamp is None:
            return batch
        times = batch.column(self._timestamp)
        start, end = self._span
        inside = (as_numpy(times) >= start) & (as_numpy(times) < end) & ~is_missing(times)
        return batch if inside.all() else batch.filter(as_arrow(inside))


def last_day(
    calibration: Calibration | None,
    watch: Watch,
    source: Source[Any],
    schema: pa.Schema,
    specs: Sequence[Spec],
    window: Window | None,
    timestamp: str | None,
) -> LastDay | None:
    """What has to be picked while a window is read; None where no classifier will look at it.

    Args:
        calibration: of the monitor.
        watch: the monitor.
        source: of the live rows.
        schema: of the live data.
        specs: the features that can be read.
        window: of the run.
        timestamp: column of event time.
    """
    known = None if calibration is None else calibration.rows
    if calibration is None or known is None or window is None:
        return None
    complete = set(calibration.features) == {spec.name for spec in specs}
    if not complete or not _daily((window.end - _EPOCH) // _MICROSECOND, watch):
        return None
    names = [spec.name for spec in whole_columns(specs)]
    return LastDay(source, schema, window, names, known.rows, timestamp)


def live_channels(
    calibration: Calibration | None,
    watch: Watch,
    specs: Sequence[Spec],
    reference: Reference,
    day: LastDay | None,
    profile: Profile | None,
) -> Values:
    """The further channels of one run.

    Args:
        calibration: of the monitor; without one there is nothing to compare with.
        watch: the monitor.
        specs: the features that were read; those of segments are left out here.
        reference: what the window is compared with.
        day: rows for the classifier; None when it does not look.
        profile: of the window.
    """
    values: dict[str, float] = {}
    details: dict[str, str] = {}
    if calibration is None:
        return Values(values, details)
    whole, specs = reference.pairs, whole_columns(specs)
    if (
        calibration.pairs is not None
        and whole is not None
        and profile is not None
        and profile.products is not None
    ):
        pairs = whole.only([spec.name for spec in specs])
        if pairs is not None:
            values["pairs"], details["pairs"] = pair_value(calibration.pairs, pairs, profile.products)
    known = calibration.rows
    if known is not None and day is not None:
        try:
            live = day.rows()
        except MemoryError:  # texts of megabytes each; what is counted of them costs no memory, a sample does
            _log.warning("%s: the rows are too large for the classifier, which is left out", watch.monitor)
            return Values(values, details)
        if live.num_rows == known.rows:
            encoding = classifier.Encoding(tuple(specs))
            sides = classifier.live_sides(
                reference.sample(),
                live,
                encoding,
                rows=known.rows,
                most_reference=known.most_reference,
                seed=known.seed,
            )
            auc = classifier.domain_auc(*sides, seed=known.seed)
            values["rows"] = auc
            if (auc - calibration.channels["rows"][0]) / calibration.channels["rows"][1] > (
                calibration.typical["rows"] + OFFSETS["rows"] + (calibration.drift.value or 0.0)
            ):
                details["rows"] = _blamed(sides, encoding.names, auc, known.seed)
    return Values(values, details)


def _blamed(sides: tuple[Floats, Floats], names: Sequence[str], auc: float, seed: int) -> str:
    weights = classifier.importances(*sides, names, seed=seed)
    first = [name for name, weight in weights.items() if weight > 0][:_NAMED]
    return f"AUC {auc:.2f}" + (f", mostly by {', '.join(first)}" if first else "")


def _shift(watch: Watch) -> int:
    """The time of day at which a day of the classifier ends, in microseconds: midnight unless no run ends then."""
    return watch.offset // _MICROSECOND % DAY if watch.step >= _A_DAY else 0


def _daily(end: int, watch: Watch) -> bool:
    """Whether the run that ends then is the first since its day was complete."""
    step = watch.step // _MICROSECOND
    return step >= DAY or end // DAY != (end - step) // DAY
