"""What a spec's ranks would send each other, over HTTP."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from typing import Any

import pytest

from api.metrics.points import pack
from models import MetricChunk
from models.queries.attempts import end_attempt
from scheduler.core.retry import AttemptEnd
from tests.app_client import AppClient
from tests.factories import add_node, job_document, start_job


def simulate(client: AppClient, document: dict[str, Any], **query: Any) -> dict[str, Any]:
    """Return the answer to a spec."""
    answer = client.post("/v1/jobs/simulate", json=document, params=query)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def test_it_says_what_the_ranks_would_send(app_client: AppClient) -> None:
    document = job_document(config={"model": "mlp"}, workers=2)

    said = simulate(app_client, document, link_mbit=100)["communication"]

    assert said["num_parameters"] == 65 * 128 + 129 * 10
    assert said["bytes_per_step_by_phase"] == {"gradients": 4.0 * said["num_parameters"]}
    assert said["wire_bytes_per_step"] == pytest.approx(1.05 * said["bytes_per_step"])
    assert said["transfer_seconds"] == pytest.approx(said["wire_bytes_per_step"] * 8 / 1e8)
    assert said["step_seconds"] is None
    assert [what.partition(":")[0] for what in said["missing"]] == ["how long a step computes"]


def test_a_job_like_it_says_how_long_a_step_computes(app_client: AppClient) -> None:
    document = job_document(config={"model": "mlp"}, workers=2)
    job_id = app_client.submit(document)["id"]
    with app_client.database.write() as session:
        attempt = start_job(session, job_id, add_node(session))
        attempt.progress = {"step": 9, "total_steps": 9, "steps_per_second": 4.0}
        session.add(
            MetricChunk(
                job_id=job_id, attempt_id=attempt.id, key="comm/exposed_seconds", rank=0,
                count=1, steps=pack(array("q", [9])), times=pack(array("d", [0.0])),
                values=pack(array("d", [0.05])), value_min=0.05, value_max=0.05,
            )
        )  # fmt: skip
        end = AttemptEnd(outcome="succeeded", reason="Completed", message="")
        end_attempt(session, attempt, end, now=datetime.now(UTC))

    said = simulate(app_client, document, link_mbit=0.1)["communication"]

    assert said["compute_seconds"] == pytest.approx(0.2)
    assert said["step_seconds"] == pytest.approx(0.2 / 3 + said["transfer_seconds"])
    assert said["missing"] == []


def test_of_code_it_must_be_told_how_large_the_model_is(app_client: AppClient) -> None:
    document = {"code": "file_later", "entrypoint": "train.py", "workers": 4}

    blind = simulate(app_client, document, assume_files=True)["communication"]
    told = simulate(app_client, document, assume_files=True, num_parameters=1000)

    assert blind["bytes_per_step"] is None
    assert blind["missing"] == ["num_parameters: how large the model is that the code trains"]
    assert told["communication"]["bytes_per_step"] == 6000


@pytest.mark.parametrize("parallel", [{"tensor": 2}, {"pipeline": 2}])
def test_with_nothing_to_compare_there_is_no_reduction(
    app_client: AppClient, parallel: dict[str, int]
) -> None:
    document = job_document(recipe="lm", config={}, workers=2, parallel=parallel)

    said = simulate(app_client, document)["communication"]

    assert said["bytes_per_step"] > 0
    assert said["reduction_vs_ddp"] is None


def test_one_rank_sends_nothing(app_client: AppClient) -> None:
    assert simulate(app_client, job_document(workers=1))["communication"] is None
