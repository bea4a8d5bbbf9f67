"""What in a policy fits no feature or method of the reference, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import Spec
from drift_monitor.core.stattests import STATTESTS
from drift_monitor.core.types import Kind
from drift_monitor.core.verdict import OUTSIDE

_CHECKED: dict[str, frozenset[Kind]] = {
    "null_rate": frozenset(("numeric", "datetime", "categorical", "boolean")),
    "unseen": frozenset(("categorical", "boolean")),
    "out_of_range": frozenset(("numeric", "datetime")),
    "constant": frozenset(("numeric", "datetime", "categorical", "boolean")),
}


def misfits(specs: Sequence[Spec], alarm: Alarm, quality: Quality) -> list[str]:
    """Every name in the policies that fits nothing; empty when all is well.

    Args:
        specs: one a feature of the reference.
        alarm: its methods, thresholds and features are looked up. Names after `evidently:` are not, since what
            Evidently has is known outside of this package only.
        quality: its features are looked up.
    """
    kinds: dict[str, Kind] = {spec.name: spec.kind for spec in specs}
    return [*_of_alarm(kinds, alarm), *_of_quality(kinds, quality)]


def _of_alarm(kinds: Mapping[str, Kind], alarm: Alarm) -> Iterable[str]:
    for place, method, kind in _named_methods(alarm, kinds):
        if sentence := _method_misfit(method, kind):
            yield f"alarm.{place}: {sentence}"
    for kind, methods in alarm.methods.items():
        for method in methods:
            if method.startswith(OUTSIDE) and method not in alarm.thresholds:
                yield f"alarm.methods.{kind}: {method} has no threshold of its own; set one in alarm.thresholds"
    for name in alarm.features:
        if name not in kinds:
            yield f"alarm.features.{name}: {_unknown(name, kinds)}"
    if alarm.drifted_features > len(kinds):
        yield f"alarm.drifted_features: {alarm.drifted_features} cannot drift, there are {len(kinds)} features"


def _of_quality(kinds: Mapping[str, Kind], quality: Quality) -> Iterable[str]:
    for check, usable in _CHECKED.items():
        for name in getattr(quality, check):
            if name not in kinds:
                yield f"quality.{check}.{name}: {_unknown(name, kinds)}"
            elif kinds[name] not in usable:
                yield f"quality.{check}.{name}: this check is not for a {kinds[name]} feature"


def _named_methods(alarm: Alarm, kinds: Mapping[str, Kind]) -> Iterable[tuple[str, str, Kind | None]]:
    for kind, methods in alarm.methods.items():
        yield from ((f"methods.{kind}", m, kind) for m in methods)
    yield from ((f"thresholds.{m}", m, None) for m in alarm.thresholds)
    yield from (("report", m, None) for m in alarm.report)
    for name, thresholds in alarm.features.items():
        yield from ((f"features.{name}", m, kinds.get(name)) for m in thresholds)


def _method_misfit(method: str, kind: Kind | None) -> str | None:
    if method.startswith(OUTSIDE):
        return None
    usable = ", ".join(name for name, test in STATTESTS.items() if kind is None or kind in test.kinds)
    if method not in STATTESTS:
        return f"there is no method {method!r}; there are {usable}"
    if kind is not None and kind not in STATTESTS[method].kinds:
        return f"method {method!r} is not for {kind} features; {usable} are"
    return None


def _unknown(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"the reference has no feature {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
