"""Telling systemd how it goes (sd_notify); outside systemd every call does nothing."""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta

from drift_monitor.service.logs import fields

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send a state such as `READY=1` to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as service_manager:
            service_manager.connect(address)
            service_manager.send(state.encode())
    except OSError as error:  # it may be away for a moment, and the data does not wait for it
        log.warning("systemd cannot be told", extra=fields(state=state, error=error))


def reloading() -> None:
    """Say that a reload begins; `READY=1` ends it."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(limit: timedelta) -> None:
    """Say that the daemon stops, and may take this long before it is killed."""
    notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={limit // timedelta(microseconds=1)}")


def watchdog_seconds() -> float | None:
    """How often to send `WATCHDOG=1`: half of what the unit allows; None when it does not ask."""
    allowed = os.environ.get("WATCHDOG_USEC")
    return int(allowed) / 2e6 if allowed else None
