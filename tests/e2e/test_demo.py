"""The first command of the README, as a script uses it and as a person does."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.services import JOB_PYTHON, ROOT, Service, free_port, wait_for

pytestmark = pytest.mark.torch

FIELDS = {
    "job_id", "state", "accuracy", "checkpoint_url", "checkpoint_sha256", "first_step_seconds",
    "total_seconds",
}  # fmt: skip


def _run_demo(folder: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TRAINMASTER_DATA_DIR": str(folder / "data"),
        "TRAINMASTER_BIND": f"127.0.0.1:{port}",
        "TRAINMASTER_JOB_PYTHON": str(JOB_PYTHON),
    }
    return subprocess.run(
        [sys.executable, "-m", "api", "demo", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_demo_does_all_that_it_says(tmp_path: Path) -> None:
    port = free_port()

    done = _run_demo(tmp_path, port, "--json")

    service = Service(tmp_path / "data")
    try:
        assert done.returncode == 0, done.stderr
        story = json.loads(done.stdout.splitlines()[-1])
        assert set(story) == FIELDS
        assert story["state"] == "succeeded"
        assert story["accuracy"] >= 0.96
        assert 0 < story["first_step_seconds"] < story["total_seconds"]
        assert f'curl -fH "Authorization: Bearer $(cat {service.folder}/admin.key)"' in done.stderr
        key = (service.folder / "admin.key").read_text().strip()
        request = urllib.request.Request(
            story["checkpoint_url"], headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            digest = hashlib.sha256(response.read()).hexdigest()
        assert digest == story["checkpoint_sha256"]

        again = _run_demo(tmp_path, port, "--json", "--exit")
        assert "using the service" in again.stderr
        assert again.returncode == 0
        pid = int(done.stderr.rpartition("end it with: kill ")[2])
        os.kill(pid, signal.SIGTERM)
        wait_for("the service to end", lambda: not Path(f"/proc/{pid}").exists())
    finally:
        service.stop()


def test_a_demo_that_is_told_to_exit_leaves_nothing_running(tmp_path: Path) -> None:
    done = _run_demo(tmp_path, free_port(), "--exit", "--json")

    service = Service(tmp_path / "data")
    try:
        assert done.returncode == 0, done.stderr
        wait_for("every process to be gone", lambda: not service.pids())
    finally:
        service.stop()


def test_a_demo_that_cannot_listen_says_what_to_do(tmp_path: Path) -> None:
    done = _run_demo(tmp_path, 1_000_000, "--exit", "--json")

    assert done.returncode != 0
    assert "TRAINMASTER_BIND" in done.stderr
    assert "Traceback" not in done.stderr
