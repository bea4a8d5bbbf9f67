"""What the demo tells once the replay is over, and what of it did not happen as it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from drift_monitor.cli.draw import draw_features, draw_histogram, draw_verdict
from drift_monitor.cli.promised import Promised
from drift_monitor.config.file import load
from drift_monitor.core.types import CheckResult, Lane, Outcome, Window
from drift_monitor.demo.daemon import Daemon, WindowDone
from drift_monitor.demo.folder import SCHEDULE_MONITOR, DemoFolder
from drift_monitor.demo.log import FAULT_START
from drift_monitor.demo.plan import DAY, FAULTY_FEATURE, HOUR
from drift_monitor.demo.receiver import Received, WebhookReceiver
from drift_monitor.demo.stage import spinner
from drift_monitor.service.evaluate import CheckRequest, evaluate

_DELIVERY: Final = 30.0  # seconds to wait for a webhook
_REPORT: Final = timedelta(minutes=2)
_OPENED: Final = "drift_monitor.drift.opened"
_LANES: Final[dict[Lane, str]] = {"drift": "drift", "quality": "broken data"}
_NOT_JUDGED: Final = (Outcome.NO_DATA, Outcome.CANNOT_JUDGE)


def tell(
    place: DemoFolder,
    daemon: Daemon,
    inbox: WebhookReceiver,
    done: Sequence[WindowDone],
    promises: Mapping[str, Sequence[Promised]],
    console: Console,
) -> list[str]:
    """Tell what happened.

    Args:
        place: the demo's folder.
        daemon: still running.
        inbox: the webhooks.
        done: all windows, by time.
        promises: of each monitor.
        console: where to tell it.

    Returns:
        What did not happen as it should, as sentences.
    """
    problems = unkept(done, promises)
    _tell_before(done, promises, console)
    console.print(Rule("the fault", style="dim"))
    problems += _tell_found(place, done, console)
    told = inbox.wait(opens_for_the_fault, _DELIVERY)
    whole = check(place, Window(start=FAULT_START, end=FAULT_START + DAY))
    console.print(Text("\nThe whole first day:", "bold"))
    console.print(draw_verdict(whole))
    console.print(draw_features(whole.features))
    for feature in whole.drifted:
        console.print()
        console.print(draw_histogram(feature))
    if [f.name for f in whole.drifted[:1]] != [FAULTY_FEATURE]:
        named = ", ".join(f.name for f in whole.drifted) or "nothing"
        problems.append(f"the fault's first day blames {named}, where {FAULTY_FEATURE} should come first")

    console.print(Rule("who was told", style="dim"))
    problems += _tell_webhooks(inbox.received, told, place, console)
    if told is not None:
        _tell_report(daemon, told, console)
    return problems


def unkept(done: Sequence[WindowDone], promises: Mapping[str, Sequence[Promised]]) -> list[str]:
    """What did not happen as it should before the fault, as sentences.

    Args:
        done: all windows, by time.
        promises: of each monitor.
    """
    problems = [
        f"{monitor} has no calibrated threshold for {_LANES[lane.lane]}: {lane.promise}"
        for monitor, lanes in promises.items()
        for lane in lanes
        if lane.basis != "calibrated"
    ]
    before = [w for w in done if w.end <= FAULT_START]
    problems += [
        f"{window.monitor} opened an alarm for {_LANES[lane]} at {window.end:%Y-%m-%d %H:%M}Z, where nothing was "
        f"wrong: {window.reason}"
        for window in before
        for lane in window.opened
    ]
    for monitor in promises:
        windows = [w for w in before if w.monitor == monitor]
        missed = [w for w in windows if w.verdict in _NOT_JUDGED]
        if not windows:
            problems.append(f"{monitor} judged no window before the fault")
        elif missed:
            problems.append(
                f"{monitor} could not judge {len(missed)} of {len(windows)} windows, such as: {missed[0].reason}"
            )
    return problems


def opens_for_the_fault(received: Received) -> bool:
    """Whether it is a verified message that an alarm opened on the fault's first day, the faulty feature first."""
    event = received.event
    if received.problem is not None or event.get("subject") != SCHEDULE_MONITOR:
        return False
    if received.type != _OPENED:
        return False
    names = [feature["name"] for feature in event["data"]["features"]]
    return FAULT_START < _window(received).end <= FAULT_START + DAY and names[:1] == [FAULTY_FEATURE]


