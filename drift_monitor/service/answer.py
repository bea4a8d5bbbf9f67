"""How a child that does one piece of work answers: a request on standard input, a result on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from drift_monitor.actions.process import PARENT
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.service.worker import die_with, limit_memory

_T = TypeVar("_T", bound=BaseModel)


def answer(kind: type[_T], work: Callable[[_T], BaseModel], memory: int) -> int:
    """Read a request, do the work, write the result; an error is the last line of standard error.

    Args:
        kind: of the request.
        work: what to do with it.
        memory: bytes that it may take.

    Returns:
        The exit code.
    """
    die_with(int(os.environ.get(PARENT) or os.getppid()))
    limit_memory(memory)
    with redirect_stdout(sys.stderr):  # a library that prints must not spoil the result
        try:
            result = work(kind.model_validate_json(sys.stdin.buffer.read()))
        except ValidationError as error:
            sys.stderr.write(f"the request cannot be read: {error.errors()[0]['msg']}\n")
            return 1
        except MemoryError:
            sys.stderr.write(f"it needs more than {memory / 2**30:g} GiB of memory\n")
            return 1
        except (DriftMonitorError, OSError) as error:
            sys.stderr.write(" ".join(str(error).split()) + "\n")
            return 1
    sys.stdout.write(result.model_dump_json())
    return 0
