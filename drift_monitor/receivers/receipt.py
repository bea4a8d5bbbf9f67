"""What became of an event that a receiver was sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Tell = Callable[[str], None]
"""Is told of each request and each answer, in a line without secrets."""
Kind = Literal["delivered", "already delivered", "not for it"]


def nobody(_: str) -> None:
    """Listens to nothing."""


@dataclass(frozen=True)
class Receipt:
    """A delivery without an error.

    Attributes:
        kind: whether this attempt did it, an earlier one had, or events of this type are nothing to the receiver.
        run: id of what was started, where the answer has one.
        link: where a person can look at it.
    """

    kind: Kind
    run: str = ""
    link: str = ""

    def __str__(self) -> str:
        """In words, such as `delivered, run drift__1f, https://airflow.example/...`."""
        return ", ".join(filter(None, (self.kind, self.run and f"run {self.run}", self.link)))