def check(place: DemoFolder, window: Window) -> CheckResult:
    """The check that the daemon makes of this window, made here for its details."""
    config = load(place.config)
    monitor = config.monitors[SCHEDULE_MONITOR]
    return evaluate(CheckRequest(name=SCHEDULE_MONITOR, monitor=monitor, state=config.state, window=window))


def _tell_before(done: Sequence[WindowDone], promises: Mapping[str, Sequence[Promised]], console: Console) -> None:
    console.print(Rule("before the fault", style="dim"))
    quiet = True
    for monitor, lanes in promises.items():
        windows = [w for w in done if w.monitor == monitor and w.end <= FAULT_START]
        counts = Counter(w.verdict for w in windows)
        opened = [w for w in windows if w.opened]
        quiet = quiet and not opened
        console.print(
            Text.assemble(
                (f"{monitor}: ", "bold"),
                f"{len(windows)} windows, ",
                ", ".join(f"{n} {verdict.value}" for verdict, n in counts.most_common()),
                f"; {len(opened) or 'no'} alarm{'s' * (len(opened) > 1)} opened",
            )
        )
        for lane in lanes:
            console.print(Text(f"  {_LANES[lane.lane]:12} {lane.promise}", style="dim"))
        for window in opened:
            console.print(Text(f"  {window.end:%Y-%m-%d %H:%M}Z  {window.reason}"))
    if quiet:
        console.print(
            "Nothing was broken in these days, and no alarm opened. Days differ, but the replay of the reference "
            "has shown by how much they differ when nothing is wrong, and the thresholds lie above that."
        )
    console.print(
        "A promise holds for days like the reference's, so the temperature is not watched: on 9 April it rose "
        "to 84 °F, and the reference, January to March, ends at 64. Watched, that day would be drift, and "
        "rightly so. The model's score is watched."
    )


def _tell_found(place: DemoFolder, done: Sequence[WindowDone], console: Console) -> list[str]:
    opening = next(
        (
            w
            for w in done
            if w.monitor == SCHEDULE_MONITOR and "drift" in w.opened and FAULT_START < w.end <= FAULT_START + DAY
        ),
        None,
    )
    if opening is None:
        return [f"{SCHEDULE_MONITOR} opened no alarm for drift on the fault's first day"]
    hours = (opening.end - FAULT_START) / HOUR
    console.print(f"The alarm opened {hours:g} h into the fault, at {opening.end:%Y-%m-%d %H:%M}Z:")
    result = check(place, Window(start=opening.start, end=opening.end))
    console.print(draw_verdict(result))
    if [f.name for f in result.drifted[:1]] != [FAULTY_FEATURE]:
        named = ", ".join(f.name for f in result.drifted) or "nothing"
        return [f"the alarm blames {named} when it opens, where {FAULTY_FEATURE} should come first"]
    return []


def _tell_webhooks(
    received: Sequence[Received], told: Received | None, place: DemoFolder, console: Console
) -> list[str]:
    refused = [r for r in received if r.problem is not None]
    console.print(
        f"{len(received)} webhooks came, {len(received) - len(refused)} of them with a valid signature; these are "
        f"kept in {place.received.name}."
    )
    problems = [f"webhook {r.id} was not accepted: {r.problem}" for r in refused]
    if told is None:
        return [
            *problems,
            f"no verified webhook says that an alarm opened on the fault's first day with {FAULTY_FEATURE} first",
        ]
    data = told.event["data"]
    console.print(Text("The one that opened the alarm:", "bold"))
    for name, value in (
        ("type", told.type),
        ("id", told.id),
        ("signature", "verified (Standard Webhooks, HMAC-SHA256)"),
        ("window", str(_window(told))),
        ("features", ", ".join(feature["name"] for feature in data["features"])),
        ("reason", data["reason"]),
        ("promise", data["promise"]),
    ):
        console.print(Text.assemble((f"  {name:10}", "dim"), str(value)))
    return problems


def _tell_report(daemon: Daemon, told: Received, console: Console) -> None:
    end = _window(told).end
    with spinner(console, "waiting for the Evidently report"):
        report = daemon.report(SCHEDULE_MONITOR, end, _REPORT)
    if isinstance(report, Path):
        console.print(Text(f"Evidently report of that window: {report}"), soft_wrap=True)
    else:
        console.print(Text(f"There is no Evidently report of that window: {report}", "yellow"))


def _window(received: Received) -> Window:
    window = received.event["data"]["window"]
    return Window(start=datetime.fromisoformat(window["start"]), end=datetime.fromisoformat(window["end"]))
