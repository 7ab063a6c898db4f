"""Export: a checkpoint of a real training becomes one file, on a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Service
from trainmaster import Client
from trainmaster._checkpoint_folder import hash_file
from trainmaster.recipes._tensor_files import read_header

pytestmark = pytest.mark.torch


def test_a_training_is_exported_on_the_command_line(
    service: Service, client: Client, tmp_path: Path
) -> None:
    config = {"epochs": 1, "model": "mlp", "hidden": 16}
    job = client.jobs.submit(recipe="image-classifier", workers=2, config=config)
    client.jobs.wait(job, timeout_seconds=90)
    target = tmp_path / "digits.safetensors"

    ended = subprocess.run(
        [str(Path(sys.executable).with_name("trainmaster")), "export", job.id, "-o", str(target),
         "--dtype", "bf16", "--json"],
        env={
            "PATH": os.environ["PATH"],
            "TRAINMASTER_URL": service.url,
            "TRAINMASTER_DATA_DIR": str(service.folder),
        },
        capture_output=True,
        text=True,
        timeout=90,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    tensors, metadata = read_header(target)
    assert {tensor.dtype for tensor in tensors} == {"BF16"}
    assert sorted(tensor.name for tensor in tensors) == ["1.bias", "1.weight", "4.bias", "4.weight"]
    assert metadata["trainmaster.checkpoint"] == said["job"]["spec"]["resume_from"]
    assert hash_file(target) == said["sha256"]
    assert said["job"]["progress"]["step"] == said["job"]["progress"]["total_steps"]
    (newest,) = client.jobs.checkpoints(job, limit=1).data
    assert said["checkpoint"]["metrics"] == newest.metrics
