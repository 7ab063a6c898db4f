"""Replicas that are killed while the others go on: the service starts them again, alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.services import wait_for
from trainmaster import Client

pytestmark = pytest.mark.torch

WORKERS = 3
# Each life of a rank writes a file of its own: its pid, and the last step that it has taken.
_SCRIPT = """
import json
import os
import time
from pathlib import Path

import torch
from torch.nn import functional

from trainmaster import train

with train.start(seed=1) as run:
    told = Path(run.config["folder"]) / f"{run.rank}.{time.time_ns()}.{os.getpid()}"
    model = run.model(torch.nn.Linear(4, 1))
    optimizer = run.optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = (torch.ones(4096, 4),)
    for step, (x,) in run.steps(data, batch_size=12, steps=run.config["steps"]):
        told.write_text(json.dumps({"step": step}))
        time.sleep(0.02)
        if run.config.get("doomed") == run.rank:
            os.kill(os.getpid(), 9)
        run.backward(functional.mse_loss(model(x), torch.zeros(len(x), 1)))
        optimizer.step()
    final = sum(each.sum().item() for each in model.parameters())
    told.write_text(json.dumps({"step": step, "final": final}))
"""

SEMI = {"mode": "local_sgd", "every": 5}
ASYNCHRONOUS = {"mode": "parameter_server", "staleness": None}


class Told:
    """What the lives of the ranks have written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def pids(self, rank: int) -> list[int]:
        """Of a rank's lives, the oldest first."""
        return [int(each.suffix[1:]) for each in sorted(self._folder.glob(f"{rank}.*"))]

    def read(self, rank: int, pid: int) -> dict[str, Any]:
        (path,) = self._folder.glob(f"{rank}.*.{pid}")
        text = path.read_text()
        said: dict[str, Any] = json.loads(text) if text else {"step": 0}
        return said

    def kill(self, rank: int, *, at_step: int) -> None:
        """Kill a rank's first life once it has come so far, and wait for the second to step."""

        def has_come() -> bool:
            return bool(self.pids(rank)) and self.read(rank, self.pids(rank)[0])["step"] >= at_step

        wait_for(f"rank {rank} at step {at_step}", has_come, within_s=60)
        (pid,) = self.pids(rank)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"another rank {rank}", lambda: len(self.pids(rank)) == 2)


def _submit(client: Client, folder: Path, told: Path, **spec: Any) -> Any:
    folder.mkdir()
    (folder / "train.py").write_text(_SCRIPT)
    config = {"folder": str(told), "steps": 400, **spec.pop("config", {})}
    return client.jobs.submit(
        code=folder, entrypoint="train.py", workers=WORKERS, config=config, **spec
    )


@pytest.mark.parametrize("sync", [SEMI, ASYNCHRONOUS], ids=["local_sgd", "asynchronous"])
def test_killed_replicas_come_back_and_nobody_else_starts_again(
    client: Client, tmp_path: Path, sync: dict[str, Any]
) -> None:
    told = Told(tmp_path / "told")
    job = _submit(client, tmp_path / "code", tmp_path / "told", sync=sync)

    told.kill(1, at_step=20)
    told.kill(0, at_step=40)
    done = client.jobs.wait(job, timeout_seconds=120, raise_on_failure=False)

    assert done.state == "succeeded", done.message
    assert done.attempt is not None
    assert done.attempt.number == 1
    assert [len(told.pids(rank)) for rank in range(WORKERS)] == [2, 2, 1]
    finals = {told.read(rank, told.pids(rank)[-1])["final"] for rank in range(WORKERS)}
    assert len(finals) == 1
    events = [each for each in client.jobs.events.list(job) if each.type == "attempt.rank_replaced"]
    assert [(each.data["rank"], each.data["restarts"]) for each in events] == [(1, 1), (0, 1)]
    assert "killed by SIGKILL" in (events[0].message or "")


def test_a_rank_that_never_gets_a_step_done_ends_the_attempt(
    client: Client, tmp_path: Path
) -> None:
    told = Told(tmp_path / "told")
    job = _submit(
        client, tmp_path / "code", tmp_path / "told", sync=SEMI, config={"doomed": 2},
        retry={"max_infra_failures": 0},
    )  # fmt: skip

    done = client.jobs.wait(job, timeout_seconds=120, raise_on_failure=False)

    assert (done.state, done.reason) == ("failed", "RankKilled")
    assert len(told.pids(2)) == 3
    assert [len(told.pids(rank)) for rank in (0, 1)] == [1, 1]


def test_replicas_in_step_at_every_step_start_again_together(
    client: Client, tmp_path: Path
) -> None:
    told = Told(tmp_path / "told")
    job = _submit(
        client, tmp_path / "code", tmp_path / "told", config={"steps": 60},
        retry={"backoff_seconds": 0},
    )  # fmt: skip

    told.kill(1, at_step=10)
    done = client.jobs.wait(job, timeout_seconds=120, raise_on_failure=False)

    assert done.state == "succeeded"
    assert done.attempt is not None
    assert done.attempt.number == 2
    assert [len(told.pids(rank)) for rank in range(WORKERS)] == [2, 2, 2]
