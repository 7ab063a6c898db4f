"""Pack the supervisor into one zip file that any Python >= 3.9 can start, and name its version."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path

import workers.supervisor

_MAIN = """import sys
from workers.supervisor.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_library(node_dir: Path) -> Path:
    """Write `supervisor-<hash>.zip` into the folder unless it is there; return its path."""
    content = _pack(Path(workers.supervisor.__path__[0]))
    path = node_dir / f"supervisor-{hashlib.sha256(content).hexdigest()[:12]}.zip"
    if not path.exists():
        handle, name = tempfile.mkstemp(prefix=".supervisor-", dir=node_dir)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    return path


def find_preloader_version(library: Path, preloader: Path, job_python: Path) -> str:
    """Return a short hash of what a preloader loads: library, script, interpreter, packages."""
    digest = hashlib.sha256(f"{library.name} {job_python}".encode())
    digest.update(preloader.read_bytes())
    prefix = job_python.parent.parent
    for path in (prefix / "pyvenv.cfg", *sorted(prefix.glob("lib/python3*/site-packages"))):
        if path.exists():
            digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:8]


def _pack(folder: Path) -> bytes:
    """Return the zip: same files, same bytes. Stored, so that no zlib is needed to import."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        archive.writestr(zipfile.ZipInfo("workers/__init__.py", _EPOCH), "")
        archive.writestr(zipfile.ZipInfo("workers/supervisor/__init__.py", _EPOCH), "")
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                name = f"workers/supervisor/{path.name}"
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes())
    return buffer.getvalue()
