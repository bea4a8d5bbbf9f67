"""Errors whose text is meant for the person who has to act on them.

Each says what is wrong, where, and with which value. `cli.py` alone turns them into exit codes.
"""

from __future__ import annotations

from datetime import timedelta


class DriftMonitorError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(DriftMonitorError):
    """The configuration cannot be used; holds every problem found, not just the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SourceError(DriftMonitorError):
    """The live data could not be read."""


class ExecutorError(SourceError):
    """The cluster that was to read the live data did not."""


class SchemaError(DriftMonitorError):
    """The live data was read but does not have the columns or types that the reference has."""


class BadReferenceError(DriftMonitorError):
    """A reference is missing, damaged or cannot be built."""


class StoreError(DriftMonitorError):
    """The state database cannot be used."""


class DamagedError(StoreError):
    """What was kept is not what was written."""


class DeliveryError(DriftMonitorError):
    """A message did not arrive.

    Attributes:
        reason: a short label for metrics: timeout, connect, tls, blocked, protocol, status_4xx, status_5xx,
            redirect, refused (a 2xx that says no), gone (the receiver wants no more messages), config or internal.
        retry_after: how long the receiver asked to wait.
        uncertain: whether the receiver may have taken it all the same: the request went out, and the answer, if
            there was one, does not say.
    """

    def __init__(
        self, message: str, reason: str, retry_after: timedelta | None = None, *, uncertain: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        self.uncertain = uncertain
