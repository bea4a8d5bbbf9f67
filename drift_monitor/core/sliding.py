"""Profiles of windows that overlap, put together from the stretches that they share."""

from __future__ import annotations

from collections.abc import Callable

from drift_monitor.core.profile import Profile


class Sliding:
    """The merged profile of a window that moves forward over numbered stretches.

    A stretch is merged about three times, however many windows hold it: what is left of an older part is kept
    merged from each of its stretches to its end, what came since is merged as one.

    Args:
        at: the profile of a stretch; None where it has no rows. It is asked for stretches of the window only.
    """

    def __init__(self, at: Callable[[int], Profile | None]) -> None:
        self._at = at
        self._middle = self._end = 0
        self._older: list[Profile | None] = []  # the last is the longest: from the earliest stretch to the middle
        self._newer: Profile | None = None

    def over(self, first: int, end: int) -> Profile | None:
        """The profile of the stretches from `first` to before `end`; None where they have no rows.

        Neither of the two is ever smaller than it was in the call before.
        """
        if first >= self._middle:
            self._older, self._newer = [], None
            for stretch in reversed(range(first, end)):
                self._older.append(_both(self._at(stretch), self._older[-1] if self._older else None))
            self._middle = self._end = end
        while self._end < end:
            self._newer = _both(self._newer, self._at(self._end))
            self._end += 1
        del self._older[self._middle - first :]
        return _both(self._older[-1] if self._older else None, self._newer)


def _both(a: Profile | None, b: Profile | None) -> Profile | None:
    return b if a is None else a if b is None else a.merge(b)
