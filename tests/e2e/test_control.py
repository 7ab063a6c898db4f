"""Cancel, pause, resume, fork, hold, deadline: on real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.services import Ledger, Service, wait_for
from trainmaster import Client
from trainmaster.documents import Job

pytestmark = pytest.mark.torch


def _submit(client: Client, bundle: Path, ledger: Ledger, **changes: Any) -> Job:
    config = {"ledger": str(ledger.path), "steps": 2000, "step_seconds": 0.01}
    config.update(changes.pop("config", {}))
    return client.jobs.submit(
        code=bundle, entrypoint="ledger.py", config=config, limits={"grace_seconds": 2}, **changes
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_steps(ledger: Ledger, count: int) -> None:
    wait_for(f"{count} steps", lambda: len(ledger.steps()) >= count)


def test_a_cancelled_job_is_cancelled_and_its_ranks_are_gone(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    job = _submit(client, bundle, ledger)
    _wait_steps(ledger, 5)

    client.jobs.cancel(job)
    done = client.jobs.wait(job, timeout_seconds=30, raise_on_failure=False)

    assert (done.state, done.reason) == ("cancelled", "CancelledByUser")
    assert not _is_alive(ledger.entries()[0]["pid"])
    assert client.jobs.cancel(job).state == "cancelled"


def test_a_trainer_that_ignores_everything_is_killed_after_the_grace(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    job = _submit(client, bundle, ledger, config={"ignore_sigterm": True})
    _wait_steps(ledger, 5)

    client.jobs.cancel(job)
    done = client.jobs.wait(job, timeout_seconds=30, raise_on_failure=False)

    assert done.state == "cancelled"
    assert not _is_alive(ledger.entries()[0]["pid"])


def test_a_paused_job_goes_on_where_it_was(client: Client, bundle: Path, ledger: Ledger) -> None:
    config = {"steps": 150, "checkpoint_every": 10}
    job = _submit(client, bundle, ledger, config=config)
    _wait_steps(ledger, 25)

    client.jobs.pause(job)
    paused = wait_for(
        "the pause", lambda: now if (now := client.jobs.get(job)).state == "paused" else None
    )
    steps_before = len(ledger.steps())
    client.jobs.resume(job)
    done = client.jobs.wait(job, timeout_seconds=60)

    assert paused.reason == "PausedByUser"
    assert done.state == "succeeded"
    second = ledger.entries("start")[1]
    assert second["attempt"] == 2
    assert 0 < second["step"] <= steps_before
    assert second["step"] % 10 == 0
    assert ledger.overlaps() == []
    assert client.jobs.metrics.series(job, "loss").steps == list(range(1, 151))


def test_a_queued_job_is_cancelled_and_paused_at_once(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    held = _submit(client, bundle, ledger, hold=True)

    assert client.jobs.pause(held).state == "paused"
    assert client.jobs.resume(held).state == "pending"
    assert client.jobs.cancel(held).state == "cancelled"
    assert ledger.entries() == []


def test_a_held_job_starts_when_it_is_released(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    job = _submit(client, bundle, ledger, hold=True, config={"steps": 3})
    wait_for("the reason", lambda: client.jobs.get(job).reason == "HeldByUser")

    client.jobs.release(job)

    assert client.jobs.wait(job, timeout_seconds=60).state == "succeeded"


def test_a_fork_starts_from_the_checkpoint(client: Client, bundle: Path, ledger: Ledger) -> None:
    job = _submit(client, bundle, ledger, config={"steps": 20})
    client.jobs.wait(job, timeout_seconds=60)

    fork = client.jobs.fork(job)
    client.jobs.wait(fork, timeout_seconds=60)

    assert fork.id != job.id
    assert [entry["step"] for entry in ledger.entries("start")] == [0, 20]


def test_a_job_past_its_deadline_fails_and_says_so(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    config = {"ledger": str(ledger.path), "steps": 2000, "step_seconds": 0.01}
    job = client.jobs.submit(
        code=bundle,
        entrypoint="ledger.py",
        config=config,
        limits={"wall_seconds": 1, "grace_seconds": 1},
    )

    done = client.jobs.wait(job, timeout_seconds=30, raise_on_failure=False)

    assert (done.state, done.reason) == ("failed", "DeadlineExceeded")


def test_only_the_last_checkpoints_are_kept(client: Client, bundle: Path, ledger: Ledger) -> None:
    job = _submit(
        client,
        bundle,
        ledger,
        config={"steps": 50},
        checkpoint={
            "keep_last": 2,
            "keep_best": {"metric": "loss", "mode": "max", "count": 1},
        },
    )
    client.jobs.wait(job, timeout_seconds=60)

    kept = sorted(one.step or 0 for one in client.jobs.checkpoints(job))

    assert kept == [10, 40, 50]


def test_a_checkpoint_is_made_soon_after_it_is_asked_for(
    client: Client, bundle: Path, ledger: Ledger
) -> None:
    job = _submit(
        client, bundle, ledger, config={"checkpoint_every": 1_000_000, "on_request": True}
    )
    _wait_steps(ledger, 5)

    client.jobs.checkpoint(job)

    wait_for("the checkpoint", lambda: list(client.jobs.checkpoints(job)), within_s=10)
    client.jobs.cancel(job)
    client.jobs.wait(job, timeout_seconds=30, raise_on_failure=False)


def test_nothing_is_left_on_the_node_when_all_is_over(service: Service) -> None:
    wait_for("empty run folders", lambda: not service.runs())
