"""A client of a Dask scheduler, with this package on its workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from drift_monitor.clusters.package import zipped
from drift_monitor.config.clusters import DaskExecutor
from drift_monitor.core.errors import DriftMonitorError, ExecutorError

_PATIENCE: Final = 10  # seconds for the scheduler to answer, and for it to have a worker
_LONGEST: Final = 600
_PACKAGE: Final = "drift-monitor"
_HINTS: Final = {
    "No module named": "install it on the workers: they need numpy, pyarrow and pydantic, and pandas where "
    "`columns.id` is text",
    "KilledWorker": "workers died in the middle of it, most often of too little memory: give them more, or fewer "
    "threads each",
    "workers arrived": "start workers there",
}
_ELSE: Final = "see that the scheduler is up and can be reached from here, then let the check run again"


@contextmanager
def client(config: DaskExecutor) -> Iterator[tuple[Any, Any]]:
    """A client, and the library it is of; both are for the time of a check.

    Raises:
        ExecutorError: there is no scheduler, it has no worker, or something goes wrong while the client is used.
        SourceError: the library is missing.
    """
    from drift_monitor.sources.extras import load  # noqa: PLC0415 - sources import this room

    library = load("distributed", "dask")
    try:
        with library.Client(config.address, timeout=_PATIENCE, set_as_default=False) as found:
            found.wait_for_workers(1, timeout=_PATIENCE)
            _give_package(found, library)
            yield found, library
    except (DriftMonitorError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
        hint = next((hint for word, hint in _HINTS.items() if word in said), _ELSE)
        raise ExecutorError(f"Dask at {config.address}: {said}: {hint}") from error


def _give_package(client: Any, library: Any) -> None:
    """Put the package on all workers, also on those that come later; once a scheduler and version of the code."""
    with zipped() as package:
        place = [_PACKAGE, package.stem]
        if client.get_metadata(place, default=None) is None:
            upload = library.diagnostics.plugin.UploadFile(str(package))
            client.register_plugin(upload, name=_PACKAGE)
            client.set_metadata(place, value=True)
