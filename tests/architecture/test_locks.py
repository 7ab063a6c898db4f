"""The two locks agree, name the public index only, and hold nothing that belongs in jobs."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from workers.node import job_environment

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
LOCKS = ("uv.lock", "requirements.lock")


def uv(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run uv without network, configuration and what it remembers from other runs."""
    return subprocess.run(
        [UV, "--offline", "--no-config", "--no-cache", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def copy_project(folder: Path) -> Path:
    """Copy what uv reads."""
    for name in ("pyproject.toml", "uv.lock", "requirements.lock", "sdk/pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def lock_is_current(folder: Path) -> bool:
    """Return whether uv.lock is what the dependencies in pyproject.toml resolve to."""
    return uv("lock", "--check", folder=folder).returncode == 0


def export(folder: Path) -> str:
    """Return uv.lock as hash-checked requirements, with the same options as `make lock`."""
    options = ("--frozen", "--no-header", "--no-annotate", "--no-emit-local")
    done = uv("export", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lock_answers_the_declared_dependencies(tmp_path: Path) -> None:
    assert lock_is_current(copy_project(tmp_path)), "run `make lock`"


def test_a_dependency_that_is_not_locked_is_noticed(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    declared = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(declared.replace('"alembic', '"attrs",\n  "alembic', 1))

    assert not lock_is_current(project)


def test_requirements_are_the_export_of_the_lock(tmp_path: Path) -> None:
    exported = export(copy_project(tmp_path))

    assert exported == (ROOT / "requirements.lock").read_text(), "run `make lock`"


def test_every_requirement_is_pinned_with_hashes() -> None:
    requirements = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()

    bare = [
        line
        for line in requirements
        if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ]

    assert len(requirements) > 20
    assert not bare


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_name_no_place_but_the_public_index(name: str) -> None:
    text = (ROOT / name).read_text()

    hosts = set(re.findall(r"\w+://([^/\"]+)", text))

    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
    assert not re.search(r"file:|--(extra-)?index|--find-links|trusted-host", text)


def test_no_lock_holds_torch() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    required = re.findall(
        r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )

    names = {package["name"] for package in locked} | set(required)

    assert not {name for name in names if re.match(r"torch|triton|nvidia", name)}


def test_both_environments_build_the_sdk_with_the_same_builder() -> None:
    requirements = (ROOT / "requirements.lock").read_text()

    [builder] = [pin for pin in job_environment.PACKAGES if pin.startswith("hatchling==")]

    assert f"{builder} " in requirements
