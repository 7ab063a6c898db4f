"""What docs/simulator.md shows works, and what it says about figures and policies is complete."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.sim.metrics import Metrics
from scheduler.sim.policies import POLICIES
from scheduler.sim.trace import read_trace
from tests.docs.pages import Block, parse_blocks
from tests.sim.traces import cluster_of, job

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
# As `sacct` prints it: a job, one without GPUs, one that never ran, one without a limit, one that
# was cancelled before it was eligible.
SACCT = """\
#!/bin/sh
echo "$SLURM_TIME_FORMAT $*" > asked
cat <<'END'
71|1925000000|billing=32,cpu=32,gres/gpu=16,gres/gpu:a100=16,mem=512G,node=2|5400|vision|1440
72|1925000001|billing=4,cpu=4,mem=8G,node=1|60|vision|10
73|1925000002|billing=4,cpu=4,gres/gpu=1,mem=8G,node=1|0|speech|10
74|1925000003|billing=4,cpu=4,gres/gpu=1,mem=8G,node=1|7|speech|UNLIMITED
75|Unknown|cpu=4,gres/gpu=1|7|speech|5
END
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder from which the commands of the page work."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    return tmp_path


def run(script: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def find_block(test: str) -> Block:
    [block] = [
        block
        for block in parse_blocks("docs/simulator.md", PAGE)
        if block.tested_in is not None and block.tested_in[1] == test
    ]
    return block


def test_the_commands_of_the_page_work(folder: Path) -> None:
    steps = find_block("test_the_commands_of_the_page_work").steps

    # Fewer jobs than on the page: it is the commands that are tried.
    make, compare, one = [step.command.replace("--jobs 1000", "--jobs 200") for step in steps]
    run(make, folder)
    table = run(compare, folder)
    document = run(one, folder)

    assert [line.split()[0] for line in table.splitlines()[1:]] == list(POLICIES)
    assert '"policy": "trainmaster"' in document


def test_a_slurm_log_becomes_a_trace(folder: Path) -> None:
    script = find_block("test_a_slurm_log_becomes_a_trace").text
    sacct = folder / "sacct"
    sacct.write_text(SACCT, encoding="utf-8")
    sacct.chmod(0o755)

    run(script, folder, PATH=f"{folder}:{os.environ['PATH']}")

    assert (folder / "asked").read_text(encoding="utf-8").startswith("%s --allusers")
    assert read_trace(folder / "slurm.csv", cluster_of(2)) == (
        job("71", 1_925_000_000, 16, 5400, vc="vision", limit_s=86_400),
        job("74", 1_925_000_003, 1, 7, vc="speech"),
    )


def test_the_page_explains_every_figure_and_every_policy() -> None:
    cells = set(re.findall(r"`([a-z0-9_]+)`", PAGE))

    assert {field.name for field in dataclasses.fields(Metrics)} <= cells
    assert set(POLICIES) <= cells
