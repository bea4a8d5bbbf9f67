"""`drift-monitor explain`: one run, told to a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from drift_monitor.cli.api import Api
from drift_monitor.cli.options import (
    OK,
    config_option,
    examples,
    latest_window,
    pick_monitor,
    progress_bar,
    read_time,
    stdout,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from drift_monitor.cli.account import Account
    from drift_monitor.config.models import Config
    from drift_monitor.service.stored import StoredRun

_LATEST = "latest"
_FEATURES = 10  # that are told in full
_HISTOGRAMS = 3


@click.command(
    epilog=examples(
        "drift-monitor explain latest",
        "drift-monitor explain 17",
        "drift-monitor explain flight-delay@2013-04-11T06:00Z",
        "drift-monitor explain flight-delay --at 2013-04-11T06:00Z",
        "drift-monitor explain latest --json | jq .distance",
    )
)
@click.argument("run", required=False)
@config_option
@click.option(
    "--at",
    metavar="TIME",
    callback=read_time,
    help="Check the window that was the latest complete one at this time, now; RUN is the monitor's name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(run: str | None, config_path: Path, at: datetime | None, *, as_json: bool) -> int:
    """Tell why a run did or did not raise an alert.

    RUN is the number of a run, as the monitor's page and the log have it, or MONITOR@END with the end of its
    window, or MONITOR@latest; `latest` will do where there is only one monitor. Tells how far the score was
    from the threshold, what moved and since when, and what is promised about false alerts. Speaks to the daemon
    where one is running, else opens the state folder itself.
    """
    from drift_monitor.config.file import load

    config = load(config_path)
    told = _checked(config, run, at) if at is not None else _stored(config, run or _LATEST)
    if as_json:
        click.echo(json.dumps(told.data(), indent=2).encode())
    else:
        stdout().print(draw(told))
    return OK


def _checked(config: Config, monitor: str | None, at: datetime) -> Account:
    """A check made now; it is not stored."""
    from drift_monitor.cli.account import account
    from drift_monitor.service.evaluate import CheckRequest, evaluate

    name, chosen = pick_monitor(config, monitor)
    request = CheckRequest(name=name, monitor=chosen, state=config.state, window=latest_window(chosen, at))
    with redirect_stdout(sys.stderr), progress_bar(f"reading {name}") as progress:
        return account(evaluate(request, progress=progress), chosen.alarm)


def _stored(config: Config, run: str) -> Account:
    """A run of the store."""
    from drift_monitor.cli.account import account_of
    from drift_monitor.core.policy import Alarm

    found = find(config, run)
    monitor = config.monitors.get(found.result.monitor)
    if monitor is None:  # the run is older than the configuration
        return account_of(found, Alarm())
    return account_of(found, monitor.alarm, monitor.maintenance)


def find(config: Config, run: str) -> StoredRun:
    """The run that is meant: from the daemon that holds the state folder, or from the folder itself.

    Raises:
        UsageError: `run` names no run, or no monitor.
        ClickException: there is none such.
        StoreError: the store cannot be used, or the daemon does not answer.
    """
    from drift_monitor.service.lock import read_lock
    from drift_monitor.service.store import FILE, Store
    from drift_monitor.service.stored import StoredRun, find_run, stored_run

    number, monitor, end = _meant(config, run)
    holder = read_lock(config.state)
    found: StoredRun | None = None
    if holder is not None:
        api = Api(holder.address, holder.pid, config.server.token_file)
        moment = _LATEST if end is None else end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        path = f"runs/{number}" if number is not None else f"monitors/{quote(monitor, safe='')}/runs/{moment}"
        body = api.ask("GET", f"/api/v1/{path}", may_miss=True)
        found = None if body is None else StoredRun.model_validate_json(body)
    elif (config.state / FILE).is_file():
        store = Store.open(config.state)
        try:
            at = number if number is not None else find_run(store, monitor, end)
            found = None if at is None else stored_run(store, at)
        finally:
            store.close()
    if found is None:
        what = (
            f"run {number}"
            if number is not None
            else f"run of {monitor}" + (f" that ends at {end:%Y-%m-%dT%H:%MZ}" if end else "")
        )
        raise click.ClickException(
            f"the state folder {config.state} has no finished {what}; to check a window now, give --at TIME"
        )
    return found


def _meant(config: Config, run: str) -> tuple[int | None, str, datetime | None]:
    """A run's number; or a monitor and the end of a window, None for the newest."""
    if run.isascii() and run.isdigit():
        return int(run), "", None
    monitor, at, end = run.rpartition("@")
    if not at and end != _LATEST:
        raise click.UsageError(f"{run!r} is no run: give its number, `latest`, MONITOR@latest or MONITOR@END")
    name, _ = pick_monitor(config, monitor or None)
    if end == _LATEST:
        return None, name, None
    try:
        moment = datetime.fromisoformat(end)
    except ValueError:
        raise click.UsageError(f"{end!r} is not the end of a window, such as 2013-04-02T06:00Z") from None
    return None, name, moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def draw(told: Account) -> RenderableType:
    """For people."""
    from rich.console import Group
    from rich.text import Text

    from drift_monitor.cli.draw import draw_verdict

    parts: list[Any] = [draw_verdict(told.result, promise=False)]
    if told.run is not None:
        parts.append(Text(f"run {told.run}", style="dim"))
    for title, lines in (
        ("How far from an alert", _far(told)),
        ("Signals", _signals(told)),
        ("Features", _features(told)),
        ("Data quality", _quality(told)),
        ("Model performance", _performance(told)),
        ("Episodes", _episodes(told)),
        ("Promise", _promise(told)),
    ):
        body = list(lines)
        if body:
            parts += [Text(), Text(title, style="bold"), *body]
    return Group(*parts)


