"""A process with a pool of one, to be killed: prints its child's process id once the child is at work."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_worker import Bench, until

from drift_monitor.config.daemon import Workers

if __name__ == "__main__":
    what, folder, *command = sys.argv[1:]
    bench = Bench(Path(folder), Workers(), command)
    bench.pool.start()
    bench.ask("pid")
    pid = bench.answer().reason
    if what == "hang":
        bench.ask("hang")
        until(lambda: bench.pool.running)
    print(pid, flush=True)
    time.sleep(1000)
