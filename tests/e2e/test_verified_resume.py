"""Verified resume, on real processes: trained, killed, resumed, compared."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, parse_blocks
from tests.docs.sessions import prints_as_shown
from tests.services import Service, running_service, wait_for
from trainmaster import Client
from trainmaster.documents import Verification

pytestmark = pytest.mark.torch

DIGITS = {"epochs": 2, "model": "mlp", "hidden": 16}
LIMIT_S = 180
SCRIPT = """
import torch
from torch import nn

from trainmaster import train

with train.start(seed=3, defaults={"epochs": 2}) as run:
    x_all = torch.randn(192, 8, generator=torch.Generator().manual_seed(0))
    y_all = (x_all.sum(1) > 0).long()
    net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 2))
    model = run.model(net)
    optimizer = run.optimizer(torch.optim.Adam(model.parameters(), lr=0.002))
    for step, (x, y) in run.steps((x_all, y_all), batch_size=16, epochs=run.config["epochs"]):
        loss = nn.functional.cross_entropy(model(x), y)
        run.backward(loss)
        optimizer.step()
        run.log(loss=loss)
"""
FORGETFUL = {
    "the optimizer": SCRIPT.replace(
        "run.optimizer(torch.optim.Adam(model.parameters(), lr=0.002))",
        "torch.optim.Adam(model.parameters(), lr=0.002)",
    ).replace("        loss = nn", "        optimizer.zero_grad()\n        loss = nn"),
    "the random numbers": "import torch\nfrom trainmaster.train import randomness\n"
    "randomness.restore = lambda *_: None\n" + SCRIPT,
}

FOREIGN = """
import json
import time

from trainmaster.run import current_run

run = current_run(defaults={"steps": 30, "seconds": 0.01, "resumes": True, "saves": True})
state = {"step": 0, "weight": 0.0}
checkpoint = run.latest_checkpoint()
if checkpoint and run.config["resumes"]:
    state = json.loads((checkpoint.path / "state.json").read_text())


def save():
    folder = run.checkpoint_dir()
    (folder / "state.json").write_text(json.dumps(state))
    run.commit_checkpoint(folder, state["step"], loss=(state["weight"] - 3) ** 2)


while state["step"] < run.config["steps"]:
    time.sleep(run.config["seconds"])
    state["weight"] -= 0.2 * (state["weight"] - 3)
    state["step"] += 1
    run.log(state["step"], loss=(state["weight"] - 3) ** 2)
    if run.config["saves"] and run.checkpoint_requested():
        save()
save()
"""
WEIGHTS = """
import torch
from safetensors.torch import load_file, save_file

from trainmaster.run import current_run

run = current_run()
torch.manual_seed(0)
net = torch.nn.Linear(4, 1)
step, checkpoint = 0, run.latest_checkpoint()
if checkpoint:
    net.load_state_dict(load_file(checkpoint.path / "model.safetensors"))
    step = checkpoint.step
optimizer = torch.optim.Adam(net.parameters(), lr=0.1)


def save():
    folder = run.checkpoint_dir()
    save_file(net.state_dict(), folder / "model.safetensors")
    run.commit_checkpoint(folder, step)


while step < 20:
    optimizer.zero_grad()
    net(torch.ones(1, 4)).sum().square().backward()
    optimizer.step()
    step += 1
    run.log(step, loss=1.0)
    if run.checkpoint_requested():
        save()
