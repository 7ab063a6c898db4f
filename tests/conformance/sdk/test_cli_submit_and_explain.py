"""Submitting, asking why and changing a spec, from arguments to output and exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.conformance.sdk.fake_service import FakeService

Run = Callable[..., Result]


def test_submit_prints_the_id_alone_on_standard_output(run: Run, service: FakeService) -> None:
    result = run("submit", "--recipe", "image-classifier", "--workers", "2", "-c", "epochs=3")

    assert result.exit_code == 0
    assert result.stdout == "job_0001\n"
    assert "trainmaster follow job_0001" in result.stderr
    want = {"recipe": "image-classifier", "workers": 2, "config": {"epochs": 3}}
    assert service.jobs["job_0001"]["spec"] == want


def test_flags_are_laid_over_the_file(run: Run, service: FakeService, tmp_path: Path) -> None:
    spec = {"recipe": "a", "config": {"lr": 0.1, "epochs": 1}, "sync": {"mode": "allreduce"}}
    (tmp_path / "job.json").write_text(json.dumps(spec))

    result = run(
        *("submit", "-f", str(tmp_path / "job.json"), "--recipe", "b", "-c", "epochs=2"),
        *("--set", "sync.mode=local_sgd", "--set", "sync.every=16", "--set", "queue=night"),
        *("--label", "team=text", "--env", "LEVEL=3", "--json", "--", "--verbose", "-x"),
    )

    assert json.loads(result.stdout)["spec"] == {
        "recipe": "b",
        "config": {"lr": 0.1, "epochs": 2},
        "sync": {"mode": "local_sgd", "every": 16},
        "queue": "night",
        "labels": {"team": "text"},
        "env": {"LEVEL": "3"},
        "args": ["--verbose", "-x"],
    }


def test_a_folder_of_code_is_uploaded_and_its_script_found(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "data.npz").write_bytes(b"data")

    result = run(
        "submit", "--code", str(tmp_path), "--input", f"train={tmp_path}/data.npz",
        "--input", "corpus=dir:/data",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    spec = service.jobs["job_0001"]["spec"]
    assert spec["entrypoint"] == "train.py"
    assert spec["code"] == "file_1"
    assert spec["inputs"] == {"train": "file_2", "corpus": "dir:/data"}
    assert service.contents["/v1/files/file_2/content"] == b"data"


def test_a_dry_run_says_what_would_become_of_it_and_submits_nothing(
    run: Run, service: FakeService
) -> None:
    result = run("submit", "--recipe", "image-classifier", "--dry-run")

    assert result.exit_code == 0
    assert "nothing was submitted" in result.stdout
    assert "why      HigherPriorityAhead: 3 jobs go first" in result.stdout
    assert "1 h 0 min sooner: --set workers=4" in result.stdout
    assert "in 1 h 0 min; most likely in 30 min 0 s to in 3 h 0 min" in result.stdout
    assert not service.jobs
    (seen,) = service.seen
    assert seen.query == {}


def test_a_dry_run_checks_code_and_inputs_here_and_uploads_neither(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print(1)")

    result = run("submit", "--code", str(tmp_path), "--input", f"a={tmp_path}", "--dry-run")

    assert result.exit_code == 0, result.output
    assert "it was not uploaded" in result.stdout
    (seen,) = service.seen
    assert (seen.path, seen.query) == ("/v1/jobs/simulate", {"assume_files": "true"})
    sent = json.loads(seen.body)
    assert (sent["code"], sent["inputs"]) == ("file_later", {"a": "file_later"})


def test_a_dry_run_tells_what_the_workers_would_send(run: Run, service: FakeService) -> None:
    service.foreseen = {
        "backend": "gloo",
        "bytes_per_step": 12_500.0,
        "reduction_vs_ddp": 396.9,
        "transfer_seconds": 0.182,
        "missing": ["how long a step computes: no job like it has succeeded here"],
    }
    hints = ("--parameters", "1000000", "--link-mbit", "100")

    result = run("submit", "--recipe", "a", "--dry-run", *hints)

    (seen,) = service.seen
    assert seen.query == {"num_parameters": "1000000", "link_mbit": "100.0"}
    assert "sends    each worker sends 12.2 KiB a step, 397 times less than" in result.stdout
    assert "takes    0.182 s a step to send that" in result.stdout
    assert "unknown  how long a step computes" in result.stdout


def test_a_dry_run_notices_code_that_cannot_be_packed(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "train.py").symlink_to("/etc/hostname")

    result = run("submit", "--code", str(tmp_path), "--dry-run")

    assert result.exit_code == 3
    assert not service.seen


def test_a_dry_run_prints_the_whole_answer_as_json(run: Run, service: FakeService) -> None:
    result = run("submit", "--recipe", "a", "--dry-run", "--json")

    assert json.loads(result.stdout) == service.simulated(spec={"recipe": "a"})


def test_explain_reads_like_an_answer(run: Run, service: FakeService) -> None:
    service.documents["/v1/jobs/job_0001/explain"] = service.explained("job_0001")

    result = run("explain", "job_0001")

    assert result.stdout.splitlines() == [
        "job_0001 is queued",
        "  why      HigherPriorityAhead: 3 jobs go first",
        "  ahead    1 of your project (job_0009), 2.0 GPU-hours; 2 of others, 30.0 GPU-hours",
        "  starts   in 1 h 0 min; most likely in 30 min 0 s to in 3 h 0 min",
        "           at the latest 2026-01-03 00:00 UTC",
        "  sooner",
        "    1 h 0 min sooner: trainmaster cancel job_0001",
        "      and submit it again with --set workers=4",
        "    at once: trainmaster edit job_0001 --set queue=side",
        "    30 min 0 s sooner: trainmaster edit job_0001 --set limits.wall_seconds=1800",
        "  next     wait its turn",
    ]


def test_explain_says_when_a_job_ends_and_what_to_do(run: Run, service: FakeService) -> None:
    end = {
        "p10_at": "2026-01-02T03:20:00Z",
        "p50_at": "2026-01-02T03:20:00Z",
        "p90_at": "2026-01-02T03:20:00Z",
        "latest_at": None,
        "basis": "progress",
        "withheld": None,
    }
    step = {"text": "watch\x1b[2J it", "command": "trainmaster follow job_0001"}
    plain: dict[str, object] = {"ahead": None, "start": None, "options": [], "message": ""}
    service.documents["/v1/jobs/job_0001/explain"] = service.explained(
        "job_0001", state="running", reason="Training", end=end, next=[step], **plain
    )

    result = run("explain", "job_0001")

    assert result.stdout.splitlines() == [
        "job_0001 is running",
        "  why      Training",
        "  ends     in 20 min 0 s (by its own progress)",
        "  next     watch it",
        "             trainmaster follow job_0001",
    ]


def test_explain_says_what_is_not_known(run: Run, service: FakeService) -> None:
    start = {"withheld": "too many wait before it"}
    more: dict[str, object] = {"start": start, "options": [], "options_complete": False}
    service.documents["/v1/jobs/job_0001/explain"] = service.explained("job_0001", **more)

    result = run("explain", "job_0001")

    assert "starts   not known: too many wait before it" in result.stdout
    assert "there was no time to try all" in result.stdout
    assert json.loads(run("explain", "job_0001", "--json").stdout)["start"] == start


def test_edit_changes_what_may_change(run: Run, service: FakeService) -> None:
    job_id = service.add_job("queued")

    result = run("edit", job_id, "--set", "priority=80", "--set", "limits.wall_seconds=60")

    assert result.stdout == f"{job_id}\n"
    assert service.jobs[job_id]["priority"] == 80
    assert service.jobs[job_id]["limits"] == {"wall_seconds": 60}
    assert run("edit", job_id).exit_code == 64


@pytest.mark.parametrize("command", [("submit",), ("submit", "--dry-run")])
def test_a_wrong_spec_names_every_field_and_exits_with_3(
    run: Run, command: tuple[str, ...]
) -> None:
    result = run(*command, "--set", "workerz=2")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "/workerz: did you mean workers?" in result.stderr
    assert "Traceback" not in result.output


def test_a_job_that_may_be_resized_is_told_how(run: Run, service: FakeService) -> None:
    said = service.explained("job_0001")
    said["options"] = [{"change": {"workers": 2}, "sooner_seconds": None, "resizable": True}]
    service.documents["/v1/jobs/job_0001/explain"] = said

    result = run("explain", "job_0001")

    assert "    at once: trainmaster resize job_0001 --workers 2\n" in result.stdout
