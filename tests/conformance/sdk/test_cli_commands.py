"""Commands on jobs and checkpoints, from their arguments to output and exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.conformance.sdk.fake_service import FakeService, Fault

Run = Callable[..., Result]


COMPARED = {
    "reference": {"checkpoint_id": "ckpt_1", "step": 9},
    "interrupted": {"checkpoint_id": "ckpt_2", "step": 9},
    "killed_at_step": 5,
    "resumed_from_step": 3,
    "num_files": 2,
    "num_files_same": 1,
    "files": [
        {"path": "state.pt", "is_same": False, "reference_sha256": "a", "interrupted_sha256": "b"},
        {"path": "model.pt", "is_same": True, "reference_sha256": "a", "interrupted_sha256": "a"},
    ],
    "metrics": [{"name": "loss", "reference": 1.0, "interrupted": 1.01, "is_near": True}],
}


def test_ls_lists_jobs_with_their_reasons(run: Run, service: FakeService) -> None:
    service.add_job("queued", name="a\x1b[31m\nb", reason="InsufficientResources", message="2 of 4")
    service.add_job("running", progress={"step": 5, "total_steps": 10})

    result = run("ls")

    head, first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert head == ["ID", "NAME", "STATE", "STEP", "AGE", "WHY"]
    assert first[:3] == ["job_0001", "a b", "queued"]
    assert first[5] == "InsufficientResources: 2 of 4"
    assert second[3] == "5/10"


def test_ls_says_when_there_are_more(run: Run, service: FakeService) -> None:
    for _ in range(130):
        service.add_job()

    few, everything = run("ls", "-n", "5"), run("ls", "--all", "--json")

    assert len(few.stdout.splitlines()) == 6
    assert "there are more" in few.stderr
    document = json.loads(everything.stdout)
    assert len(document["data"]) == 130
    assert document["has_more"] is False


def test_ls_filters(run: Run, service: FakeService) -> None:
    run("ls", "--state", "running", "--state", "queued", "--label", "team=text", "--project", "p")

    assert service.seen[0].query == {
        "state": "running,queued",
        "label": "team:text",
        "project": "p",
        "limit": "20",
    }


def test_get_shows_the_job_and_its_spec(run: Run, service: FakeService) -> None:
    attempt = {"id": "att_1", "number": 2, "nodes": ["n0"]}
    job_id = service.add_job("running", attempt=attempt, message="\x1b]0;gotcha\x07fine")

    result = run("get", job_id)

    assert "state    running · fine" in result.stdout
    assert "attempt  2 (att_1) on n0" in result.stdout
    assert '"recipe": "image-classifier"' in result.stdout
    assert json.loads(run("get", job_id, "--json").stdout)["id"] == job_id


def test_cancel_acts_on_several_jobs(run: Run, service: FakeService) -> None:
    first, second = service.add_job("running"), service.add_job("queued")

    result = run("cancel", first, second)

    assert result.stdout == f"{first} cancelled\n{second} cancelled\n"


def test_a_refused_action_says_why(run: Run, service: FakeService) -> None:
    result = run("cancel", service.add_job("succeeded"))

    assert result.exit_code == 3
    assert "job_0001 is succeeded" in result.stderr


def test_pause_can_wait_until_it_is_done(run: Run, service: FakeService) -> None:
    job_id = service.add_job("running")

    result = run("pause", job_id, "--wait", "--json")

    assert json.loads(result.stdout)["state"] == "paused"
    assert run("resume", job_id).stdout == f"{job_id} queued\n"


def test_resize_can_wait_until_the_job_runs_with_its_new_size(
    run: Run, service: FakeService
) -> None:
    job_id = service.add_job("running")
    service.changes[job_id] = [{"state": "pending"}, {"state": "running", "resizing_to": None}]

    result = run("resize", job_id, "--workers", "4", "--wait", "--json")

    assert json.loads(result.stdout)["state"] == "running"
    assert service.jobs[job_id]["resizing_to"] is None
    assert run("resize", job_id, "--workers", "0").exit_code == 64
    assert run("resize", job_id).exit_code == 64


def test_fork_sends_what_is_different_only(run: Run, service: FakeService) -> None:
    job_id = service.add_job("succeeded", spec={"recipe": "r", "config": {"lr": 0.1, "epochs": 1}})
    checkpoint_id = service.add_checkpoint(job_id, {"a": b"1"})

    result = run("fork", checkpoint_id, "-c", "epochs=2", "--name", "again", "--json")

    body = json.loads(result.stdout)["spec"]["forked"]
    assert body == {
        "checkpoint": checkpoint_id,
        "overrides": {"name": "again", "config": {"epochs": 2}},
    }


def test_metrics_at_a_glance_and_one_by_one(run: Run, service: FakeService) -> None:
    job_id = service.add_job()
    path = f"/v1/jobs/{job_id}/metrics"
    last = {"step": 9, "time": 1.0, "value": "NaN"}
    summary = {"key": "train/loss", "rank": 0, "count": 9, "last": last, "min": 0.25, "max": 2}
    service.lists[path] = [summary]

    assert run("metrics", job_id).stdout.splitlines()[1] == "train/loss\t0\t9\t9\tnan\t0.25\t2"

    del service.lists[path]
    service.documents[path] = {"key": "train/loss", "steps": [1, 2], "values": [0.1, "Infinity"]}
    assert run("metrics", job_id, "train/loss").stdout.splitlines()[1:] == ["1\t0.1", "2\tinf"]


def test_checkpoints_are_listed(run: Run, service: FakeService) -> None:
    job_id = service.add_job()
    service.add_checkpoint(job_id, {"a": b"x" * 2048}, pinned=True)

    row = run("checkpoints", job_id).stdout.splitlines()[1].split("\t")

    assert row[:4] == ["ckpt_0001", "100", "committed pinned", "2.0 KiB"]
    assert row[5] == "val/accuracy=0.97"


def test_download_takes_the_newest_committed_checkpoint_of_a_job(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    job_id = service.add_job("succeeded")
    service.add_checkpoint(job_id, {"weights": b"old"}, step=1)
    newest = service.add_checkpoint(job_id, {"weights": b"new"}, step=2)
    service.add_checkpoint(job_id, {"weights": b"unfinished"}, step=3, state="uploading")

    result = run("download", job_id, str(tmp_path / "here"), "--json")

    document = json.loads(result.stdout)
    assert document["checkpoint"]["id"] == newest
    assert document["verified"] is True
    assert (Path(document["path"]) / "weights").read_bytes() == b"new"


def test_a_broken_download_says_how_to_go_on(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"weights": b"12345"})
    service.faults.append(Fault("GET", f"/v1/checkpoints/{checkpoint_id}/f", drop=True, count=999))

    result = run("download", checkpoint_id, str(tmp_path))

    assert result.exit_code == 3
    assert "run the same again" in result.stderr


def test_export_writes_one_file_and_compares_its_hash(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"a.safetensors": b"a"})
    target = tmp_path / "mine.safetensors"

    result = run("export", checkpoint_id, "-o", str(target), "--dtype", "bf16")

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}\n"
    assert "the hash is right" in result.stderr
    assert service.jobs["job_0002"]["spec"]["config"] == {"dtype": "bf16"}
    assert target.read_bytes() == b"exported"
    assert list(tmp_path.iterdir()) == [target]


def test_export_of_a_job_takes_its_newest_checkpoint_and_tells_all_as_json(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    job_id = service.add_job("succeeded")
    service.add_checkpoint(job_id, {"a.safetensors": b"a"}, step=1)
    newest = service.add_checkpoint(job_id, {"a.safetensors": b"b"}, step=2)
    target = tmp_path / "mine.safetensors"
    target.write_bytes(b"old")

    result = run("export", job_id, "-o", str(target), "--force", "--json")

    assert service.requests("POST", f"/v1/checkpoints/{newest}/export")
    said = json.loads(result.stdout)
    assert (said["path"], said["job"]["state"]) == (str(target.resolve()), "succeeded")
    assert said["sha256"] == said["checkpoint"]["files"][0]["sha256"]
    assert target.read_bytes() == b"exported"


def test_export_leaves_a_file_that_is_there_alone(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"a.safetensors": b"a"})
    (tmp_path / "mine").write_bytes(b"precious")

    result = run("export", checkpoint_id, "-o", str(tmp_path / "mine"))

    assert result.exit_code == 3
    assert "add --force" in result.stderr
    assert service.requests("POST", f"/v1/checkpoints/{checkpoint_id}/export") == []


def test_an_export_that_fails_says_why_and_ends_as_its_job(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"a.safetensors": b"a"})
    message = "rank 0 exited with code 2: export: tensor w holds 1e+06"
    service.export_ends = {"state": "failed", "reason": "UserCodeError", "message": message}

    result = run("export", checkpoint_id, "-o", str(tmp_path / "mine"))

    assert result.exit_code == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("exact", 0), ("equivalent", 0), ("weights-only", 1), ("unknown", 1)],
)
def test_verify_resume_prints_the_verdict_and_ends_by_it(
    run: Run, service: FakeService, tmp_path: Path, verdict: str, code: int
) -> None:
    service.verdict = {"verdict": verdict, "reason": "Because", "comparison": COMPARED}
    (tmp_path / "job.json").write_text(json.dumps({"recipe": "lm", "config": {"steps": 9}}))

    result = run(
        "verify-resume", str(tmp_path / "job.json"), "-c", "lr=0.1", "--seed", "7",
        "--tolerance", "0.1",
    )  # fmt: skip

    assert result.exit_code == code, result.output
    assert result.stdout == f"{verdict}\n"
    assert "training without a kill: job_0001" in result.stderr
    assert "training with a kill at step 5: job_0002" in result.stderr
    assert "state.pt differs" in result.stderr
    (asked,) = service.requests("POST", "/v1/jobs/verify-resume")
    assert json.loads(asked.body) == {"recipe": "lm", "config": {"steps": 9, "lr": 0.1}}
    assert asked.query == {"seed": "7", "tolerance": "0.1"}


def test_verify_resume_prints_one_document_as_json(run: Run, service: FakeService) -> None:
    result = run("verify-resume", "--recipe", "lm", "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == service.documents["/v1/verifications/ver_0001"]
    assert result.stderr == ""


def test_verify_resume_of_a_bad_spec_is_refused(run: Run, service: FakeService) -> None:
    result = run("verify-resume", "--recipe", "lm", "--set", "workerz=2")

    assert result.exit_code == 3
    assert "did you mean workers?" in result.stderr
