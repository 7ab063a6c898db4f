"""The three ways to bring training to the service, and what user code can see of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.services import Ledger, Service, make_bundle
from trainmaster import Client

pytestmark = pytest.mark.torch


def _text(client: Client, job_id: str, rank: int) -> str:
    return client.jobs.logs.text(job_id, rank=rank, stream="stdout")


def test_a_recipe_trains_two_workers_and_leaves_a_verified_checkpoint(
    client: Client, tmp_path: Path
) -> None:
    job = client.jobs.submit(recipe="image-classifier", workers=2, config={"epochs": 6})

    done = client.jobs.wait(job, timeout_seconds=120)

    assert done.state == "succeeded"
    newest = next(iter(client.jobs.checkpoints(job)))
    folder = client.checkpoints.download(newest, tmp_path / "checkpoint")
    for file in client.checkpoints.files(newest):
        digest = hashlib.sha256((folder / file.path).read_bytes()).hexdigest()
        assert digest == file.sha256
    assert client.jobs.metrics.series(job, "test/accuracy").values[-1] > 0.9


def test_a_bundle_on_the_library_trains_data_parallel(client: Client, tmp_path: Path) -> None:
    code = make_bundle(tmp_path / "code", "train.py")
    job = client.jobs.submit(code=code, entrypoint="train.py", workers=2, config={"epochs": 3})

    done = client.jobs.wait(job, timeout_seconds=120)

    assert done.state == "succeeded", done.message
    series = client.jobs.metrics.series(job, "loss")
    assert series.steps == list(range(1, 13))
    assert series.values[-1] < series.values[0]
    assert done.progress is not None
    assert (done.progress.step, done.progress.total_steps) == (12, 12)


def test_a_foreign_script_meets_its_peers_by_the_standard_variables(
    client: Client, tmp_path: Path
) -> None:
    code = make_bundle(tmp_path / "code", "foreign.py")
    job = client.jobs.submit(code=code, entrypoint="foreign.py", workers=2)

    done = client.jobs.wait(job, timeout_seconds=120)

    assert done.state == "succeeded", done.message
    assert "rank 0 of 2: sum 3" in _text(client, job.id, 0)
    assert "rank 1 of 2: sum 3" in _text(client, job.id, 1)


@pytest.mark.parametrize(
    "environment", [{}, {"requirements": ["six==1.17.0"]}], ids=["fork", "exec"]
)
def test_user_code_finds_its_own_modules_and_nothing_of_the_service(
    client: Client, service: Service, tmp_path: Path, environment: dict[str, object]
) -> None:
    code = make_bundle(tmp_path / "code", "nosy.py")
    for path in (
        "api/__init__.py",
        "models/net.py",
        "workers/supervisor.py",
        "scheduler/core.py",
        "logging.py",
    ):
        (code / path).parent.mkdir(exist_ok=True)
        (code / path).write_text(f"OWN = {path!r}\n")
    key = (service.folder / "admin.key").read_text().strip()
    job = client.jobs.submit(
        code=code, entrypoint="nosy.py", env={"MINE": "yes"}, environment=environment
    )

    done = client.jobs.wait(job, timeout_seconds=180)
    text = _text(client, job.id, 0)

    assert done.state == "succeeded", (done.message, text)
    assert (
        "own logging.py api/__init__.py models/net.py scheduler/core.py workers/supervisor.py"
        in text
    )
    shown = json.loads(re.search(r"^environment (.*)$", text, re.MULTILINE).group(1))  # type: ignore[union-attr]  # printed above
    assert shown["MINE"] == "yes"
    ours = [name for name in shown if name.startswith("TRAINMASTER_")]
    assert ours == ["TRAINMASTER_RUN"]
    for secret in (key, "tml-", "tmn-", "tma-", service.url, "DATABASE_URL", "admin.key"):
        assert secret not in text
    root = str(Path(__file__).resolve().parents[2])
    paths = json.loads(re.search(r"^path (.*)$", text, re.MULTILINE).group(1))  # type: ignore[union-attr]  # printed above
    assert root not in paths


def test_the_steps_are_done_once_each_and_all_of_them_arrive(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    config = {"ledger": str(ledger.path), "steps": 50, "step_seconds": 0.002}
    job = client.jobs.submit(code=bundle, entrypoint="ledger.py", config=config)

    done = client.jobs.wait(job, timeout_seconds=60)

    assert done.state == "succeeded", done.message
    assert ledger.steps() == list(range(1, 51))
    series = client.jobs.metrics.series(job, "loss")
    assert series.steps == list(range(1, 51))
    assert series.values == [1.0 / step for step in range(1, 51)]
    want = "".join(f"attempt 1 step {step}\n" for step in range(1, 51))
    assert _text(client, job.id, 0) == want


def test_a_script_that_fails_says_so_with_its_last_line(client: Client, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "bad.py").write_text("raise ValueError('the data has 3 columns, want 4')\n")
    job = client.jobs.submit(code=code, entrypoint="bad.py", workers=2)

    done = client.jobs.wait(job, timeout_seconds=60, raise_on_failure=False)

    assert (done.state, done.reason) == ("failed", "UserCodeError")
    assert "ValueError: the data has 3 columns, want 4" in (done.message or "")


def test_a_missing_entrypoint_says_what_the_bundle_has(client: Client, tmp_path: Path) -> None:
    code = make_bundle(tmp_path / "code", "ledger.py")
    job = client.jobs.submit(code=code, entrypoint="main.py")

    done = client.jobs.wait(job, timeout_seconds=60, raise_on_failure=False)

    assert done.state == "failed"
    assert "main.py" in (done.message or "")
