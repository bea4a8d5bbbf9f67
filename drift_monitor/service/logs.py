"""Log lines for people and machines: one line an event, `key=value` or JSON, whatever the names contain."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["logfmt", "json"]
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def fields(**values: object) -> dict[str, dict[str, object]]:
    """The `extra` of a log call: what happened goes in the message, to what goes here."""
    return {"fields": values}


def quote(value: object) -> str:
    r"""A value that stays on its line and inside its field.

    Example:
        >>> print(quote("plain"), quote('two words'), quote("new\nline"))
        plain "two words" "new\nline"
    """
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class Formatter(logging.Formatter):
    """Renders a record as one line.

    Args:
        style: `logfmt` or `json`.
    """

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """One line, without a line break in it."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name.partition(".")[0] != "drift_monitor":
            line["logger"] = record.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(line, default=str)
        return " ".join(f"{quote(key)}={quote(value)}" for key, value in line.items())


def set_up(style: LogFormat = "logfmt", level: int = logging.INFO) -> None:
    """Send the log to standard error in the given style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("waitress").setLevel(max(level, logging.WARNING))
    # It warns when a firing falls together with one still at work, which then sees the same windows.
    logging.getLogger("apscheduler").setLevel(max(level, logging.ERROR))