save()
"""


def verify(client: Client, **spec: Any) -> Verification:
    """Ask, and wait for the verdict."""
    options = {name: spec.pop(name) for name in ("seed", "tolerance") if name in spec}
    asked = client.jobs.verify_resume(spec, **options)
    return client.verifications.wait(asked, timeout_seconds=LIMIT_S)


def write_script(folder: Path, text: str) -> Path:
    """Return a code folder with this script as its train.py."""
    folder.mkdir()
    (folder / "train.py").write_text(text)
    return folder


def test_the_image_classifier_resumes_exactly_over_two_workers(client: Client) -> None:
    found = verify(client, recipe="image-classifier", workers=2, config=DIGITS, seed=5)

    assert (found.verdict, found.reason) == ("exact", "SameFiles"), found.message
    compared = found.comparison
    assert compared is not None
    assert compared["num_files"] == compared["num_files_same"] == 3
    assert 0 < compared["resumed_from_step"] < compared["interrupted"]["step"]
    first, second = client.jobs.attempts(found.interrupted_job_id or "")
    assert [first.reason, second.reason] == ["KilledToVerify", None]
    assert "on purpose: to verify that the job resumes" in (first.message or "")
    again = client.jobs.submit(recipe="image-classifier", workers=2, config=DIGITS, hold=True)
    assert again.resume is not None
    assert (again.resume.verdict, again.resume.verification_id) == ("exact", found.id)
    other = client.jobs.submit(recipe="image-classifier", workers=1, config=DIGITS, hold=True)
    assert other.resume is not None
    assert (other.resume.verdict, other.resume.reason) == ("unknown", "NotVerified")
    for job in (again, other):
        client.jobs.cancel(job)


def test_a_script_on_the_library_resumes_exactly(client: Client, tmp_path: Path) -> None:
    code = write_script(tmp_path / "code", SCRIPT)

    found = verify(client, code=code, entrypoint="train.py", workers=2)

    assert found.verdict == "exact", found.message


@pytest.mark.parametrize("forgotten", list(FORGETFUL))
def test_a_script_that_forgets_something_is_not_exact(
    client: Client, tmp_path: Path, forgotten: str
) -> None:
    code = write_script(tmp_path / "code", FORGETFUL[forgotten])

    found = verify(client, code=code, entrypoint="train.py", tolerance=0.5)

    assert (found.verdict, found.reason) == ("equivalent", "MetricsAgree"), found.message
    assert found.comparison is not None
    assert found.comparison["num_files_same"] < found.comparison["num_files"]


@pytest.mark.parametrize(
    ("config", "verdict", "reason"),
    [
        pytest.param({}, "exact", "SameFiles", id="it resumes"),
        pytest.param({"resumes": False}, "unknown", "StartedAgain", id="it begins anew"),
        pytest.param({"saves": False}, "unknown", "NotInterrupted", id="it saves at the end alone"),
    ],
)
def test_a_script_without_a_framework_is_told_what_it_does(
    client: Client, tmp_path: Path, config: dict[str, Any], verdict: str, reason: str
) -> None:
    code = write_script(tmp_path / "code", FOREIGN)

    found = verify(client, code=code, entrypoint="train.py", config=config)

    assert (found.verdict, found.reason) == (verdict, reason), found.message


def test_a_script_that_saves_weights_alone_is_told_so(client: Client, tmp_path: Path) -> None:
    code = write_script(tmp_path / "code", WEIGHTS)

    found = verify(client, code=code, entrypoint="train.py", seed=3)

    assert (found.verdict, found.reason) == ("weights-only", "OnlyWeights"), found.message


def test_two_at_once_survive_two_deaths_of_the_service(tmp_path: Path) -> None:
    code = write_script(tmp_path / "code", FOREIGN)
    with running_service(tmp_path / "service") as service, service.client() as client:
        asked = [
            client.jobs.verify_resume(
                code=code, entrypoint="train.py", config={"steps": steps, "seconds": 0.05}
            )
            for steps in (60, 61)
        ]
        _wait_until_running(client, asked[0].reference_job_id)
        service.kill()
        service.start()
        second = wait_for(
            "the job that is killed",
            lambda: client.verifications.get(asked[0]).interrupted_job_id,
            within_s=LIMIT_S,
        )
        _wait_until_running(client, second)
        service.kill()
        service.start()
        found = [client.verifications.wait(each, timeout_seconds=LIMIT_S) for each in asked]
        jobs = list(client.jobs.list())

    verdicts = [each.verdict for each in found]
    assert verdicts == ["exact", "exact"], [each.message for each in found]
    assert len(jobs) == 4


def _wait_until_running(client: Client, job_id: str) -> None:
    wait_for(
        "the job to run",
        lambda: client.jobs.get(job_id).state in {"running", "finalizing", "succeeded"},
        within_s=LIMIT_S,
    )


def test_the_command_shows_the_verdict(service: Service, tmp_path: Path) -> None:
    page = "docs/verified-resume.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    (step,) = [step for block in parse_blocks(page, text) for step in block.steps]

    ended = subprocess.run(
        [Path(sys.executable).with_name("trainmaster"), *shlex.split(step.command)[1:]],
        env={
            "PATH": os.environ["PATH"],
            "TRAINMASTER_URL": service.url,
            "TRAINMASTER_DATA_DIR": str(service.folder),
        },
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )

    assert ended.returncode == 0, ended.stdout
    assert prints_as_shown(step.output, ended.stdout), ended.stdout
