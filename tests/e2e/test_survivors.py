"""Replicas that are killed while the others go on: the service starts them again, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lives import SCRIPT, Told
from tests.services import make_bundle
from trainmaster import Client

pytestmark = pytest.mark.torch

WORKERS = 3
SEMI = {"mode": "local_sgd", "every": 5}
ASYNCHRONOUS = {"mode": "parameter_server", "staleness": None}


def _submit(client: Client, folder: Path, told: Path, **spec: Any) -> Any:
    config = {"folder": str(told), "steps": 400, **spec.pop("config", {})}
    return client.jobs.submit(
        code=make_bundle(folder, SCRIPT), entrypoint=SCRIPT, workers=WORKERS, config=config, **spec
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
