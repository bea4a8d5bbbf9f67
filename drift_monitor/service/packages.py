"""The versions that a result was computed with."""

from __future__ import annotations

import platform


def versions() -> dict[str, str]:
    """Of this package, Python, and what computes the numbers."""
    import numpy  # noqa: ICN001, PLC0415
    import pyarrow  # noqa: ICN001, PLC0415
    import scipy  # noqa: PLC0415

    from drift_monitor import __version__  # noqa: PLC0415

    return {
        "drift-monitor": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "scipy": scipy.__version__,
    }
