"""The import contracts in pyproject.toml: each catches what it forbids and allows what it should.

The contracts are tried on a small tree of empty modules with one planted import, so that what
they say is tested apart from the code they guard. `make check` runs them on the code itself.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

MODULES = (
    "api/__main__.py",
    "api/app.py",
    "api/demo/story.py",
    "api/jobs/service.py",
    "api/roles/serve.py",
    "api/settings.py",
    "models/database.py",
    "models/job.py",
    "scheduler/core/spec.py",
    "scheduler/core/step.py",
    "scheduler/shell/loop.py",
    "scheduler/sim/driver.py",
    "trainmaster/client.py",
    "trainmaster/run.py",
    "trainmaster/train/loop.py",
    "workers/node/daemon.py",
    "workers/supervisor/ranks.py",
)
ALLOWED = {
    "api/__main__.py": "from api import settings\nfrom api.roles import serve",
    "api/demo/story.py": "import trainmaster.client\nfrom api.roles import serve",
    "api/jobs/service.py": "from models import job\nfrom scheduler.core import spec",
    "api/roles/serve.py": "from api import app, settings\nfrom scheduler.shell import loop\n"
    "from workers.node import daemon",
    "models/job.py": "import sqlalchemy\nfrom scheduler.core import spec",
    "scheduler/shell/loop.py": "from models import database, job\nfrom scheduler.core import step",
    "scheduler/sim/driver.py": "import heapq\nfrom scheduler.core import step",
    "trainmaster/client.py": "import httpx",
    "trainmaster/train/loop.py": "import torch\nfrom trainmaster import run",
    "workers/node/daemon.py": "from workers.supervisor import ranks",
}
PLANTED = [
    ("layers", "models/job.py", "from scheduler.shell import loop"),
    ("layers", "scheduler/core/step.py", "from models import job"),
    ("layers", "scheduler/shell/loop.py", "from api import app"),
    ("http", "api/jobs/service.py", "from scheduler.shell import loop"),
    ("http", "api/jobs/service.py", "from workers.node import daemon"),
    ("http", "api/app.py", "import torch"),
    ("core", "scheduler/core/step.py", "import sqlalchemy"),
    ("core", "scheduler/core/spec.py", "import pydantic"),
    ("core", "scheduler/core/step.py", "from scheduler.sim import driver"),
    ("models", "models/job.py", "import fastapi"),
    ("models", "models/job.py", "import trainmaster.client"),
    ("shell", "scheduler/shell/loop.py", "import starlette"),
    ("sim", "scheduler/sim/driver.py", "from models import job"),
    ("sim", "scheduler/sim/driver.py", "from scheduler.shell import loop"),
    ("sim", "scheduler/sim/driver.py", "import numpy"),
    ("node", "workers/node/daemon.py", "from models import job"),
    ("node", "workers/supervisor/ranks.py", "import httpx"),
    ("node", "workers/supervisor/ranks.py", "from scheduler.core import spec"),
    ("supervisor", "workers/supervisor/ranks.py", "from workers.node import daemon"),
    ("sdk", "api/jobs/service.py", "from trainmaster import client"),
    ("sdk", "scheduler/shell/loop.py", "import trainmaster.run"),
    ("sdk-alone", "trainmaster/client.py", "from scheduler.core import spec"),
    ("run", "trainmaster/run.py", "from trainmaster import client"),
    ("in-job", "trainmaster/train/loop.py", "from trainmaster import client"),
    ("root", "api/jobs/service.py", "from api.roles import serve"),
    ("settings", "api/jobs/service.py", "from api.settings import Settings"),
]


def test_what_the_tree_needs_is_allowed(tmp_path: Path) -> None:
    plant_tree(tmp_path, ALLOWED)

    kept, output = lint(tmp_path)

    assert kept, output


@pytest.mark.parametrize(("contract", "path", "line"), PLANTED)
def test_each_contract_catches_a_planted_import(
    tmp_path: Path, contract: str, path: str, line: str
) -> None:
    plant_tree(tmp_path, ALLOWED | {path: f"{ALLOWED.get(path, '')}\n{line}\n"})

    kept, output = lint(tmp_path, contract)

    assert not kept, output
    assert "BROKEN" in output


def test_every_contract_has_a_planted_violation() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

    contracts = {contract["id"] for contract in settings["contracts"]}

    assert contracts == {contract for contract, _, _ in PLANTED}


def plant_tree(folder: Path, contents: dict[str, str]) -> None:
    """Write the small tree, and the project's settings beside it."""
    for module in MODULES:
        path = folder / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get(module, ""), encoding="utf-8")
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", folder)


def lint(folder: Path, *contracts: str) -> tuple[bool, str]:
    """Return whether the contracts (all by default) are kept, and what the linter says."""
    chosen = [word for contract in contracts for word in ("--contract", contract)]
    # The tree's own trainmaster, not the installed one.
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache", *chosen],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode == 0, done.stdout + done.stderr
