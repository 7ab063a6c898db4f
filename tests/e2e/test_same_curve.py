"""The same script gives the same losses, bit for bit, on the service and off it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.services import JOB_PYTHON, SCRIPTS, make_bundle
from trainmaster import Client

pytestmark = pytest.mark.torch

SCRIPT = "curve.py"
STEPS = 30
LIMIT_S = 120.0

Curve = list[float]


def train_on_the_service(
    client: Client, folder: Path, workers: int, sync: Mapping[str, Any]
) -> tuple[Curve, str]:
    """Return each loss, and the SHA-256 of the weights."""
    code = make_bundle(folder / "code", SCRIPT)
    job = client.jobs.submit(code=code, entrypoint=SCRIPT, workers=workers, sync=dict(sync))
    client.jobs.wait(job, timeout_seconds=LIMIT_S)
    series = client.jobs.metrics.series(job, "loss")
    assert series.steps == list(range(1, STEPS + 1))
    newest = next(iter(client.jobs.checkpoints(job)))
    hashes = {file.path: file.sha256 for file in client.checkpoints.files(newest)}
    return list(series.values), hashes["model.safetensors"]


def train_off_it(folder: Path, command: list[str], sync: Mapping[str, Any]) -> tuple[Curve, str]:
    """Return the same of a run with a command, in a folder of its own."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"sync": dict(sync)}))
    done = subprocess.run(
        [*command, str(SCRIPTS / SCRIPT)],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",  # as many as the service gives to a worker with one CPU
            "GLOO_SOCKET_IFNAME": "lo",
            "TRAINMASTER_RUN": str(folder / "run.json"),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (records,) = folder.glob("trainmaster-runs/*")
    lines = [json.loads(line) for line in (records / "metrics.jsonl").read_text().splitlines()]
    losses = [line["values"]["loss"] for line in lines if "loss" in line["values"]]
    (manifest,) = records.glob("checkpoints/ready-*/manifest.json")
    files = {each["path"]: each["sha256"] for each in json.loads(manifest.read_text())["files"]}
    return losses, files["model.safetensors"]


def torchrun(workers: int) -> list[str]:
    """Return the command that starts so many workers."""
    return [
        str(JOB_PYTHON.with_name("torchrun")),
        "--standalone",
        f"--nproc-per-node={workers}",
    ]


@pytest.mark.parametrize(
    "sync",
    [
        pytest.param({}, id="allreduce"),
        pytest.param({"mode": "local_sgd", "every": 4, "compression": "int8"}, id="local_sgd"),
    ],
)
def test_two_workers_compute_the_same_under_the_service_and_under_torchrun(
    client: Client, tmp_path: Path, sync: dict[str, Any]
) -> None:
    ours = train_on_the_service(client, tmp_path, 2, sync)

    theirs = train_off_it(tmp_path / "torchrun", torchrun(2), sync)

    assert len(ours[0]) == STEPS
    assert theirs == ours


def test_one_worker_computes_the_same_under_the_service_torchrun_and_plain_python(
    client: Client, tmp_path: Path
) -> None:
    ours = train_on_the_service(client, tmp_path, 1, {})

    assert train_off_it(tmp_path / "torchrun", torchrun(1), {}) == ours
    assert train_off_it(tmp_path / "python", [str(JOB_PYTHON)], {}) == ours
