"""References on disk: immutable, content-hashed summaries of the data that a model was trained on."""

from drift_monitor.reference.build import build_reference
from drift_monitor.reference.manifest import Manifest
from drift_monitor.reference.version import Reference, list_references, open_reference

__all__ = ["Manifest", "Reference", "build_reference", "list_references", "open_reference"]
