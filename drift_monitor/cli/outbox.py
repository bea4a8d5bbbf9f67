"""`drift-monitor outbox`: messages that wait, and those that nobody took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

import click

from drift_monitor.cli.api import Api
from drift_monitor.cli.options import ERROR, OK, config_option, examples

if TYPE_CHECKING:
    from drift_monitor.config.models import Config

MOST_ROWS = 1000  # that are listed at once, by a daemon too


class Outbox(Protocol):
    """The outbox, in the daemon's hands or in ours."""

    def rows(self, state: str | None) -> list[dict[str, Any]]:
        """What is in it, oldest first."""

    def act(self, verb: Literal["retry", "drop"], delivery: int) -> bool:
        """Do something with one message; False when there is none such."""


@click.group(
    epilog=examples(
        "drift-monitor outbox list --state dead",
        "drift-monitor outbox retry 17 18",
        "drift-monitor outbox drop --all-dead",
    )
)
def outbox() -> None:
    """List the messages to receivers, retry or drop them.

    Speaks to the daemon where one is running, else opens the state folder itself.
    """


@outbox.command(
    "list", epilog=examples("drift-monitor outbox list", "drift-monitor outbox list --state dead --json")
)
@config_option
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only messages in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_(config_path: Path, state: str | None, *, as_json: bool) -> int:
    """List the messages, oldest first."""
    from drift_monitor.config.file import load

    with open_outbox(load(config_path)) as box:
        rows = box.rows(state)
    if len(rows) >= MOST_ROWS:
        click.echo(f"the {MOST_ROWS} oldest are listed: there may be more, --state narrows it down", err=True)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return OK
    if not rows:
        click.echo(f"no {state} messages" if state else "no messages")
        return OK
    for line in _lines(rows):
        click.echo(line)
    return OK


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Two lines a message: what and when, then the last error; `--json` has everything."""
    from drift_monitor.config.problem import printable

    heads = [
        [str(row["id"]), row["state"], row["receiver"], row["type"].removeprefix("drift_monitor.")] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    for row, head in zip(rows, heads, strict=True):
        what = "  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True))
        when = f"next attempt {_minute(row['next_attempt'])}" if row["next_attempt"] else ""
        yield f"{what}  {_minute(row['created'])}  {when}".rstrip()
        if row["last_error"]:
            tries = f"{row['attempts']} attempt{'s' if row['attempts'] != 1 else ''}"
            yield f"    {tries}, the last: {printable(row['last_error'], 300)}"


def _minute(time: str) -> str:
    return f"{time[:10]} {time[11:16]}Z"


def _ids_and_all_dead(function: Callable[..., int]) -> Callable[..., int]:
    function = click.option("--all-dead", is_flag=True, help="Every dead message.")(function)
    function = config_option(function)
    return click.argument("ids", nargs=-1, type=int, metavar="[ID]...")(function)


@outbox.command(epilog=examples("drift-monitor outbox retry 17", "drift-monitor outbox retry --all-dead"))
@_ids_and_all_dead
def retry(ids: tuple[int, ...], config_path: Path, *, all_dead: bool) -> int:
    """Send dead or pending messages again, now and with a fresh schedule."""
    return _act("retry", ids, config_path, all_dead=all_dead)


@outbox.command(epilog=examples("drift-monitor outbox drop 17", "drift-monitor outbox drop --all-dead"))
@_ids_and_all_dead
def drop(ids: tuple[int, ...], config_path: Path, *, all_dead: bool) -> int:
    """Delete dead or pending messages; their receivers never get them."""
    return _act("drop", ids, config_path, all_dead=all_dead)


def _act(verb: Literal["retry", "drop"], ids: Sequence[int], config_path: Path, *, all_dead: bool) -> int:
    from drift_monitor.config.file import load

    if bool(ids) == all_dead:
        raise click.UsageError("name the messages by ID, or give --all-dead")
    seen: set[int] = set()
    missing = []
    with open_outbox(load(config_path)) as box:
        wanted = _dead(box) if all_dead else list(dict.fromkeys(ids))
        while wanted:
            missing += [delivery for delivery in wanted if not box.act(verb, delivery)]
            seen.update(wanted)
            # a bounded number is listed at once: look again, but not at what died again meanwhile
            wanted = [delivery for delivery in _dead(box) if delivery not in seen] if all_dead else []
    done = len(seen) - len(missing)
    click.echo(f"{done} {'message' if done == 1 else 'messages'} {'due again' if verb == 'retry' else 'dropped'}")
    if missing and not all_dead:
        click.echo(f"no pending or dead message: {', '.join(map(str, missing))}", err=True)
        return ERROR
    return OK


def _dead(box: Outbox) -> list[int]:
    return [int(row["id"]) for row in box.rows("dead")]


@contextmanager
def open_outbox(config: Config) -> Iterator[Outbox]:
    """The outbox of a state folder: through the daemon that holds it, or directly.

    Raises:
        StoreError: the daemon does not answer, or the database cannot be used.
    """
    from drift_monitor.service.lock import read_lock
    from drift_monitor.service.store import Store

    holder = read_lock(config.state)
    if holder is not None:
        yield _Remote(Api(holder.address, holder.pid, config.server.token_file))
        return
    store = Store.open(config.state)
    try:
        yield _Direct(store)
    finally:
        store.close()


class _Direct:
    """The database itself."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def rows(self, state: str | None) -> list[dict[str, Any]]:
        return [_row(d) for d in self._store.outbox.deliveries(state, limit=MOST_ROWS)]

    def act(self, verb: Literal["retry", "drop"], delivery: int) -> bool:
        if verb == "retry":
            return bool(self._store.outbox.replay(delivery, datetime.now(UTC)))
        return bool(self._store.outbox.drop(delivery))


def _row(delivery: Any) -> dict[str, Any]:
    row: dict[str, Any] = delivery.model_dump(mode="json", exclude={"body"})
    return row


class _Remote:
    """The API of a running daemon."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def rows(self, state: str | None) -> list[dict[str, Any]]:
        query = f"?state={quote(state)}" if state else ""
        rows: list[dict[str, Any]] = json.loads(self._api.ask("GET", f"/api/v1/outbox{query}") or b"{}")[
            "deliveries"
        ]
        return rows

    def act(self, verb: Literal["retry", "drop"], delivery: int) -> bool:
        return self._api.ask("POST", f"/api/v1/outbox/{delivery}/{verb}", may_miss=True) is not None
