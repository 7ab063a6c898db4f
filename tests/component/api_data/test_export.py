"""Exporting over HTTP: the job it becomes, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.component.api_data.desk import ONE, Desk, ok, problem

WEIGHTS = {"model.safetensors": b"weights", "state.pt": b"state"}


def export(desk: Desk, checkpoint_id: str, **options: Any) -> Any:
    """Ask for an export and return the answer."""
    headers = {**desk.admin, **options.pop("headers", {})}
    path = f"/v1/checkpoints/{checkpoint_id}/export"
    return desk.http.post(path, headers=headers, **options)


def test_an_export_is_a_job_that_begins_with_the_checkpoint(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    saved = supervisor.save(7, WEIGHTS)

    answer = export(desk, saved["id"], json={"dtype": "bf16"})

    job = ok(answer)
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["spec"]["recipe"], job["spec"]["config"]) == ("export", {"dtype": "bf16"})
    assert (job["spec"]["resume_from"], job["parent_job_id"]) == (saved["id"], supervisor.job_id)
    assert (job["spec"]["workers"], job["spec"]["resources"]["gpus"]) == (1, 0)
    desk.schedule()
    (node,) = desk.get("/v1/nodes")["data"]
    assert node["id"]
    assert desk.get(f"/v1/jobs/{job['id']}")["state"] == "starting"


def test_without_a_body_the_weights_stay_as_they_are(desk: Desk) -> None:
    saved = desk.launch(ONE).save(7, WEIGHTS)

    assert ok(export(desk, saved["id"]))["spec"]["config"] == {"dtype": "keep"}


def test_a_checkpoint_that_is_being_exported_stays(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    saved = supervisor.save(7, WEIGHTS)
    ok(export(desk, saved["id"]))
    supervisor.exit("succeeded")

    answer = desk.http.delete(f"/v1/checkpoints/{saved['id']}", headers=desk.admin)

    assert problem(answer, 409) == "checkpoint_in_use"


def test_the_same_request_twice_is_one_job(desk: Desk) -> None:
    saved = desk.launch(ONE).save(7, WEIGHTS)
    once = {"idempotency-key": "one"}

    first = export(desk, saved["id"], headers=once, json={"dtype": "fp16"})
    again = export(desk, saved["id"], headers=once, json={"dtype": "fp16"})
    other = export(desk, saved["id"], headers=once, json={"dtype": "bf16"})

    assert ok(first) == ok(again)
    assert again.headers["idempotency-replayed"] == "true"
    assert problem(other, 422) == "idempotency_mismatch"


def test_what_cannot_be_exported_is_refused_at_once(desk: Desk) -> None:
    supervisor = desk.launch(ONE)
    foreign = desk.add_project("others")
    saved = supervisor.save(7, WEIGHTS)
    without = supervisor.save(8, {"state.json": b"{}"})

    assert problem(export(desk, "ckpt_none"), 404) == "not_found"
    assert problem(export(desk, saved["id"], headers=foreign), 404) == "not_found"
    assert problem(export(desk, without["id"]), 409) == "no_weights"
    assert problem(export(desk, saved["id"], json={"dtype": "int4"}), 422) == "invalid"
    assert problem(export(desk, saved["id"], json={"dtipe": "bf16"}), 422) == "invalid"
    assert len(desk.get("/v1/jobs")["data"]) == 1
