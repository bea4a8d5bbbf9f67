"""`drift-monitor retrainings`, `retrain`, `approve` and `reject`: what people decide about retraining."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import click

from drift_monitor.cli.api import Api
from drift_monitor.cli.options import OK, config_option, examples, pick_monitor

if TYPE_CHECKING:
    from drift_monitor.config.models import Config

MOST_ROWS = 1000


class Ledger(Protocol):
    """The retrainings, in the daemon's hands or in ours."""

    def rows(self, monitor: str | None) -> list[dict[str, Any]]:
        """What is in it, newest first."""

    def decide(self, verb: str, name: str, by: str, note: str) -> dict[str, Any]:
        """Approve or reject one."""

    def begin(self, monitor: str, by: str) -> dict[str, Any]:
        """Ask for one by hand."""


@click.command(
    epilog=examples("drift-monitor retrainings", "drift-monitor retrainings flight-delay --json | jq '.[0].state'")
)
@click.argument("monitor", required=False)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def retrainings(monitor: str | None, config_path: Path, *, as_json: bool) -> int:
    """List the retrainings, newest first: where each stands, and what came of it.

    Speaks to the daemon where one is running, else opens the state folder itself.
    """
    from drift_monitor.config.file import load

    config = load(config_path)
    if monitor is not None:
        monitor, _ = pick_monitor(config, monitor)
    with open_ledger(config, config_path) as ledger:
        rows = ledger.rows(monitor)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return OK
    if not rows:
        click.echo("no retrainings")
        return OK
    for line in _lines(rows):
        click.echo(line)
    return OK


def _by(function: Callable[..., int]) -> Callable[..., int]:
    return click.option("--by", default=getpass.getuser, help="Who decides.  [default: your user name]")(function)


@click.command(epilog=examples("drift-monitor approve 3f9c21aa", "drift-monitor approve 3f9c21aa --note 'seen'"))
@click.argument("id")
@config_option
@_by
@click.option("--note", default="", help="Why; kept with the retraining.")
def approve(id: str, config_path: Path, by: str, note: str) -> int:  # noqa: A002 - the argument's name
    """Have the pipeline retrain, as a message proposed.

    The first digits of the ID are enough. What is not proposed any more, or whose data is broken by now, is
    refused.
    """
    return _decide("approve", id, config_path, by, note)


@click.command(epilog=examples("drift-monitor reject 3f9c21aa --note 'a holiday'"))
@click.argument("id")
@config_option
@_by
@click.option("--note", default="", help="Why; kept with the retraining.")
def reject(id: str, config_path: Path, by: str, note: str) -> int:  # noqa: A002 - the argument's name
    """Decide against a proposed retraining; the episode that caused it proposes none again."""
    return _decide("reject", id, config_path, by, note)


@click.command(epilog=examples("drift-monitor retrain flight-delay"))
@click.argument("monitor", required=False)
@config_option
@_by
def retrain(monitor: str | None, config_path: Path, by: str) -> int:
    """Ask for a retraining by hand, past cooldown, budget and the circuit breaker.

    The two guard rails that stay: never on broken data, and one at a time. Weights and training set are made
    first where the configuration asks for them; then the pipeline is told.
    """
    from drift_monitor.config.file import load

    config = load(config_path)
    name, _ = pick_monitor(config, monitor)
    with open_ledger(config, config_path) as ledger:
        row = ledger.begin(name, by)
    click.echo(f"retraining {row['id'][:8]} of {name} is being prepared; `drift-monitor retrainings` shows it")
    return OK


def _decide(verb: str, name: str, config_path: Path, by: str, note: str) -> int:
    from drift_monitor.config.file import load

    config = load(config_path)
    with open_ledger(config, config_path) as ledger:
        row = ledger.decide(verb, name.lower(), by, note)
    click.echo(f"retraining {row['id'][:8]} of {row['monitor']} is {row['state']}")
    return OK


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    from drift_monitor.config.problem import printable

    heads = [[row["id"][:8], row["state"], printable(row["monitor"], 60)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    for row, head in zip(rows, heads, strict=True):
        what = "  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True))
        yield f"{what}  {row['changed'][:10]} {row['changed'][11:16]}Z  {printable(row['reason'], 120)}"
        for line in _details(row):
            yield f"    {printable(line, 300)}"


def _details(row: dict[str, Any]) -> Iterator[str]:
    if row["training"]:
        yield f"training set: {row['training']['rows']:,} rows, {row['training']['path']}"
    if (weights := row["weights"]) is not None:
        use = "use them" if weights["adopt"] else "do not use them"
        worth = f"worth {weights['effective_sample_size']:,.0f} of {weights['rows']:,} rows"
        yield f"weights: {use}: {weights['why']} ({worth}), {weights['path']}"
    if row["model_version"]:
        metrics = ", ".join(f"{name} {value:g}" for name, value in row["model_metrics"].items())
        yield f"new model: version {row['model_version']}" + (f" ({metrics})" if metrics else "")
    if row["reference"]:
        yield f"reference: {row['reference']}"
    if row["decided_by"] or row["note"]:
        yield ": ".join(part for part in (row["decided_by"], row["note"]) if part)


@contextmanager
def open_ledger(config: Config, config_path: Path) -> Iterator[Ledger]:
    """The retrainings of a state folder: through the daemon that holds it, or directly.

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
        yield _Direct(store, config, config_path)
    finally:
        store.close()


class _Direct:
    """The database itself; the daemon, when it runs again, carries on from there."""

    def __init__(self, store: Any, config: Config, config_path: Path) -> None:
        from drift_monitor.service.retrainer import Retrainer
        from drift_monitor.service.retraining_messages import Sender

        public = config.server.public_url
        base = str(public).rstrip("/") if public else f"http://{config.server.listen}"
        sender = Sender(f"/drift-monitor/{config_path.stem}", base)
        self._store = store
        self._retrainer = Retrainer(store, lambda: config, lambda: sender, lambda: None)

    def rows(self, monitor: str | None) -> list[dict[str, Any]]:
        return [_row(r) for r in self._store.retrainings.newest(monitor, MOST_ROWS)]

    def decide(self, verb: str, name: str, by: str, note: str) -> dict[str, Any]:
        from drift_monitor.core.retraining import Event

        event = Event.APPROVE if verb == "approve" else Event.REJECT
        return _row(self._retrainer.move(name, event, decided_by=by, note=note or None))

    def begin(self, monitor: str, by: str) -> dict[str, Any]:
        return _row(self._retrainer.begin(monitor, by))


def _row(retraining: Any) -> dict[str, Any]:
    row: dict[str, Any] = retraining.model_dump(mode="json")
    return row


class _Remote:
    """The API of a running daemon."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def rows(self, monitor: str | None) -> list[dict[str, Any]]:
        query = f"?monitor={quote(monitor)}" if monitor else ""
        rows: list[dict[str, Any]] = self._asked("GET", f"/api/v1/retrainings{query}")["retrainings"]
        return rows

    def decide(self, verb: str, name: str, by: str, note: str) -> dict[str, Any]:
        return self._asked("POST", f"/api/v1/retrainings/{quote(name)}/{verb}", {"by": by, "note": note})

    def begin(self, monitor: str, by: str) -> dict[str, Any]:
        return self._asked("POST", f"/api/v1/monitors/{quote(monitor)}/retrain", {"by": by})

    def _asked(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._api.ask(method, path, body=body) or b"{}")
        return answer
