"""`drift-monitor demo --loop`: from drift to a new model that is watched against its own training data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.rule import Rule
from rich.text import Text
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from drift_monitor.cli.api import Api
from drift_monitor.cli.promised import promised
from drift_monitor.config.file import load
from drift_monitor.core.retraining import Retraining, State
from drift_monitor.core.types import CheckResult
from drift_monitor.demo.daemon import Daemon, DaemonError, WindowDone
from drift_monitor.demo.data import TIMESTAMP, load_flights, to_arrow
from drift_monitor.demo.folder import SCHEDULE_MONITOR
from drift_monitor.demo.log import write_log, write_table
from drift_monitor.demo.loop_folder import LoopFolder
from drift_monitor.demo.loop_pipeline import PipelineProcess, first_model
from drift_monitor.demo.loop_plan import (
    DECIDED,
    ENDS,
    FIRST_END,
    FIRST_VERSION,
    JOINED,
    LIVE_START,
    NEW_AIRPORT,
    TRAINING_START,
    served,
    training,
)
from drift_monitor.demo.loop_story import Story
from drift_monitor.demo.model import SCORE
from drift_monitor.demo.plan import DAY, NEW_YORK
from drift_monitor.demo.receiver import WebhookReceiver
from drift_monitor.demo.retraining_pipeline import Models
from drift_monitor.demo.stage import MARKS, free_port, serve, shown, spinner, step, typed_program
from drift_monitor.service.calibrations import known_of
from drift_monitor.service.references import reference_of, watched_specs

SPEED: Final = 4 * 24 * 3600.0  # logical seconds a second: four days, which is faster than the checks
_PREPARED: Final = 600.0  # seconds to wait for what goes with a retraining; it takes a tenth
_LOOK: Final = 0.2
_WEEK: Final = 7
_OVER: Final = frozenset({State.PROMOTED, State.FAILED, State.EXPIRED, State.REJECTED, State.WITHHELD})
_T = TypeVar("_T")


def main(folder: Path, *, exit_when_done: bool, port: int = 9877) -> int:
    """Run the demo.

    Args:
        folder: for all that it writes; kept, so that it can be looked at.
        exit_when_done: end by itself instead of serving until Ctrl-C.
        port: of /metrics, the API and the pages; 0 takes a free one.

    Returns:
        0 when each step of the circle happened and the new model is better on the flights after it; else 1.

    Raises:
        DriftMonitorError: it cannot run; the message says why and what to do.
    """
    place = LoopFolder(folder.resolve())
    port = free_port(port)
    place.claim()
    with threadpool_limits(1):  # threads of the trees spin while they wait: two take longer than one
        problems = _go_round(place, port, Console(highlight=False, soft_wrap=False), exit_when_done=exit_when_done)
    return 1 if problems else 0


def _go_round(place: LoopFolder, port: int, console: Console, *, exit_when_done: bool) -> list[str]:
    """The whole circle; what of it did not happen as it should, as sentences."""
    flights = _prepare(place, console)
    address = f"http://127.0.0.1:{port}"
    with WebhookReceiver(place.secret, place.received) as team, PipelineProcess(place, address) as pipeline:
        place.configure(listen=f"127.0.0.1:{port}", team=team.url, pipeline=pipeline.url)
        story = Story(place, team, console)
        story.problems += _calibrate(place, console)
        _announce(console)
        with Daemon(place.config, place.log, start=FIRST_END, until=DECIDED, speed=SPEED) as daemon:
            asked = _Asked(daemon, address)
            story.before = list(_follow(daemon, FIRST_END, DECIDED, console))
            story.tell_drift(asked.result)
            retraining = _decide(place, asked, pipeline, story, console)
        if retraining is not None and retraining.state is State.PROMOTED:
            _serve_new_model(place, flights, retraining, story, console)
            with Daemon(place.config, place.second_log, start=DECIDED, until=ENDS, speed=SPEED) as daemon:
                asked = _Asked(daemon, address)
                story.after = [asked.result(w.end) for w in _follow(daemon, DECIDED + DAY, ENDS, console)]
                story.tell_end(retraining)
                _next_steps(place, address, console, served="served" if exit_when_done else "serves")
                story.conclude()
                if not exit_when_done:
                    serve(daemon, console)
        else:
            story.conclude()
    return story.problems


class _Asked:
    """The daemon's API."""

    def __init__(self, daemon: Daemon, address: str) -> None:
        self._daemon, self._api = daemon, Api(address, daemon.pid, None)

    def retraining(self) -> Retraining | None:
        """The newest one."""
        found = self._get(f"/api/v1/retrainings?monitor={SCHEDULE_MONITOR}")["retrainings"]
        return Retraining.model_validate(found[0], strict=False) if found else None

    def result(self, end: datetime) -> CheckResult:
        """What came of the window that ends then."""
        found = self._get(f"/api/v1/monitors/{SCHEDULE_MONITOR}/runs/{end:%Y-%m-%dT%H:%M:%SZ}")
        return CheckResult.model_validate(found["result"], strict=False)

    def until(self, wanted: Callable[[], _T | None], what: str, seconds: float) -> _T:
        """What is wanted, once it is there.

        Raises:
            DaemonError: the daemon ended, or it takes too long.
        """
        give_up = time.monotonic() + seconds
        while (found := wanted()) is None:
            if self._daemon.ended or time.monotonic() > give_up:
                raise DaemonError(
                    f"{what} did not happen within {seconds:g} s, or the daemon ended; its log tells"
                )
            time.sleep(_LOOK)
        return found

    def _get(self, path: str) -> Any:
        return json.loads(self._api.ask("GET", path) or b"{}")


