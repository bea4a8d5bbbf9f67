"""A window that was judged again because rows of it came late. Pure."""

from __future__ import annotations

from typing import Final

from drift_monitor.core.types import CheckResult, Revision

_JUDGED: Final = {
    "rows",
    "verdict",
    "score",
    "threshold",
    "signals",
    "features",
    "quality",
    "duplicate_rows",
    "invalid_rows",
    "newest_event",
}


def says_the_same(before: CheckResult, now: CheckResult) -> bool:
    """Whether two results of a window found the same in its rows."""
    return before.model_dump(include=_JUDGED) == now.model_dump(include=_JUDGED)


def revised(before: CheckResult, now: CheckResult) -> CheckResult:
    """What is kept of a window that was judged again with another result.

    It tells what was said first; what late labels said of the model and which other windows were reopened stays.
    """
    first = before.revised or Revision(verdict=before.verdict, rows=before.rows, score=before.score, times=0)
    first = first.model_copy(update={"times": first.times + 1})
    was = f"{first.verdict.value} with {first.rows:,} rows at first"
    reason = f"{now.reason} (judged again since rows came late: {was})"
    kept = {"performance": before.performance, "reopened": before.reopened}
    return now.model_copy(update={**kept, "revised": first, "reason": reason})
