"""A window that was judged again because its rows changed: what becomes of its result. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from drift_monitor.core.types import CheckResult, Revision

_SUMMARY: Final = {
    "rows",
    "verdict",
    "score",
    "threshold",
    "signals",
    "duplicate_rows",
    "invalid_rows",
    "newest_event",
}
_WHOLE: Final = {*_SUMMARY, "features", "quality"}


class Again(StrEnum):
    """What a second judgement says beside the first."""

    REVISED = "revised"  # another result, which replaces the first
    SAME = "same"  # the same rows in other files, say
    FEWER = "fewer"  # rows of it are gone, so the first judgement knew more
    OTHERWISE = "otherwise"  # another reference, other columns or another source: not to be compared
    FAILED = "failed"


def compared(before: CheckResult, now: CheckResult) -> Again:
    """Set a judgement beside the one before it.

    Args:
        before: the result that is kept; of an old one the summary may be all there is.
        now: of the same window.
    """
    if now.failure is not None:
        return Again.FAILED
    if not comparable(before, now):
        return Again.OTHERWISE
    if before.failure is not None:
        return Again.REVISED
    facts = _WHOLE if before.features else _SUMMARY
    if before.model_dump(include=facts) == now.model_dump(include=facts):
        return Again.SAME
    return Again.FEWER if now.rows < before.rows else Again.REVISED


def comparable(before: CheckResult, now: CheckResult) -> bool:
    """Whether what two results were read from can be told apart by their hashes."""
    one, other = before.read_from, now.read_from
    return one is not None and other is not None and origin_of(one) == origin_of(other)


def origin_of(read_from: str) -> str:
    """The part of `read_from` before the hash: layout, source and reference, which have to be the same."""
    return read_from.partition(":")[0]


def revised(before: CheckResult, now: CheckResult) -> CheckResult:
    """What is kept of a window that was judged again with another result.

    It tells what was said first; what late labels said of the model and which other windows were reopened stays.
    """
    first = before.revised or Revision(verdict=before.verdict, rows=before.rows, score=before.score, times=0)
    first = first.model_copy(update={"times": first.times + 1})
    was = f"{first.verdict.value} with {first.rows:,} rows at first"
    reason = f"{now.reason} (judged again since its rows changed: {was})"
    kept = {"performance": before.performance, "reopened": before.reopened}
    return now.model_copy(update={**kept, "revised": first, "reason": reason})