def _prepare(place: LoopFolder, console: Console) -> pd.DataFrame:
    """The first model, and its log until the team decides; returns all flights."""
    console.print(Rule("the model and its log", style="dim"))
    with step(console, "flights and weather of New York, 2013"):
        flights = load_flights()
    with step(
        console, f"the training file: {TRAINING_START:%B} to {LIVE_START - DAY:%B} without {NEW_AIRPORT}"
    ) as under_way:
        rows = training(flights)
        write_table(to_arrow(rows), place.training)
        under_way.notes.append(f"{len(rows):,} flights in {place.training.name}")
    with step(console, f"the retraining pipeline trains the first model, version {FIRST_VERSION}"):
        first_model(place)
    with step(console, f"the log from {LIVE_START:%d %B} on") as under_way:
        asked = served(flights, LIVE_START, DECIDED)
        log = asked.assign(**{SCORE: Models(place.models).live_model().score(asked)})
        files = write_log(log, place.live)
        under_way.notes.append(f"{len(log):,} flights in {len(files)} files in {place.live.name}/")
    return flights


def _calibrate(place: LoopFolder, console: Console) -> list[str]:
    """Replay the reference; kept beside it, where the daemon's workers find it. Returns what is wrong with it."""
    config = load(place.config)
    monitor = config.monitors[SCHEDULE_MONITOR]
    with step(console, f"calibrating {SCHEDULE_MONITOR} on the reference") as under_way:
        reference = reference_of(SCHEDULE_MONITOR, monitor, config.state, now=lambda: datetime.now(UTC))
        specs = watched_specs(monitor, reference)
        known = known_of(SCHEDULE_MONITOR, monitor, reference, config.state, specs, progress=under_way.progress)
        lanes = promised(monitor, reference, known)
        under_way.text = f"calibrated {SCHEDULE_MONITOR}"
        under_way.notes += [f"version {reference.manifest.version}", lanes[0].promise]
    return [
        f"{each.lane} has no calibrated threshold: {each.promise}" for each in lanes if each.basis != "calibrated"
    ]


def _announce(console: Console) -> None:
    console.print(
        Text.assemble(
            (f"{JOINED.astimezone(NEW_YORK):%d %B}: ", "bold"),
            f"from here on the model is also asked about the flights from {NEW_AIRPORT}, which it has never seen. "
            "Nothing is wrong with the data, and nobody has told drift-monitor.",
        )
    )


def _follow(daemon: Daemon, first: datetime, last: datetime, console: Console) -> Iterator[WindowDone]:
    """The windows that end in a stretch, as they are done; a line a week."""
    total = (last - first) // DAY + 1
    console.print(Rule("the replay", style="dim"))
    legend = [f"{mark} {verdict.value.replace('_', ' ')}" for verdict, (mark, _) in MARKS.items()]
    console.print("One mark a day in New York:  " + "   ".join([*legend, "! alarm opens"]))
    line = Text()
    with spinner(console, "starting the daemon") as say:
        for number, window in enumerate(daemon.windows(total)):
            if number % _WEEK == 0:
                line = Text(f"  {window.start.astimezone(NEW_YORK):%a %d %b}  ")
            mark, style = MARKS[window.verdict]
            line.append("!" if window.opened else mark, style)
            if number % _WEEK == _WEEK - 1 or number == total - 1:
                console.print(line)
            say(f"{number + 1} of {total} windows: {window.end:%Y-%m-%d %H:%M}Z")
            yield window


