"""Machines, quotas, keys, and what every command says when it cannot."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.conformance.sdk.fake_service import KEY, FakeService

Run = Callable[..., Result]


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
