"""What the demo tells once the replay is over, and what of it did not happen as it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from drift_monitor.cli.draw import draw_features, draw_histogram, draw_verdict
from drift_monitor.config.file import load
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.demo.daemon import Daemon, WindowDone
from drift_monitor.demo.folder import SCHEDULE_MONITOR, DemoFolder
from drift_monitor.demo.log import FAULT_START
from drift_monitor.demo.plan import DAY, FAULTY_FEATURE, HOUR, MONITORS
from drift_monitor.demo.receiver import Received, WebhookReceiver
from drift_monitor.service.evaluate import CheckRequest, evaluate

_DELIVERY: Final = 30.0  # seconds to wait for a webhook
_REPORT: Final = timedelta(minutes=2)
_DRIFT_MESSAGES: Final = frozenset(f"drift_monitor.drift.{what}" for what in ("opened", "escalated", "reminded"))


def tell(
    place: DemoFolder, daemon: Daemon, inbox: WebhookReceiver, done: Sequence[WindowDone], console: Console
) -> list[str]:
    """Tell what happened.

    Args:
        place: the demo's folder.
        daemon: still running.
        inbox: the webhooks.
        done: all windows, by time.
        console: where to tell it.

    Returns:
        What did not happen as it should, as sentences.
    """
    _tell_before(done, console)
    console.print(Rule("the fault", style="dim"))
    problems = _tell_found(place, done, console)
    told = inbox.wait(blames_the_fault, _DELIVERY)
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


def blames_the_fault(received: Received) -> bool:
    """Whether it is a verified message of the fault's first day that blames the faulty feature first."""
    event = received.event
    if received.problem is not None or event.get("subject") != SCHEDULE_MONITOR:
        return False
    if received.type not in _DRIFT_MESSAGES:
        return False
    names = [feature["name"] for feature in event["data"]["features"]]
    return FAULT_START < _window(received).end <= FAULT_START + DAY and names[:1] == [FAULTY_FEATURE]


def check(place: DemoFolder, window: Window) -> CheckResult:
    """The check that the daemon makes of this window, made here for its details."""
    config = load(place.config)
    monitor = config.monitors[SCHEDULE_MONITOR]
    return evaluate(CheckRequest(name=SCHEDULE_MONITOR, monitor=monitor, state=config.state, window=window))


@contextmanager
def spinner(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Say what is going on, where there is a terminal to say it on."""
    if not console.is_terminal:
        yield lambda _text: None
        return
    with console.status(Text(text)) as status:
        yield lambda update: status.update(Text(update))


def _tell_before(done: Sequence[WindowDone], console: Console) -> None:
    console.print(Rule("before the fault", style="dim"))
    for monitor in MONITORS:
        windows = [w for w in done if w.monitor == monitor and w.end <= FAULT_START]
        counts = Counter(w.verdict for w in windows)
        opened = [w for w in windows if w.transition == "opened"]
        console.print(
            Text.assemble(
                (f"{monitor}: ", "bold"),
                f"{len(windows)} windows, ",
                ", ".join(f"{n} {verdict.value}" for verdict, n in counts.most_common()),
                f"; {len(opened)} alarm{'s' * (len(opened) != 1)} opened",
            )
        )
        for window in opened:
            console.print(Text(f"  {window.end:%Y-%m-%d %H:%M}Z  {window.reason}"))
    console.print(
        "Nothing was broken in these days. April is not like January to March, and Saturdays fly elsewhere than "
        "Mondays; thresholds that are not calibrated take that for news."
    )


def _tell_found(place: DemoFolder, done: Sequence[WindowDone], console: Console) -> list[str]:
    drifting = [
        w
        for w in done
        if w.monitor == SCHEDULE_MONITOR
        and w.verdict is Outcome.DRIFT
        and FAULT_START < w.end <= FAULT_START + DAY
    ]
    for window in drifting:
        result = check(place, Window(start=window.start, end=window.end))
        if [f.name for f in result.drifted[:1]] == [FAULTY_FEATURE]:
            hours = (window.end - FAULT_START) / HOUR
            console.print(f"First seen in the window that ends {hours:g} h into the fault:")
            console.print(draw_verdict(result))
            opened = next((w for w in drifting if w.transition in {"opened", "escalated"}), None)
            if opened is None:
                console.print("The alarm was open already and went on.")
            else:
                console.print(f"The alarm {opened.transition} at {opened.end:%Y-%m-%d %H:%M}Z.")
            return []
    return [f"no window of the fault's first day blames {FAULTY_FEATURE} first"]


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
        return [*problems, f"no verified webhook of the fault's first day blames {FAULTY_FEATURE} first"]
    data = told.event["data"]
    console.print(Text("The one about the fault:", "bold"))
    for name, value in (
        ("type", told.type),
        ("id", told.id),
        ("signature", "verified (Standard Webhooks, HMAC-SHA256)"),
        ("window", str(_window(told))),
        ("features", ", ".join(feature["name"] for feature in data["features"])),
        ("reason", data["reason"]),
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
