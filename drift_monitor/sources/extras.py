"""Libraries that only some sources need, imported when such a source is opened."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from drift_monitor.core.errors import SourceError


def load(module: str, extra: str) -> Any:
    """A module of an extra.

    Raises:
        SourceError: it is not installed; the message has the command that installs it.

    Example:
        >>> load("no_such_module", "sql")
        Traceback (most recent call last):
        drift_monitor.core.errors.SourceError: this monitor needs no_such_module: pip install 'drift-monitor[sql]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = module if (error.name or module) in (module, module.partition(".")[0]) else f"{module} ({error})"
        raise SourceError(f"this monitor needs {missing}: pip install 'drift-monitor[{extra}]'") from error
