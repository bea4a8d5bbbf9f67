"""What in a policy fits no feature or method of the reference, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import Spec, whole_columns
from drift_monitor.core.stattests import STATTESTS
from drift_monitor.core.types import Kind
from drift_monitor.core.verdict import OUTSIDE

_CHECKED: dict[str, frozenset[Kind]] = {
    "null_rate": frozenset(("numeric", "datetime", "categorical", "boolean")),
    "unseen": frozenset(("categorical", "boolean")),
    "out_of_range": frozenset(("numeric", "datetime")),
    "constant": frozenset(("numeric", "datetime", "categorical", "boolean")),
}


class Misfit(NamedTuple):
    """A name that fits nothing.

    Attributes:
        place: keys and list positions below the monitor, such as `("alarm", "methods", "numeric", 0)`.
        message: what is wrong with it.
    """

    place: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(step for step in self.place if isinstance(step, str))}: {self.message}"


def misfits(specs: Sequence[Spec], alarm: Alarm, quality: Quality) -> list[str]:
    """Every name in the policies that fits nothing, as sentences; empty when all is well.

    Args:
        specs: the features of the reference; settings are about columns as a whole, so segments are left out.
        alarm: its methods, thresholds and features are looked up. Names after `evidently:` are not, since what
            Evidently has is known outside of this package only.
        quality: its features are looked up.
    """
    kinds = {spec.name: spec.kind for spec in whole_columns(specs)}
    return [str(misfit) for misfit in find_misfits(kinds, alarm, quality)]


def find_misfits(kinds: Mapping[str, Kind] | None, alarm: Alarm, quality: Quality) -> list[Misfit]:
    """The same with their places.

    Args:
        kinds: feature of the reference -> kind; None while there is no reference, when only methods are looked up.
        alarm: as above.
        quality: as above.
    """
    found = list(_of_alarm(kinds, alarm))
    return found if kinds is None else [*found, *_of_quality(kinds, quality)]


def _of_alarm(kinds: Mapping[str, Kind] | None, alarm: Alarm) -> Iterable[Misfit]:
    for place, method, kind in _named_methods(alarm, kinds or {}):
        if message := _method_misfit(method, kind):
            yield Misfit(("alarm", *place), message)
    for kind, methods in alarm.methods.items():
        for index, method in enumerate(methods):
            if method.startswith(OUTSIDE) and method not in alarm.thresholds:
                message = f"{method} has no threshold of its own; set one in alarm.thresholds"
                yield Misfit(("alarm", "methods", kind, index), message)
    if kinds is None:
        return
    for name in alarm.features:
        if name not in kinds:
            yield Misfit(("alarm", "features", name), _unknown(name, kinds))
    if alarm.drifted_features > len(kinds):
        message = f"{alarm.drifted_features} cannot drift, there are {len(kinds)} features"
        yield Misfit(("alarm", "drifted_features"), message)


def _of_quality(kinds: Mapping[str, Kind], quality: Quality) -> Iterable[Misfit]:
    for check, usable in _CHECKED.items():
        for name in getattr(quality, check):
            if name not in kinds:
                yield Misfit(("quality", check, name), _unknown(name, kinds))
            elif kinds[name] not in usable:
                yield Misfit(("quality", check, name), f"this check is not for a {kinds[name]} feature")


def _named_methods(
    alarm: Alarm, kinds: Mapping[str, Kind]
) -> Iterable[tuple[tuple[str | int, ...], str, Kind | None]]:
    for kind, methods in alarm.methods.items():
        yield from ((("methods", kind, index), m, kind) for index, m in enumerate(methods))
    yield from ((("thresholds", m), m, None) for m in alarm.thresholds)
    yield from ((("report", index), m, None) for index, m in enumerate(alarm.report))
    for name, thresholds in alarm.features.items():
        yield from ((("features", name, m), m, kinds.get(name)) for m in thresholds)


def _method_misfit(method: str, kind: Kind | None) -> str | None:
    if method.startswith(OUTSIDE):
        return None
    usable = [name for name, test in STATTESTS.items() if kind is None or kind in test.kinds]
    if method not in STATTESTS:
        close = get_close_matches(method, usable, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(usable)}"
        return f"there is no method {method!r}; {hint}"
    if kind is not None and kind not in STATTESTS[method].kinds:
        return f"method {method!r} is not for {kind} features; {', '.join(usable)} are"
    return None


def _unknown(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"the reference has no feature {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
