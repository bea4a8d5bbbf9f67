"""What a promise about false alerts rests on, in the words that people see."""

from __future__ import annotations

from typing import Final

from drift_monitor.core.types import Basis

LABELS: Final[dict[Basis, str]] = {
    "calibrated": "calibrated",
    "extrapolated": "extrapolated",
    "independent_rows": "assumes independent rows",
    "none": "no promise",
}
