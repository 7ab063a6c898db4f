"""Jobs that hang, diverge or lag, told by the service as a user hears it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import wait_for
from trainmaster import Client

pytestmark = pytest.mark.torch

# Rank 1 goes to sleep instead of into the backward pass of step 4, in the first attempt only.
_HANGS = """
import time

import torch
from torch.nn import functional

from trainmaster import train


def look_something_up():
    time.sleep(1000)


with train.start() as run:
    model = run.model(torch.nn.Linear(4, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    for step, (x,) in run.steps((torch.ones(64, 4),), batch_size=8):
        if step == 4 and run.rank == 1 and run._run.description["attempt_number"] == 1:
            look_something_up()
        run.backward(functional.mse_loss(model(x), torch.zeros(len(x), 1)))
        optimizer.step()
"""

_LAGS = """
import time

import torch
from torch.nn import functional

from trainmaster import train


class Samples:
    def __len__(self):
        return 100_000

    def __getitem__(self, number):
        if run.rank == 1:
            time.sleep(0.02)
        return torch.ones(4)


with train.start() as run:
    model = run.model(torch.nn.Linear(4, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    for step, x in run.steps(Samples(), batch_size=4):
        run.backward(functional.mse_loss(model(x), torch.zeros(len(x), 1)))
        optimizer.step()
"""


def _bundle(folder: Path, code: str) -> Path:
    folder.mkdir()
    (folder / "train.py").write_text(code)
    return folder


def test_a_rank_that_never_enters_the_collective_is_named_and_the_job_goes_on_without_it_hanging(
    client: Client, tmp_path: Path
) -> None:
    job = client.jobs.submit(
        code=_bundle(tmp_path / "code", _HANGS),
        entrypoint="train.py",
        workers=2,
        health={"stall_seconds": 2},
        retry={"backoff_seconds": 0},
    )

    done = client.jobs.wait(job, timeout_seconds=90)

    assert done.state == "succeeded"
    events = list(client.jobs.events.list(job))
    (stalled,) = [event for event in events if event.type == "attempt.stalled"]
    assert "rank 1 is missing from the collective in which rank 0 waits" in (stalled.message or "")
    assert "look_something_up (train.py, line 11)" in (stalled.message or "")
    stacks = {rank: one["stack"] for one in stalled.data["stacks"] for rank in one["ranks"]}
    assert "train.py:11 in look_something_up" in stacks[1]
    assert "_engine_run_backward" in stacks[0]
    assert [event.reason for event in events if event.type == "job.pending"][-1] == "RetryBackoff"


def test_the_rank_that_the_others_wait_for_is_named_while_the_job_runs(
    client: Client, tmp_path: Path
) -> None:
    code = _bundle(tmp_path / "code", _LAGS)
    job = client.jobs.submit(code=code, entrypoint="train.py", workers=2)

    def find_slow() -> str | None:
        ranks = client.jobs.explain(job).ranks
        return ranks.message if ranks is not None and ranks.slow_rank is not None else None

    message = wait_for("a slow rank", find_slow, within_s=60)
    client.jobs.cancel(job)
    client.jobs.wait(job, timeout_seconds=30, raise_on_failure=False)

    assert message.startswith("rank 1 is slow: it waits for data for ")
