"""`drift-monitor test-alert`: one marked message to one receiver, at once and past the outbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_monitor.cli.options import OK, config_option, examples

if TYPE_CHECKING:
    from drift_monitor.config.models import Config
    from drift_monitor.config.receivers import Receiver

_SHOWN = 2000  # characters of a request's body


@click.command(
    "test-alert",
    epilog=examples(
        "drift-monitor test-alert --receiver oncall",
        "drift-monitor test-alert --receiver retraining",
        "drift-monitor test-alert --receiver retraining --start-a-run",
    ),
)
@config_option
@click.option("--receiver", "name", metavar="NAME", help="Which receiver; not needed where there is only one.")
@click.option("--start-a-run", is_flag=True, help="Ask a pipeline for a real run, whose event says `test: true`.")
def send_test(config_path: Path, name: str | None, *, start_a_run: bool) -> int:
    """Send one receiver a message that says that it is a test.

    It is sent directly, once, and does not show up in the outbox. A receiver that starts pipeline runs is
    only looked at, and shown the request that it would get, unless --start-a-run is given. Exits with 1 when
    the receiver did not take the message, or could not be reached.
    """
    from datetime import UTC, datetime

    from drift_monitor.config.file import load
    from drift_monitor.core.cloudevents import render
    from drift_monitor.receivers import send, takes
    from drift_monitor.receivers.samples import TRIAL, trial, trial_request
    from drift_monitor.receivers.template import REQUESTED

    config = load(config_path)
    name, receiver = _pick(config, name)
    if start_a_run and not takes(receiver, REQUESTED):
        raise click.UsageError(f"receiver {name} ({receiver.type}) starts no runs: leave --start-a-run out")
    if not start_a_run and not takes(receiver, TRIAL):
        return _look(name, receiver)
    now, base = datetime.now(UTC), _base(config)
    message = trial_request(now, base) if start_a_run else trial(now, base)
    click.echo(f"{name} ({receiver.type}) is sent {message.type} {message.id}:")
    receipt = send(receiver, message.id, render(message), now, lambda line: click.echo(f"  {line}"))
    click.echo(str(receipt))
    return OK


def _look(name: str, receiver: Receiver) -> int:
    """Show what a pipeline would be sent, and find out whether it could be."""
    from drift_monitor.config.problem import printable
    from drift_monitor.core.errors import DeliveryError
    from drift_monitor.receivers import probe
    from drift_monitor.receivers.templated import preview

    click.echo(f"{name} ({receiver.type}) starts a run for each message, so nothing is sent. It would be:")
    for line, body in preview(receiver):
        click.echo(f"  {line}")
        if body is not None:
            click.echo(f"    {printable(body, _SHOWN)}")
    problem = probe(receiver)
    if problem is not None:
        raise DeliveryError(problem, "connect")
    click.echo("it can be reached; --start-a-run sends it, and a real run begins")
    return OK


def _pick(config: Config, name: str | None) -> tuple[str, Receiver]:
    from drift_monitor.config.sentences import unknown

    known = list(config.receivers)
    if name is None and len(known) == 1:
        name = known[0]
    if name is None:
        listed = f": {', '.join(known)}" if known else ", but the configuration has none"
        raise click.UsageError(f"name one of the receivers with --receiver{listed}")
    if name not in config.receivers:
        raise click.UsageError(f"{name!r}: {unknown('receiver', name, known)}")
    return name, config.receivers[name]


def _base(config: Config) -> str:
    """URL of the daemon, as its own messages have it."""
    public = config.server.public_url
    return str(public).rstrip("/") if public is not None else f"http://{config.server.listen}"
