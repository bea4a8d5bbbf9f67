"""SplitMix64: whole numbers that look random and are the same on every machine."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014).

    Example (the first number of the generator that begins at 0, as published with it):
        >>> hex(int(mixed(np.array([GOLDEN]))[0]))
        '0xe220a8397b1dcdaf'
    """
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
