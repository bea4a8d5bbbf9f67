"""`make stack`: the daemon, Prometheus and Alertmanager on loopback, and the story of `scenario.py` to look at.

The servers are those that are installed. Rules and routes are the committed ones on a faster clock
(`servers.QUICK`).
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from scenario import Scenario, play
from servers import SYSTEM, Inbox, Notice, Pair, free_port, programs

HEARTBEAT = "DriftMonitorWatchdog"


class Told(Inbox):
    """Prints what Alertmanager tells, but for the heartbeat."""

    def heard(self, name: str, notice: Notice) -> None:
        """Print one line."""
        del name
        if notice.alert != HEARTBEAT:
            what = f"{notice.alert} {notice.subject}".strip()
            print(f"{_clock()}     {notice.receiver} is told: {what} {notice.status}", flush=True)


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _port(wanted: int) -> int:
    """The port that people know, or a free one where that is taken."""
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


def main() -> int:
    """Start everything, tell the story, and stay until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end when the story does")
    parser.add_argument("--servers", default=SYSTEM, help="system, or a suite that fetch_servers.sh has unpacked")
    parser.add_argument("--folder", type=Path, help="for everything; a temporary one by default")
    arguments = parser.parse_args()
    found = programs(arguments.servers)
    if not found.complete:
        print(
            "Prometheus or Alertmanager is missing: apt install prometheus prometheus-alertmanager",
            file=sys.stderr,
        )
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="drift-monitor-"))
        )
        try:
            inbox = stack.enter_context(closing(Told()))
            scenario = stack.enter_context(Scenario(folder / "daemon", _port(9877)))
            pair = stack.enter_context(
                Pair(
                    found,
                    folder / "servers",
                    scenario.target,
                    inbox,
                    prometheus_port=_port(9090),
                    alertmanager_port=_port(9093),
                )
            )
            print(f"daemon        {scenario.url}/")
            print(f"Prometheus    {pair.url}/alerts")
            print(f"Alertmanager  {pair.alertmanager_url}/")
            print(f"files         {folder}\n", flush=True)
            play(scenario, [pair], lambda step: print(f"{_clock()} {step}", flush=True))
            if not arguments.exit:
                scenario.feeder.set("again", "drift")
                print(f"{_clock()} again drifts once more and goes on so; Ctrl-C ends it all", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("ended", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
