"""The command line: the only place that prints, and the only one that turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from drift_monitor import __version__
from drift_monitor.cli.backfill import backfill
from drift_monitor.cli.backtest import backtest
from drift_monitor.cli.calibrate import calibrate
from drift_monitor.cli.check import check
from drift_monitor.cli.config import check_config, init, schema
from drift_monitor.cli.demo import demo
from drift_monitor.cli.doctor import doctor
from drift_monitor.cli.explain_run import explain
from drift_monitor.cli.export import export
from drift_monitor.cli.options import BAD_CONFIG, ERROR, INTERRUPTED, OK, USAGE, examples
from drift_monitor.cli.outbox import outbox
from drift_monitor.cli.reference import reference
from drift_monitor.cli.refresh import refresh
from drift_monitor.cli.report import report
from drift_monitor.cli.retrainings import approve, reject, retrain, retrainings
from drift_monitor.cli.reweight import reweight
from drift_monitor.cli.run import run
from drift_monitor.cli.send_test import send_test
from drift_monitor.core.errors import ConfigError, DriftMonitorError
from drift_monitor.cpu import choose_vectors

_EXIT_CODES = f"""\b
Exit codes:
  {OK}   done
  {ERROR}   an error, said in a sentence on stderr
  2   drift found, 3 could not judge, 4 broken data (of `check`)
  {USAGE}  the command line itself is wrong
  {BAD_CONFIG}  the configuration is wrong

"""


@click.group(
    epilog=_EXIT_CODES
    + examples(
        "drift-monitor demo",
        "drift-monitor init training.parquet",
        "drift-monitor check-config --explain",
        "drift-monitor check",
        "drift-monitor run",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="drift-monitor")
def command(*, debug: bool) -> None:
    """Watch live data drift away from the data that a model was trained on.

    Begin with `init`, which writes a configuration from a training file, and `check`, which judges one
    window. `run` does so for ever, serves /metrics and tells the receivers.
    """
    del debug  # read by main from the context, also when the command line did not parse


for _each in (
    demo,
    init,
    check_config,
    schema,
    reference,
    calibrate,
    check,
    explain,
    backtest,
    backfill,
    run,
    report,
    reweight,
    refresh,
    retrainings,
    approve,
    reject,
    retrain,
    outbox,
    send_test,
    export,
    doctor,
):
    command.add_command(_each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    choose_vectors(os.environ)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost frame
        if "--debug" in arguments[:1]:
            traceback.print_exc()
        return _explain(error)
    return code


def _invoke(arguments: list[str]) -> int:
    result = command.main(arguments, prog_name="drift-monitor", standalone_mode=False)
    return result if isinstance(result, int) else OK


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is at the bottom of it: one that comes while a lock is let go surfaces as another error."""
    while error is not None and not isinstance(error, KeyboardInterrupt | click.Abort):
        error = error.__context__
    return error is not None


def _explain(error: BaseException) -> int:
    """Say what went wrong, and which exit code that is."""
    code = ERROR
    match error:
        case _ if _interrupted(error):
            code = INTERRUPTED
        case ConfigError():
            click.echo("\n".join(error.problems), err=True)
            code = BAD_CONFIG
        case click.ClickException():
            error.show()
            code = USAGE if isinstance(error, click.UsageError) else ERROR
        case BrokenPipeError():  # the reader has gone: leave nothing to flush that would complain at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        case DriftMonitorError() | OSError():
            click.echo(f"drift-monitor: {error}", err=True)
        case _:  # a bug must not look like a verdict
            click.echo(f"drift-monitor: internal error: {type(error).__name__}: {error}", err=True)
            click.echo("`drift-monitor --debug ...` shows where", err=True)
    return code
