"""What a monitor, a receiver or a part may be called. No I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
