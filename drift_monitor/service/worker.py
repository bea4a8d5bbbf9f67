"""The child that evaluates windows: `python -m drift_monitor.service.worker`.

It reads one request a line on standard input and writes one result a line on a pipe of its own, so that
nothing printed by a library can be taken for a result. Between requests it keeps its imports warm.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Window
from drift_monitor.service.evaluate import CheckRequest

READY = b"ready\n"
# Address space that allocators reserve without using it: 1 GiB for pyarrow's, 8 MiB a thread's stack.
HEADROOM = 2 * 2**30
_PR_SET_PDEATHSIG = 1


def cannot_judge(monitor: str, window: Window, failure: FailureReason, reason: str) -> CheckResult:
    """The result of a run that failed."""
    return CheckResult(
        monitor=monitor,
        window=window,
        rows=0,
        verdict=Outcome.CANNOT_JUDGE,
        reason=reason,
        failure=failure,
        promise="none: nothing was judged",
    )


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends.

    Args:
        parent: process id; when it is gone already, this process exits at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(size: int) -> None:
    """Refuse memory far above the limit that the parent enforces, for what outruns its looking.

    Args:
        size: bytes of `workers.memory`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size + HEADROOM if hard == resource.RLIM_INFINITY else min(size + HEADROOM, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judged(evaluate: Callable[[CheckRequest], CheckResult], request: CheckRequest) -> bytes:
    now = datetime.now(UTC)
    window = request.window or Window(start=now, end=now)
    try:
        return evaluate(request).model_dump_json().encode()
    except MemoryError as error:
        reason, failure = f"the check ran out of memory ({error}): raise workers.memory", FailureReason.MEMORY
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this run and no other
        sys.excepthook(type(error), error, error.__traceback__)
        reason, failure = f"the check failed with {error!a}", FailureReason.INTERNAL
    return cannot_judge(request.name, window, failure, reason).model_dump_json().encode()


def serve(evaluate: Callable[[CheckRequest], CheckResult]) -> None:
    """Answer requests until standard input ends. Arguments: result pipe, parent's process id, memory limit."""
    pipe, parent, memory = (int(argument) for argument in sys.argv[1:4])
    die_with(parent)
    limit_memory(memory)
    with os.fdopen(pipe, "wb") as results:
        results.write(READY)
        results.flush()
        for runs, line in enumerate(sys.stdin.buffer):
            results.write(_judged(evaluate, CheckRequest.model_validate_json(line)) + b"\n")
            results.flush()
            if not runs:  # what was imported stays, and need not be looked through with every window's garbage
                gc.collect()
                gc.freeze()


if __name__ == "__main__":
    from drift_monitor.service.evaluate import evaluate

    serve(evaluate)
