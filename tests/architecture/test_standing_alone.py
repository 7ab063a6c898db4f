"""What must start without installed packages does, and the service starts without torch."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_of(package: str) -> list[str]:
    """Return the dotted names of every module of `package`, but those that are programs."""
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    names = [file.relative_to(ROOT).with_suffix("").as_posix() for file in files]
    return [
        name.removesuffix("/__init__").replace("/", ".")
        for name in names
        if not name.endswith("/__main__")
    ]


def import_bare(folder: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    """Import the modules in a Python without environment, site-packages and working directory."""
    program = (
        "import importlib, json, sys; sys.path.insert(0, sys.argv[1]);"
        "[importlib.import_module(name) for name in json.loads(sys.argv[2])]"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(folder), json.dumps(modules)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("package", ["scheduler.core", "workers.supervisor", "workers.node"])
def test_every_module_starts_in_a_bare_python(package: str) -> None:
    modules = modules_of(package)

    done = import_bare(ROOT, *modules)

    assert len(modules) > 1
    assert done.returncode == 0, done.stderr


def test_the_supervisor_starts_from_a_zip_file(tmp_path: Path) -> None:
    archive = tmp_path / "supervisor.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("workers/__init__.py", "")
        for file in (ROOT / "workers" / "supervisor").rglob("*.py"):
            bundle.write(file, file.relative_to(ROOT))

    done = import_bare(archive, *modules_of("workers.supervisor"))

    assert done.returncode == 0, done.stderr


def test_trainmaster_run_starts_in_a_bare_python() -> None:
    done = import_bare(ROOT / "sdk" / "src", "trainmaster.run")

    assert done.returncode == 0, done.stderr


def test_a_module_that_needs_a_package_does_not_start_in_a_bare_python(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import sqlalchemy")

    done = import_bare(tmp_path, "planted")

    assert "No module named 'sqlalchemy'" in done.stderr


def test_the_service_loads_nothing_that_belongs_in_jobs(tmp_path: Path) -> None:
    done = import_with_traps(tmp_path, "api.app")

    assert done.returncode == 0, done.stderr


def test_loading_what_belongs_in_jobs_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import json\nimport torch")

    done = import_with_traps(tmp_path, "planted")

    assert "torch was loaded" in done.stderr


def import_with_traps(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """Import a module where torch and its companions end the process that loads them."""
    for name in ("torch", "numpy", "sklearn", "safetensors"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was loaded')")
    program = (
        "import importlib, sys; sys.path[:0] = sys.argv[2:]; importlib.import_module(sys.argv[1])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, module, str(folder), str(ROOT)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
