"""What goes to a worker and what comes back. Work is pickled; what it found is in a format of its own."""

from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from drift_monitor import __version__
from drift_monitor.core.errors import DamagedError, DriftMonitorError, ExecutorError, SchemaError, SourceError
from drift_monitor.core.folding import Folded

_FOUND: Final = b"+"
_FAILED: Final = b"-"
_ERRORS: Final = {"SourceError": SourceError, "SchemaError": SchemaError, "DamagedError": DamagedError}


@dataclass(frozen=True)
class Work:
    """Anything that can be pickled, opened only by the same version of this package.

    Attributes:
        version: of the package that sent it.
        pickled: the thing.
    """

    version: str
    pickled: bytes

    @classmethod
    def of(cls, thing: object) -> Self:
        """Pack a thing."""
        return cls(__version__, pickle.dumps(thing, protocol=pickle.HIGHEST_PROTOCOL))

    def open(self) -> Any:
        """The thing.

        Raises:
            ExecutorError: this worker runs another version.
        """
        if self.version != __version__:
            raise ExecutorError(
                f"the worker {socket.gethostname()} runs drift-monitor {__version__} and was sent work of "
                f"{self.version}: restart the workers, or install {self.version} there"
            )
        return pickle.loads(self.pickled)  # noqa: S301 - from the driver, which may run anything on this worker


def answer(fold: Callable[[], Folded]) -> bytes:
    """What a worker says: what it found, or the error that it met, in words."""
    try:
        return _FOUND + fold().to_bytes()
    except DriftMonitorError as error:
        kind, text = type(error).__name__, str(error)
    except MemoryError as error:
        kind, text = "ExecutorError", f"a worker ran out of memory ({error}): give the workers more"
    return _FAILED + json.dumps([kind, f"{text} (on the worker {socket.gethostname()})"]).encode()


def heard(said: bytes) -> Folded:
    """What a worker found.

    Raises:
        DriftMonitorError: the error that it met.
    """
    if said[:1] == _FOUND:
        return Folded.from_bytes(said[1:])
    kind, text = json.loads(said[1:])
    raise _ERRORS.get(kind, ExecutorError)(text)