def _far(told: Account) -> Iterator[RenderableType]:
    from rich.text import Text

    from drift_monitor.config.problem import printable

    yield from (Text(f"  {printable(line, 1000)}") for line in told.distance)


def _signals(told: Account) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from drift_monitor.cli.account import in_percent, share_of, signal_words, window_of
    from drift_monitor.config.problem import printable

    result = told.result
    if not result.signals:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("  signal", "window", "score", "of threshold", "what it would mean"):
        table.add_column(heading, justify="right" if heading in ("score", "of threshold") else "left")
    for signal in result.signals:
        table.add_row(
            f"  {signal.channel}",
            window_of(signal.window, result) if signal.window else "its own",
            f"{signal.score:.3g}",
            Text(in_percent(share_of(signal.score, result.threshold)), style="red" if signal.over else ""),
            Text(printable(signal_words(signal), 500)),
        )
    yield table
    yield Text("  The run's score is the largest of them.", style="dim")


def _features(told: Account) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    from drift_monitor.cli.account import in_percent, meaning, share_of, size_words, told_features, window_of
    from drift_monitor.cli.draw import draw_bars
    from drift_monitor.config.problem import printable

    result = told.result
    if not result.features:
        if result.rows and result.failure is None:
            yield Text("  are not kept any more for this run (retention.results)")
        return
    chosen = told_features(result)
    if not result.drifted:
        yield Text("  none drifted" + ("; the nearest:" if chosen else ", and none is beyond what is typical"))
    for i, feature in enumerate(chosen[:_FEATURES]):
        yield Text.assemble(
            ("  " + printable(feature.name, 60), "bold"),
            f"  {printable(feature.effect or feature.reason or '', 200)}",
        )
        if feature.method is not None:
            yield Text(
                f"    score {feature.score:.3g}, {in_percent(share_of(feature.score, feature.threshold))} of "
                f"{feature.threshold:.3g}, in the last {window_of(feature.window, result)}, "
                f"by {printable(feature.method, 60)} ({meaning(feature.method)})"
            )
        if size_words(feature):
            floor = told.floors.get(feature.kind, 0.0)
            yield Text(f"    {size_words(feature)}; less than {floor:.0%} never counts")
        if feature.name in told.since:
            yield Text(f"    drifts since {told.since[feature.name]}")
        if i < _HISTOGRAMS and feature.histogram is not None:
            yield Padding(draw_bars(feature.histogram, drifted=feature.drifted), (0, 0, 0, 4))
    if len(chosen) > _FEATURES:
        yield Text(f"  and {len(chosen) - _FEATURES} more features (--json has all)", style="dim")


def _quality(told: Account) -> Iterator[RenderableType]:
    from rich.text import Text

    from drift_monitor.cli.account import in_percent, nearest_quality, quality_share
    from drift_monitor.config.problem import printable

    for check in told.result.failed_quality:
        yield Text.assemble(("  broken ", "magenta"), f"{check.check}: {printable(check.message, 500)}")
    nearest = nearest_quality(told.result)
    if nearest:
        check = nearest[0]
        share = quality_share(check)
        yield Text(
            f"  nearest to its limit of those that hold, at {in_percent(share)}: {check.check}: "
            f"{printable(check.message, 500)}"
        )


def _performance(told: Account) -> Iterator[RenderableType]:
    from drift_monitor.cli.draw import performance_lines

    if told.result.performance is not None:
        yield from performance_lines(told.result.performance)


def _episodes(told: Account) -> Iterator[RenderableType]:
    from rich.text import Text

    for lane, (reason, text) in told.lanes.items():
        yield Text(f"  {lane}: {reason.value}: {text}")


def _promise(told: Account) -> Iterator[RenderableType]:
    from rich.text import Text

    from drift_monitor.cli.promised import STYLES
    from drift_monitor.service.basis import LABELS

    basis = told.result.promise_basis
    words = told.result.promise.removeprefix("none: ").removeprefix(f"{LABELS[basis]}: ")
    words = words or "nothing was judged"  # a window without rows says no more
    yield Text.assemble("  ", (LABELS[basis], STYLES[basis]), f": {words}")
