"""The quality lane's numbers over the runs of a reference: how many more bad rows than are usual.

Each is a count of rows against the count that the rest of the reference makes one expect, as the difference of
their roots (`core.scores.root_z` with an endless baseline), and nothing where it is smaller. The same value in
many rows is looked for in numbers only, since a category that grows is a matter of drift; and 0 is looked for
apart, since it is what a broken pipeline writes most often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from drift_monitor.core.history import History, window_sums
from drift_monitor.core.policy import Quality
from drift_monitor.core.profile import CategoricalSpec, Floats, Ints, NumericSpec, Spec
from drift_monitor.core.replay import Runs

CHECKS: Final = ("null_rate", "unseen", "out_of_range", "constant")
FLOORS: Final[Mapping[str, float]] = {
    "null_rate": 2.0,
    "unseen": 2.0,
    "out_of_range": 2.0,
    "zero": 2.0,
    "constant": 4.0,
    "volume": 0.02,
}
"""The finest scales (`replay.Scale`) of the squared excesses, about those of independent rows; `constant` is the
largest of hundreds. Of the logarithm of a volume: 2%."""
_ROOT: Final = 3 / 8


def root_excess(count: Floats, expected: Floats) -> Floats:
    """2 (sqrt(count + 3/8) - sqrt(expected + 3/8)), at least 0: standard deviations beyond what is expected."""
    return np.asarray(np.maximum(2 * (np.sqrt(count + _ROOT) - np.sqrt(expected + _ROOT)), 0.0))


def most(expected: float, excess: float) -> float:
    """The count at which `root_excess` reaches a value.

    Example:
        >>> float(root_excess(np.array(most(4.0, 3.0)), np.array(4.0)).round(9))
        3.0
    """
    return max(expected, float((np.sqrt(expected + _ROOT) + excess / 2) ** 2 - _ROOT))  # rounding goes below


def is_made(check: str, feature: str, policy: Quality) -> bool:
    """Whether a check is calibrated: not when it is disabled, or when the user set its limit."""
    name = "constant" if check == "zero" else check
    given: Mapping[str, float] = getattr(policy, name)
    return name not in policy.disable and feature not in given


def bound(scale: tuple[float, float], threshold: float) -> float:
    """The excess at which a squared one, on its scale (90% quantile, mean excess over it), is at the threshold."""
    high, spread = scale
    return math.sqrt(max(0.0, high + spread * threshold))


def excesses(spec: Spec, history: History, runs: Runs) -> dict[str, Floats]:
    """The excess of each check that is made of a feature, in the main window of each run; shape (runs,).

    What is expected is taken from the buckets of the other blocks of days.

    Args:
        spec: of the feature.
        history: its counts.
        runs: of the replay.
    """
    length, blocks = runs.lengths[-1], runs.blocks
    parts = _Parts.of(history, runs, blocks)
    n = window_sums(history.fine.sum(axis=1), runs.ends, length).astype(np.float64)
    missing = window_sums(history.missing, runs.ends, length).astype(np.float64)
    found = {"null_rate": np.zeros(len(n))}
    counts = window_sums(history.fine, runs.ends, length)
    constant = spec.kind == "numeric" and _varies(spec, history)
    atoms = counts[:, 1::2] if constant else counts[:, :0]
    if constant:
        found["constant"] = np.zeros(len(n))
    zero = _zero(spec) if constant else None
    if zero is not None:
        found["zero"] = np.zeros(len(n))
    if isinstance(spec, CategoricalSpec) and spec.complete:
        found["unseen"] = np.zeros(len(n))
    if isinstance(spec, NumericSpec) and spec.kind == "numeric" and len(spec.edges) > 1:
        found["out_of_range"] = np.zeros(len(n))
    for block, (fine, gone) in parts.items():
        mine = blocks == block
        rows = max(int(fine.sum()), 1)
        share = gone / max(rows + gone, 1)
        found["null_rate"][mine] = root_excess(missing[mine], (n[mine] + missing[mine]) * share)
        if constant:
            shares = fine[1::2] / rows
            found["constant"][mine] = root_excess(atoms[mine], n[mine, None] * shares).max(axis=1, initial=0.0)
        if zero is not None:
            found["zero"][mine] = root_excess(atoms[mine, zero], n[mine] * (fine[2 * zero + 1] / rows))
        if "unseen" in found:
            new = counts[mine] @ (fine == 0) if len(fine) else np.zeros(int(mine.sum()))
            found["unseen"][mine] = root_excess(new, n[mine] * ((fine == 1).sum() / rows))
        if "out_of_range" in found and isinstance(spec, NumericSpec):
            found["out_of_range"][mine] = _far_out(spec, counts[mine], fine)
    return found


class _Parts(dict[int, tuple[Ints, int]]):
    """By block: the counts of the other blocks, by fine cell, and their missing rows."""

    @classmethod
    def of(cls, history: History, runs: Runs, blocks: Ints) -> _Parts:
        by_block = _Parts()
        whole, gone = history.fine.sum(axis=0, dtype=np.int64), int(history.missing.sum())
        for block in np.unique(blocks):
            ends = runs.ends[blocks == block]
            at = slice(max(0, int(ends[0]) - runs.step), int(ends[-1]))
            by_block[int(block)] = (
                whole - history.fine[at].sum(axis=0, dtype=np.int64),
                gone - int(history.missing[at].sum()),
            )
        return by_block


def _zero(spec: Spec) -> int | None:
    """The place of the edge that is 0; None where the reference has no such value."""
    if not isinstance(spec, NumericSpec):
        return None
    at = np.flatnonzero(spec.edges == 0)
    return int(at[0]) if len(at) else None


def _varies(spec: Spec, history: History) -> bool:
    """Whether the reference has more than one value, so that nothing but one value is news."""
    fine = history.fine.sum(axis=0)
    return bool((fine > 0).sum() > 1) and len(spec.edges if isinstance(spec, NumericSpec) else spec.categories) > 1


def _far_out(spec: NumericSpec, counts: Ints, others: Ints) -> Floats:
    """Excess of rows outside the range of the other blocks, where they lie further out than it is wide."""
    used = np.flatnonzero(others)
    if not len(used):
        return np.zeros(len(counts))
    middle = _middles(spec)
    low, high = middle[used[0]], middle[used[-1]]
    away = np.maximum(np.maximum(low - middle, middle - high), 0.0)
    outside = counts @ (away > 0)
    far = counts @ away > outside * (high - low)
    return np.where(far, root_excess(outside, np.zeros(len(counts))), 0.0)


def _middles(spec: NumericSpec) -> Floats:
    """A value for each fine cell: the edge, or the middle between two."""
    edges = spec.edges
    middle = np.empty(2 * len(edges) + 1)
    middle[1::2] = edges
    middle[2:-1:2] = edges[:-1] / 2 + edges[1:] / 2
    middle[0], middle[-1] = edges[0], edges[-1]
    return middle


def volumes(rows: Floats, blocks: Ints) -> tuple[Floats, float]:
    """How far the rows of each run are from the other blocks' median, as a logarithm, and the median of all."""
    away = np.empty(len(rows))
    logs = np.log(np.maximum(rows, 0.5))
    for block in np.unique(blocks):
        mine = blocks == block
        others = logs[~mine] if (~mine).any() else logs
        away[mine] = np.abs(logs[mine] - np.median(others))
    return away, float(np.median(logs)) if len(logs) else 0.0