def _decide(
    place: LoopFolder, asked: _Asked, pipeline: PipelineProcess, story: Story, console: Console
) -> Retraining | None:
    """What the team is asked, its answer, and what comes of it; None when there is nothing to decide."""
    console.print(Rule("the decision", style="dim"))
    console.print(f"The clock stands still at {DECIDED:%Y-%m-%d %H:%M}Z until the new model is live.")
    if not story.tell_held(asked.retraining()):
        return None
    with spinner(console, "waiting for the proposal"):
        found = asked.until(
            lambda: (r := asked.retraining()) and (r if r.state is not State.PREPARING else None),
            "a proposal",
            _PREPARED,
        )
    if not story.tell_proposal(found):
        return None
    _run(["retrainings"], place, console)
    note = f"eight weeks of {NEW_AIRPORT}'s flights have labels"
    _run(["approve", found.id[:8], "--by", "flight-ops", "--note", note], place, console)
    began, seen = time.monotonic(), found

    def moved() -> Retraining | None:
        nonlocal seen
        now = asked.retraining()
        for line in pipeline.said():
            console.print(Text(f"    pipeline: {line}", "dim"), soft_wrap=True)
        if now is not None and now.state is not seen.state:
            seen = now
            console.print(Text.assemble(f"  {time.monotonic() - began:5.1f} s  ", (now.state.value, "bold")))
        return now if now is not None and (now.state in _OVER or now.settled) else None

    with spinner(console, "drift-monitor makes weights and training set anew; then the pipeline trains"):
        found = asked.until(moved, "the end of the retraining", 2 * _PREPARED)
    moved()
    story.tell_retraining(found)
    return found


def _run(arguments: list[str], place: LoopFolder, console: Console) -> None:
    """Run a command as a person would, and show it."""
    console.print(Text(f"$ {typed_program()} {' '.join(map(_quoted, arguments))}", "bold"), soft_wrap=True)
    done = subprocess.run(
        [sys.executable, "-m", "drift_monitor", *arguments, "--config", str(place.config)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(console.width)},
    )
    console.print(Text((done.stdout + done.stderr).rstrip()), soft_wrap=True)


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word and "'" not in word else f'"{word}"' if " " in word else word


def _serve_new_model(
    place: LoopFolder, flights: pd.DataFrame, retraining: Retraining, story: Story, console: Console
) -> None:
    """Ten more days of the log, scored by the model that is live by now."""
    console.print(Rule("the new model serves", style="dim"))
    console.print("The daemon is stopped and started again, and carries on from what it has on disk.")
    with step(console, f"the log from {DECIDED:%d %B} on") as under_way:
        models = Models(place.models)
        version = models.live["version"]
        asked = served(flights, DECIDED, ENDS)
        log = asked.assign(**{SCORE: models.live_model().score(asked)})
        _append(log, place.live)
        under_way.notes.append(f"{len(log):,} flights, scored by version {version}")
    if version != retraining.model_version:
        story.problems.append(
            f"version {version} is deployed, but drift-monitor believes that {retraining.model_version!r} is live"
        )


def _append(log: pd.DataFrame, folder: Path) -> None:
    """Add rows to a log of one file a UTC day."""
    for day, rows in log.groupby(log[TIMESTAMP].dt.strftime("%Y-%m-%d")):
        file = folder / f"{day}.parquet"
        before = [pq.read_table(file)] if file.exists() else []
        write_table(pa.concat_tables([*before, to_arrow(rows)]), file)


def _next_steps(place: LoopFolder, address: str, console: Console, *, served: str) -> None:
    config, program = shown(place.config), typed_program()
    console.print(Rule("go on from here", style="dim"))
    console.print(f"The daemon {served} {address}/metrics, and pages for people at {address}/")
    for command in (
        f"{program} retrainings --config {config}",
        f"{program} check {SCHEDULE_MONITOR} --config {config} --at {ENDS:%Y-%m-%dT%H:%MZ}",
        f"{program} reference list {shown(place.state / 'references' / SCHEDULE_MONITOR)}",
    ):
        console.print(Text(f"  {command}"), soft_wrap=True)
