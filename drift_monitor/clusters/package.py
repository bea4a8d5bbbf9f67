"""This package as a zip, for workers that have everything it imports but not itself."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import drift_monitor


@contextmanager
def zipped() -> Iterator[Path]:
    """A zip of the package's code, named by its content, for as long as it is needed."""
    root = Path(drift_monitor.__file__).parent
    modules = {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.py"))}
    version = drift_monitor.__version__
    metadata = (
        f"Metadata-Version: 2.1\nName: drift-monitor\nVersion: {version}\n"  # the package asks for its version
    )
    modules[f"drift_monitor-{version}.dist-info/METADATA"] = metadata.encode()
    digest = hashlib.sha256()
    for name, code in modules.items():
        digest.update(f"{name}\0{len(code)}\0".encode() + code)
    with tempfile.TemporaryDirectory(prefix="drift-monitor-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"drift_monitor-{version}-{digest.hexdigest()[:16]}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, code in modules.items():
                archive.writestr(zipfile.ZipInfo(name), code, zipfile.ZIP_DEFLATED)
        yield path
