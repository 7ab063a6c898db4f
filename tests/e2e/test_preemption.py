"""Room is made for a job that goes first; who made room goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.services import Ledger, wait_for
from trainmaster import Client
from trainmaster.documents import Job

pytestmark = pytest.mark.torch


def _submit(client: Client, bundle: Path, ledger: Ledger, **changes: Any) -> Job:
    config = {"ledger": str(ledger.path), "steps": 60, "step_seconds": 0.02}
    config.update(changes.pop("config", {}))
    return client.jobs.submit(
        code=bundle, entrypoint="ledger.py", config=config, limits={"grace_seconds": 5}, **changes
    )


def test_a_job_of_higher_priority_gets_room_and_the_other_goes_on_where_it_was(
    client: Client, bundle: Path, ledger: Ledger, tmp_path: Path
) -> None:
    all_cpus = {"cpus": 8}  # what the service of these tests has
    urgent_ledger = Ledger(tmp_path / "urgent.jsonl")
    long = _submit(client, bundle, ledger, config={"steps": 400}, resources=all_cpus)
    wait_for("25 steps", lambda: len(ledger.steps()) >= 25)

    urgent = _submit(client, bundle, urgent_ledger, priority=90, resources=all_cpus)
    urgent_done = client.jobs.wait(urgent, timeout_seconds=60)
    long_done = client.jobs.wait(long, timeout_seconds=60)

    assert urgent_done.state == "succeeded"
    assert long_done.state == "succeeded"
    assert long_done.evictions == 1
    reasons = [event.reason for event in client.jobs.events.list(long)]
    preempted = list(dict.fromkeys(one for one in reasons if one in {"Preempting", "Preempted"}))
    assert preempted == ["Preempting", "Preempted"]
    # A checkpoint every ten steps, and 25 were made.
    assert ledger.entries("start")[-1]["step"] >= 20
    assert ledger.entries("end")[0]["at"] > urgent_ledger.entries("end")[0]["at"]
