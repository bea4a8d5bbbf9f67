"""A worker child that does what its request's path says, in place of an evaluation."""

import ctypes
import os
import subprocess
import sys
import time

from drift_monitor.core.types import CheckResult, Outcome
from drift_monitor.service.worker import serve


def evaluate(request):
    what, _, argument = request.monitor.source.path.strip().partition(" ")
    return CheckResult(
        monitor=request.name,
        window=request.window,
        rows=1,
        verdict=Outcome.OK,
        reason=DEEDS[what](request, argument),
        promise="none",
    )


def hang(*_):
    while True:
        time.sleep(1)


def spawn(request, _):
    child = subprocess.Popen(["sleep", "1000"])
    (request.state / "grandchild").write_text(str(child.pid))
    hang()


def hog(*_):
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20) * 8))
        time.sleep(0.01)


def bomb(*_):
    return str(len(bytes(8 << 30)))


def crash(*_):
    ctypes.string_at(0)


def orphan(*_):
    if os.fork() == 0:
        time.sleep(30)
    os._exit(7)


def nonsense(*_):
    os.write(int(sys.argv[1]), b'{"verdict": "fine"}\n')
    hang()


def chatter(*_):
    print('{"verdict": "drift"}', flush=True)
    for number in range(10_000):
        print(f"line {number} {'x' * 100}", file=sys.stderr)
    return "quiet now"


def failing(*_):
    raise ValueError("no \u2603 here")


def meet(request, who):
    (request.state / who).touch()
    while not ((request.state / "a").exists() and (request.state / "b").exists()):
        time.sleep(0.01)
    return "met"


def slow(*_):
    time.sleep(0.5)
    return "slow"


DEEDS = {
    "pid": lambda *_: str(os.getpid()),
    "threads": lambda *_: f"{os.environ['OPENBLAS_NUM_THREADS']} {os.environ['OMP_NUM_THREADS']}",
    "hang": hang,
    "spawn": spawn,
    "hog": hog,
    "bomb": bomb,
    "segfault": crash,
    "exit": lambda *_: os._exit(7),
    "orphan": orphan,
    "raise": failing,
    "nonsense": nonsense,
    "chatter": chatter,
    "meet": meet,
    "slow": slow,
}

if __name__ == "__main__":
    serve(evaluate)
