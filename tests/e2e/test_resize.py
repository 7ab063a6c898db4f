"""A job that is resized while it trains has the curve of one that never was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.services import Ledger, make_bundle, wait_for
from trainmaster import Client
from trainmaster.documents import Job

pytestmark = pytest.mark.torch

NUM_STEPS, NUM_SAMPLES, NUM_EPOCHS, BATCH = 120, 48, 30, 12
# The bound of all proofs in float64. Sums are taken in another order: over these 120 steps two and
# three workers were measured within 1e-14 of one.
ROUNDING = 1e-12


def _submit(
    client: Client, folder: Path, ledger: Ledger, step_seconds: float, **changes: Any
) -> Job:
    return client.jobs.submit(
        code=make_bundle(folder, "elastic.py"),
        entrypoint="elastic.py",
        config={"ledger": str(ledger.path), "step_seconds": step_seconds},
        resources={"cpus": 0.1},
        retry={"max_user_failures": 0, "max_infra_failures": 0},
        **changes,
    )


def _wait_for_step(ledger: Ledger, count: int) -> None:
    def is_there() -> bool:
        return any(entry["step"] >= count for entry in ledger.entries("step"))

    wait_for(f"step {count}", is_there, within_s=90)


def _losses(ledger: Ledger) -> list[float]:
    sums = Counter[int]()
    for entry in ledger.entries("step"):
        sums[entry["step"]] += entry["loss"]
    return [sums[step] / BATCH for step in sorted(sums)]


def test_two_three_and_one_workers_train_as_one_that_never_was_resized(
    client: Client, tmp_path: Path
) -> None:
    steady, resized = Ledger(tmp_path / "steady.jsonl"), Ledger(tmp_path / "resized.jsonl")
    reference = _submit(client, tmp_path / "one", steady, 0.0)
    client.jobs.wait(reference, timeout_seconds=120)
    bounds = {"min_workers": 1, "max_workers": 3}

    job = _submit(client, tmp_path / "two", resized, 0.05, workers=2, elastic=bounds)
    for count, workers in ((10, 3), (50, 1)):
        _wait_for_step(resized, count)
        assert client.jobs.resize(job.id, workers).resizing_to == workers
    done = client.jobs.wait(job, timeout_seconds=120)

    entries = resized.entries("step")
    sizes = [entry["workers"] for entry in sorted(entries, key=lambda entry: entry["step"])]
    assert list(dict.fromkeys(sizes)) == [2, 3, 1]
    taken = Counter((entry["epoch"], sample) for entry in entries for sample in entry["samples"])
    assert len(taken) == NUM_EPOCHS * NUM_SAMPLES
    assert set(taken.values()) == {1}
    assert len(_losses(resized)) == NUM_STEPS
    assert _losses(resized) == pytest.approx(_losses(steady), rel=ROUNDING)
    assert (done.attempt.number if done.attempt else None) == 3
    assert (done.evictions, done.resizing_to, done.spec["workers"]) == (0, None, 1)
    told = [(event.type, event.reason) for event in client.jobs.events.list(job, limit=100)]
    assert told.count(("job.stopping", "Resizing")) == 2
    assert told.count(("job.pending", "Resized")) == 2
