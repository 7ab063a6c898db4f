"""Each command, from its arguments to its output and exit code."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.conformance.sdk.fake_service import KEY, FakeService, Fault

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


def test_a_job_that_may_be_resized_is_told_how(run: Run, service: FakeService) -> None:
    said = service.explained("job_0001")
    said["options"] = [{"change": {"workers": 2}, "sooner_seconds": None, "resizable": True}]
    service.documents["/v1/jobs/job_0001/explain"] = said

    result = run("explain", "job_0001")

    assert "    at once: trainmaster resize job_0001 --workers 2\n" in result.stdout


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


def test_nodes_are_listed_with_what_they_have(run: Run, service: FakeService) -> None:
    capacity = {"cpus": 2.0, "memory_gib": 24.0, "gpus": 1}
    free = {"cpus": 0.5, "memory_gib": 20.0, "gpus": 0}
    node = {"id": "node_1", "name": "n0", "pool": "default", "state": "ready"}
    gpus = [{"index": 0, "model": "H200"}]
    service.lists["/v1/nodes"] = [{**node, "capacity": capacity, "free": free, "gpus": gpus}]

    result = run("nodes")

    assert result.stdout.splitlines()[1] == (
        "n0\tnode_1\tdefault\tready\t0.5/2\t20.0/24.0 GiB\t0/1 H200"
    )


def test_a_node_in_quarantine_says_why(run: Run, service: FakeService) -> None:
    quarantine = {"until": "2031-05-01T06:00:00Z", "message": "failed 3 times within an hour"}
    node = {"id": "node_1", "name": "n0", "state": "quarantined", "quarantine": quarantine}
    service.lists["/v1/nodes"] = [node]

    assert "n0: failed 3 times within an hour" in run("nodes").stderr


def test_quotas_are_listed_with_what_is_in_use(run: Run, service: FakeService) -> None:
    quota = {"id": "quo_1", "project": "vision", "user": None, "weight": 2, "guaranteed_gpus": 8}
    in_use = {"gpus": 6, "gpu_hours_this_month": 41.53}
    limits = {"limit_gpus": 16, "gpu_hours_per_month": 500.0, "may_borrow": False}
    service.lists["/v1/quotas"] = [{**quota, **limits, "in_use": in_use}]

    table, document = run("quotas"), run("quotas", "--json")

    assert table.stdout.splitlines()[1] == ("vision\t-\tquo_1\t2\t6\t8 (no more)\t16\t41.5\t500")
    assert json.loads(document.stdout)["data"] == service.lists["/v1/quotas"]


def test_a_quota_is_made_changed_and_taken_away(run: Run, service: FakeService) -> None:
    whose = ("quotas", "--project", "vision", "--user", "key_1")
    service.lists["/v1/quotas"] = []

    run("quotas", "--project", "vision", "--set", "guaranteed_gpus=8")
    run(*whose, "--set", "limit_gpus=4", "--set", "weight=2")
    run(*whose, "--set", "limit_gpus=null")
    run("quotas", "--project", "vision", "--delete")

    assert service.lists["/v1/quotas"] == [
        {
            "id": "quo_2", "version": 1, "project": "vision", "user": "key_1",
            "limit_gpus": None, "weight": 2,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "weight=2"), "say whose with --project"),
        (("--project", "vision", "--delete", "--set", "weight=2"), "either --set or --delete"),
        (("--project", "vision", "--delete"), "vision has no quota to take away"),
    ],
)
def test_a_change_of_quotas_says_whose(
    run: Run, service: FakeService, arguments: tuple[str, ...], message: str
) -> None:
    service.lists["/v1/quotas"] = []

    result = run("quotas", *arguments)

    assert result.exit_code == 64
    assert message in result.stderr


def test_queues_are_listed(run: Run, service: FakeService) -> None:
    queue = {"name": "night", "pool": "gpus", "open": False}
    counts = {"num_active": 3, "num_waiting": 2, "num_pending": 1}
    service.lists["/v1/queues"] = [{**queue, **counts}]

    assert run("queues").stdout.splitlines()[1] == "night\tgpus\tclosed\t3\t2\t1"


def test_usage_is_shown_with_the_fair_share(run: Run, service: FakeService) -> None:
    who = {"project": "vision", "user": "key_1", "user_name": "ci", "month": "2031-05"}
    used = {"gpu_hours": 41.53, "cpu_hours": 4.0, "num_attempts": 12, "gpus_in_use": 8}
    share = {"recent_gpu_hours": 17.25, "recent_share": 0.5, "fair_share": 0.25}
    service.lists["/v1/usage"] = [{**who, **used, **share}]

    result = run("usage", "--month", "2031-05", "--project", "vision")

    assert result.stdout.splitlines()[1] == (
        "vision\tci\t2031-05\t41.5\t4.0\t12\t8\t17.2\t50%\t25%"
    )
    assert service.seen[-1].query == {"month": "2031-05", "project": "vision", "limit": "100"}


def test_login_stores_what_was_tried_for_its_owner_only(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    result = run("login", service.url, "--key-stdin", input=f"{KEY}\n")

    path = tmp_path / "config" / "trainmaster" / "config.json"
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text()) == {"url": service.url, "api_key": KEY}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in result.output


def test_a_login_that_does_not_work_is_not_stored(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    result = run("login", service.url, "--key-stdin", input="tml-wrong\n")

    assert result.exit_code == 3
    assert not (tmp_path / "config").exists()


def test_version_needs_no_service(run: Run, service: FakeService) -> None:
    service.documents["/version"] = {"version": "0.1.0"}

    with_service = json.loads(run("version", "--json").stdout)
    without = run("version", service_url="http://127.0.0.1:9")

    assert with_service["server"] == {"version": "0.1.0"}
    assert without.exit_code == 0
    assert "cannot reach" in without.stdout


def test_a_service_that_is_away_exits_with_4_and_the_way_out(run: Run) -> None:
    result = run("ls", service_url="http://127.0.0.1:9")

    assert result.exit_code == 4
    assert "python -m api all" in result.stderr
    assert "TRAINMASTER_URL" in result.stderr


def test_errors_are_json_where_json_was_asked_for(run: Run) -> None:
    result = run("get", "job_9", "--json")

    error = json.loads(result.stderr)["error"]
    assert result.stdout == ""
    assert (error["status"], error["code"], error["request_id"]) == (404, "not_found", "req_1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["lss"],
        ["ls", "--stat", "x"],
        ["get"],
        ["submit", "--workers", "0"],
        ["logs", "j", "--tail", "0"],
    ],
)
def test_wrong_usage_exits_with_64(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 64
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["submit", "-f", "missing.json"], "cannot be read"),
        (["submit", "-c", "epochs"], "has no value"),
        (["submit", "--set", "name=x", "--set", "name.first=y"], "is no object"),
        (["submit", "--code", "."], "--entrypoint"),
        (["submit", "--recipe", "r", "--input", "x=/nowhere"], "does not exist"),
    ],
)
def test_what_cannot_be_done_here_is_said_with_the_way_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fact: str
) -> None:
    monkeypatch.chdir(tmp_path)

    result = run(*arguments)

    assert result.exit_code == 3
    assert fact in result.stderr


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
