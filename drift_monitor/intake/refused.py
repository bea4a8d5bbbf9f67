"""What is wrong with rows that are not taken, for whoever sent them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Literal

_LONGEST: Final = 100
Reason = Literal["too_large", "type", "unfit", "queue_full", "unavailable", "unjoined"]
REASONS: Final[tuple[Reason, ...]] = ("too_large", "type", "unfit", "queue_full", "unavailable", "unjoined")


class RefusedError(Exception):
    """Rows are not taken: none of those sent together.

    Args:
        message: what is wrong and what to do.
        row: its number, from 1; for JSON Lines that of the line.
        field: the column.
        value: what stands there.
    """

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    reason: Reason = "unfit"

    def __init__(
        self, message: str, row: int | None = None, field: str | None = None, value: object = None
    ) -> None:
        self.row, self.field = row, None if field is None else cut(field)
        self.value = None if value is None else cut(value if isinstance(value, str) else repr(value))
        where = ", ".join(
            text
            for text in (
                f"row {row}" if row is not None else "",
                f"field {self.field!a}" if field is not None else "",
            )
            if text
        )
        super().__init__(f"{where}: {message}" if where else message)

    def told(self) -> dict[str, object]:
        """For an answer."""
        details = {"row": self.row, "field": self.field, "value": self.value}
        return {"error": str(self), **{name: value for name, value in details.items() if value is not None}}


class TooLargeError(RefusedError):
    """It takes more memory than there is for one request."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    reason = "too_large"


class TypeRefusedError(RefusedError):
    """It is not of a type that can be read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    reason = "type"


def cut(text: str) -> str:
    """The start of a text that may be long, without what no JSON may hold."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
