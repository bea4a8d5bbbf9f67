"""What the loop demo tells, and what of the circle did not happen as it should."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from drift_monitor.cli.draw import draw_verdict
from drift_monitor.config.file import load
from drift_monitor.core.retraining import Retraining, State
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.demo.daemon import WindowDone
from drift_monitor.demo.data import between
from drift_monitor.demo.folder import SCHEDULE_MONITOR
from drift_monitor.demo.log import write_log
from drift_monitor.demo.loop_figures import (
    draw_errors,
    draw_windows,
    gain,
    live_errors,
    not_quiet_again,
    read_log,
    unquiet,
)
from drift_monitor.demo.loop_folder import LoopFolder
from drift_monitor.demo.loop_plan import ENDS, JOINED, NEW_AIRPORT, WATCHED
from drift_monitor.demo.plan import DAY
from drift_monitor.demo.receiver import Received, WebhookReceiver
from drift_monitor.demo.retraining_pipeline import Models
from drift_monitor.service.evaluate import CheckRequest, evaluate

_DELIVERY: Final = 30.0  # seconds to wait for a webhook
_SOON: Final = 3 * DAY  # 2 of 3 windows
_AS_IT_SHOULD: Final = (
    "Drift found, proposed, approved, retrained, live, a new reference, quiet again: each step happened."
)


class Story:
    """Tells what happened, and keeps what did not happen as it should.

    Args:
        place: the demo's folder.
        team: the webhooks.
        console: where to tell it.

    Attributes:
        problems: what did not happen as it should, as sentences.
        before: the windows until the decision.
        after: the windows that the new model was watched in.
    """

    def __init__(self, place: LoopFolder, team: WebhookReceiver, console: Console) -> None:
        self._place, self._team, self._console = place, team, console
        self.problems: list[str] = []
        self.before: list[WindowDone] = []
        self.after: list[CheckResult] = []

    def tell_drift(self, result: Callable[[datetime], CheckResult]) -> None:
        """The alarm.

        Args:
            result: end of a window -> what came of it.
        """
        self.problems += unquiet(self.before)
        self._console.print(Rule("the drift", style="dim"))
        opening = next((w for w in self.before if "drift" in w.opened and w.end > JOINED), None)
        if opening is None or opening.end > JOINED + _SOON:
            self.problems.append(f"no alarm opened within {_SOON // DAY} days of {NEW_AIRPORT}")
            return
        days = (opening.end - JOINED) // DAY
        self._console.print(f"The alarm opened with the windows of {days} days, at {opening.end:%Y-%m-%d %H:%M}Z:")
        self._console.print(draw_verdict(result(opening.end)))

    def tell_held(self, begun: Retraining | None) -> bool:
        """What holds a retraining back, if anything does; whether one was begun."""
        if begun is not None:
            return True
        opened = self._message("drift_monitor.drift.opened")
        held = {} if opened is None else opened.event["data"].get("retraining_held", {})
        self.problems.append(f"no retraining was begun: {'; '.join(held.values()) or 'nobody said why'}")
        return False

    def tell_proposal(self, found: Retraining) -> bool:
        """What the team was asked; whether it was."""
        told = self._message("drift_monitor.retraining.proposed")
        if told is None or found.state is not State.PROPOSED:
            self.problems.append(f"no retraining was proposed: it is {found.state.value}: {found.note}")
            return False
        self._console.print(Text.assemble(("The team received: ", "bold"), told.event["data"]["summary"]))
        return True

    def tell_retraining(self, found: Retraining) -> None:
        """How it ended."""
        if found.state is not State.PROMOTED:
            self.problems.append(f"the retraining ended as {found.state.value}: {found.note}")
            return
        for label, value in (
            ("decided by", found.decided_by),
            ("labelled", f"{found.labelled or 0:.1%} of the live flights"),
            ("trained on", found.trained_on),
            ("model", found.model_version),
            ("reference", found.reference),
        ):
            self._console.print(Text.assemble((f"  {label:12}", "dim"), value), soft_wrap=True)
        closed = self._message("drift_monitor.drift.resolved")
        if closed is None or not closed.event["data"]["episode"].get("retrained"):
            self.problems.append("no verified webhook says that the drift ended because the model was retrained")
        else:
            self._console.print(Text.assemble(("The team received: ", "bold"), closed.event["data"]["summary"]))

    def tell_end(self, retraining: Retraining) -> None:
        """The new model's windows, and the figures."""
        self._console.print(Text(f"The promise now: {self.after[-1].promise}"))
        self.problems += not_quiet_again(self.after, retraining)
        self._tell_control()
        self._console.print(Rule("before and after", style="dim"))
        self._console.print("Days of drift, of the days that were judged:")
        self._console.print(draw_windows(self.before, self.after, retraining))
        log, models = read_log(self._place.live), Models(self._place.models)
        self._console.print(
            "\nLive error (log loss and Brier score: smaller is better; AUC: larger is), and log loss by airport:"
        )
        self._console.print(draw_errors(live_errors(log, models, retraining.model_version)))
        gained, error = gain(log, models)
        self._console.print(
            f"On the same flights the new model's log loss is smaller by {gained:.4f} (standard error over "
            f"{WATCHED // DAY} days: {error:.4f})."
        )
        if gained <= 0:
            self.problems.append(f"the new model is worse than the old one on the flights since: {gained:.4f}")

    def conclude(self) -> None:
        """Problems, or that there are none."""
        refused = [r for r in self._team.received if r.problem is not None]
        self.problems += [f"webhook {r.id} was not accepted: {r.problem}" for r in refused]
        for problem in self.problems:
            self._console.print(Text(f"NOT AS IT SHOULD BE: {problem}", style="bold red"))
        if not self.problems:
            self._console.print(Text(_AS_IT_SHOULD, "green"))

    def _tell_control(self) -> None:
        """A quiet monitor may be a blind one: the last day as it would be without the airport has to drift."""
        config = load(self._place.config)
        monitor = config.monitors[SCHEDULE_MONITOR]
        window = Window(start=ENDS - DAY, end=ENDS)
        rows = between(read_log(self._place.live), window.start, window.end)
        folder = self._place.path / "control"
        write_log(rows[rows["origin"] != NEW_AIRPORT], folder)
        source = monitor.source.model_copy(update={"path": str(folder / "*.parquet")})
        without = evaluate(
            CheckRequest(
                name=SCHEDULE_MONITOR,
                monitor=monitor.model_copy(update={"source": source}),
                state=config.state,
                window=window,
            )
        )
        self._console.print(
            Text.assemble(
                ("It is not blind: ", "bold"),
                f"the last day without {NEW_AIRPORT}'s flights would be {without.verdict.value}: {without.reason}",
            )
        )
        if without.verdict is not Outcome.DRIFT:
            self.problems.append(f"the new reference does not miss {NEW_AIRPORT}: {without.reason}")

    def _message(self, kind: str) -> Received | None:
        return self._team.wait(lambda r: r.problem is None and r.type == kind, _DELIVERY)
