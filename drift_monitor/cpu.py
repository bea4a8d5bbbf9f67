"""What has to be set before numpy is imported, so that it sorts fast on this processor."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "NPY_DISABLE_CPU_FEATURES"
"""Numpy reads it at import: instruction sets that it shall not use, though the processor has them."""
_ZEN_4: Final = {"vendor_id": "AuthenticAMD", "cpu family": "25"}
_ONE_CORE: Final = 1 << 13  # characters: all of one core's description, and not that of a hundred
_LONG_VECTORS: Final = "X86_V4"
"""Numpy's name for AVX-512."""


def choose_vectors(environment: MutableMapping[str, str], described: Path = Path("/proc/cpuinfo")) -> None:
    """Have numpy sort with AVX2 where its AVX-512 is slow: on AMD's Zen 4.

    Sorting is most of what a check computes, and numpy's AVX-512 sort leans on VPCOMPRESS with a destination in
    memory, which these processors run in microcode: 131,072 numbers took 46 ns each, and 13 with AVX2. Other
    processors keep what numpy chooses, and so does whoever has set the variable.

    Args:
        environment: of this process, which its children inherit.
        described: what Linux tells of the processor; a system without this file keeps numpy's choice.
    """
    if VARIABLE in environment:
        return
    try:
        with described.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_ONE_CORE).split("\n\n", 1)[0].splitlines()
    except OSError:
        return
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "avx512vl" in found.get("flags", "").split() and _ZEN_4.items() <= found.items():
        environment[VARIABLE] = _LONG_VECTORS
