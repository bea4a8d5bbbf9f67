"""Watch live data drift away from the data a model was trained on, and act on it."""

from importlib.metadata import version

__version__ = version("drift-monitor")
