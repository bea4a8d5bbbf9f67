"""The daemon in its own process, with a stand-in for the evaluation. Arguments: config [start speed until]."""

import sys
from datetime import datetime
from pathlib import Path

from drift_monitor.service.app import App
from drift_monitor.service.clock import ReplayClock
from drift_monitor.service.logs import set_up

if __name__ == "__main__":
    config, *replay = sys.argv[1:]
    set_up()
    clock = None
    if replay:
        start, speed, until = replay
        clock = ReplayClock(datetime.fromisoformat(start), float(speed), datetime.fromisoformat(until))
    worker = (sys.executable, str(Path(__file__).with_name("daemon_stand_in.py")))
    sys.exit(App(Path(config), clock, worker=worker).run())
