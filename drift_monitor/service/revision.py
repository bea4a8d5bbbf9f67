"""The commit that this program was built from, where that is known."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.metadata import distribution

VARIABLE = "DRIFT_MONITOR_REVISION"
"""An image sets it, since its build sees no repository."""


@cache
def revision() -> str:
    """The commit: what the variable says, or what an installer noted (PEP 610); empty when nobody did."""
    if told := os.environ.get(VARIABLE, ""):
        return told
    noted = distribution("drift-monitor").read_text("direct_url.json")
    commit = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id", "")
    return str(commit)
