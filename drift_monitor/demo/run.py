"""`drift-monitor demo`: flights of 2013 through the real daemon, with one fault that we put in ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from drift_monitor.cli.promised import Promised, promised
from drift_monitor.config.file import load
from drift_monitor.config.models import Columns
from drift_monitor.demo.daemon import Daemon, WindowDone
from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP, load_flights, to_arrow
from drift_monitor.demo.folder import SCHEDULE_MONITOR, WEATHER_MONITOR, DemoFolder
from drift_monitor.demo.log import FAULT_START, LIVE_START, live_log, training_log, write_log, write_table
from drift_monitor.demo.model import SCORE, DelayModel
from drift_monitor.demo.plan import (
    DAY,
    FAULTY_FEATURE,
    FIRST_END,
    HOUR,
    HOURS,
    LAST_END,
    MONITORS,
    NEW_YORK,
    day_of,
)
from drift_monitor.demo.receiver import WebhookReceiver
from drift_monitor.demo.stage import MARKS, free_port, serve, shown, spinner, step, typed_program
from drift_monitor.demo.story import tell
from drift_monitor.reference import build_reference
from drift_monitor.service.calibrations import known_of
from drift_monitor.service.references import reference_of, watched_specs

SPEED: Final = 12 * 3600.0  # logical seconds a second: half a day
_AS_IT_SHOULD: Final = (
    "No alarm opened before the fault; the fault's opened on its first day, and its webhook was verified."
)


def main(folder: Path, *, exit_when_done: bool, port: int = 9877) -> int:
    """Run the demo.

    Args:
        folder: for all that it writes; kept, so that it can be looked at.
        exit_when_done: end by itself instead of serving until Ctrl-C.
        port: of /metrics and the pages; 0 takes a free one.

    Returns:
        0 when the thresholds were calibrated, no alarm opened before the fault, the fault's alarm opened on its
        first day with `distance` first, and its webhook was verified; else 1.

    Raises:
        DriftMonitorError: it cannot run; the message says why and what to do.
    """
    console = Console(highlight=False, soft_wrap=False)
    place = DemoFolder(folder.resolve())
    port = free_port(port)
    place.claim()
    _prepare(place, console)
    with WebhookReceiver(place.secret, place.received) as receiver:
        place.write_config(listen=f"127.0.0.1:{port}", webhook=receiver.url)
        promises = _calibrate(place, console)
        _announce(console)
        with Daemon(place.config, place.log, start=FIRST_END, until=LAST_END, speed=SPEED) as daemon:
            console.print(Rule("the replay", style="dim"))
            done = _follow(daemon, console)
            problems = tell(place, daemon, receiver, done, promises, console)
            _next_steps(
                place, f"http://127.0.0.1:{port}", console, served="served" if exit_when_done else "serves"
            )
            for problem in problems:
                console.print(Text(f"NOT AS IT SHOULD BE: {problem}", style="bold red"))
            if not problems:
                console.print(Text(_AS_IT_SHOULD, "green"))
            if not exit_when_done:
                serve(daemon, console)
    return 1 if problems else 0


def _prepare(place: DemoFolder, console: Console) -> None:
    """The model, the reference it is watched against, and its log."""
    console.print(Rule("the model and its log", style="dim"))
    with step(console, "flights and weather of New York, 2013"):
        flights = load_flights()
    with step(console, "cross-fitted scores, January to March") as under_way:
        training = training_log(flights)
        write_table(to_arrow(training), place.training)
        under_way.notes.append(f"{len(training):,} flights in {place.training.name}")
    with step(console, "gradient-boosted trees that predict late arrivals"):
        model = DelayModel(training)
    with step(console, f"the reference, in {place.reference.name}/") as under_way:
        built = build_reference(
            place.training,
            place.reference,
            columns=Columns(prediction=SCORE, label=LABEL, id=IDENTIFIER, ignore=("weekday",)),
            timestamp=TIMESTAMP,
            bucket=HOUR,
            created=datetime.now(UTC),
            split=f"flights before {LIVE_START:%Y-%m-%d} that arrived",
        )
        under_way.notes.append(f"version {built.manifest.version}")
    with step(console, f"the log from {LIVE_START:%d %B} on") as under_way:
        log = live_log(flights, model, until=LAST_END, fault_start=FAULT_START)
        files = write_log(log, place.live)
        under_way.notes.append(f"{len(log):,} flights in {len(files)} files in {place.live.name}/")


def _calibrate(place: DemoFolder, console: Console) -> dict[str, tuple[Promised, ...]]:
    """Replay the reference for each monitor; kept beside it, where the daemon's workers find it.

    Returns:
        What is promised, by monitor.
    """
    config = load(place.config)
    promises = {}
    for name in MONITORS:
        monitor = config.monitors[name]
        with step(console, f"calibrating {name} on the reference") as under_way:
            reference = reference_of(name, monitor, config.state, now=lambda: datetime.now(UTC))
            specs = watched_specs(monitor, reference)
            known = known_of(name, monitor, reference, config.state, specs, progress=under_way.progress)
            under_way.text = f"calibrated {name}"
            if known.calibration is not None:
                days, runs = len(known.calibration.days), known.calibration.runs
                under_way.notes.append(f"{days} days of the reference replayed, {runs:,} windows")
        promises[name] = promised(monitor, reference, known)
    return promises


def _announce(console: Console) -> None:
    console.print(
        Text.assemble(
            ("We put one fault in: ", "bold"),
            f"from {FAULT_START.astimezone(NEW_YORK):%d %B, %H:%M} New York time on (",
            f"{FAULT_START:%Y-%m-%dT%H:%M}Z), `{FAULTY_FEATURE}` is in km, not in miles. All else is as it was.",
        )
    )


def _follow(daemon: Daemon, console: Console) -> list[WindowDone]:
    """Show the windows as they are done, a line a day; returns them all by time."""
    total = HOURS * len(MONITORS)
    console.print("One mark a window, which is the 24 hours before each full hour:")
    legend = [f"{mark} {verdict.value.replace('_', ' ')}" for verdict, (mark, _) in MARKS.items()]
    console.print("  " + "   ".join([*legend, "! alarm opens"]))
    console.print(Text(f"{'New York':12}" + "".join(f"{name:26}" for name in MONITORS), style="bold"))
    done: list[WindowDone] = []
    days: dict[date, list[WindowDone]] = {}
    with spinner(console, "starting the daemon") as say:
        for window in daemon.windows(total):
            done.append(window)
            of_day = days.setdefault(day_of(window.end), [])
            of_day.append(window)
            if len(of_day) == 24 * len(MONITORS):
                console.print(_day_line(day_of(window.end), of_day))
            say(f"{len(done)} of {total} windows: {window.monitor}, {window.end:%Y-%m-%d %H:%M}Z")
    return sorted(done, key=lambda w: (w.end, w.monitor))


def _day_line(day: date, windows: Sequence[WindowDone]) -> Text:
    line = Text(f"{day:%a %d %b}  ")
    for monitor in MONITORS:
        for window in sorted((w for w in windows if w.monitor == monitor), key=lambda w: w.end):
            mark, style = MARKS[window.verdict]
            line.append("!" if window.opened else mark, style)
        line.append("  ")
    if day == day_of(FAULT_START + HOUR):
        line.append("the fault", "bold")
    return line


def _next_steps(place: DemoFolder, address: str, console: Console, *, served: str) -> None:
    config, program = shown(place.config), typed_program()
    window = f"{FAULT_START:%Y-%m-%dT%H:%MZ}/{FAULT_START + DAY:%Y-%m-%dT%H:%MZ}"
    console.print(Rule("go on from here", style="dim"))
    console.print(f"The daemon {served} {address}/metrics, and pages for people at {address}/")
    for command in (
        f"{program} check {SCHEDULE_MONITOR} --config {config} --window {window}",
        f"{program} check {WEATHER_MONITOR} --config {config} --at {LAST_END:%Y-%m-%dT%H:%MZ} --json",
        f"{program} reference show {shown(place.reference)}",
        f"{program} check-config --config {config} --explain",
    ):
        console.print(Text(f"  {command}"), soft_wrap=True)
