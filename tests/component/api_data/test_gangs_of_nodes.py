"""An attempt on several nodes: it runs when all have joined, and ends as a whole."""

from __future__ import annotations

from scheduler.core.spec import JobSpec, ResourceRequest, RetrySpec
from scheduler.core.states import JobState
from tests.component.api_data.desk import Desk, NodeDesk, Supervisor, ok

WIDE = JobSpec(
    recipe="image-classifier", workers=2, resources=ResourceRequest(cpus=6), retry=RetrySpec()
)


def launch_on_two_nodes(desk: Desk) -> tuple[NodeDesk, NodeDesk, Supervisor, Supervisor]:
    first, second = desk.join("n0"), desk.join("n1")
    job_id = desk.submit(WIDE)
    desk.schedule()
    return first, second, first.take(job_id), second.take(job_id)


def test_a_gang_on_two_nodes_runs_when_all_have_joined_and_ends_when_all_have_ended(
    desk: Desk,
) -> None:
    _, _, zero, one = launch_on_two_nodes(desk)
    meeting = {"address": "10.0.0.1", "port": 29500}
    assert [zero.assignment()["node_rank"], one.assignment()["node_rank"]] == [0, 1]
    assert one.lease("starting")["rendezvous"] is None

    zero.lease("starting", rendezvous=meeting)

    assert one.lease("starting")["rendezvous"] == meeting
    assert one.assignment()["rendezvous"] == meeting
    zero.lease("running")
    assert desk.world.job(zero.job_id).state is JobState.STARTING
    one.lease("running")
    assert desk.world.job(zero.job_id).state is JobState.RUNNING
    assert ok(zero.exit())["job_state"] == "running"
    assert ok(one.exit())["job_state"] == "succeeded"


def test_a_failure_on_one_node_stops_the_others_and_is_the_reason(desk: Desk) -> None:
    _, second, zero, one = launch_on_two_nodes(desk)
    for supervisor in (zero, one):
        supervisor.lease("running")

    ok(zero.exit("failed", "UserCodeError", message="ValueError: boom"))

    assert [each["reason"] for each in second.beat()["stops"]] == ["PeerFailed"]
    assert one.lease("running")["wanted"]["reason"] == "PeerFailed"
    assert ok(one.exit("stopped"))["job_state"] == "failed"
    job = desk.world.job(zero.job_id)
    assert (job.reason, job.message) == ("UserCodeError", "ValueError: boom")


def test_slots_come_back_only_when_the_whole_gang_has_ended(desk: Desk) -> None:
    first, second, zero, one = launch_on_two_nodes(desk)

    ok(zero.exit("lost", "RankKilled"))
    held = [desk.world.node(node.node_id).cpu_milli_used for node in (first, second)]
    ok(one.exit("stopped"))

    assert held == [6000, 6000]
    freed = [desk.world.node(node.node_id).cpu_milli_used for node in (first, second)]
    assert freed == [0, 0]


def test_attempts_are_listed_with_how_they_ended_on_each_node(desk: Desk) -> None:
    _, _, zero, one = launch_on_two_nodes(desk)
    ok(zero.exit("failed", "UserCodeError"))
    ok(one.exit("stopped"))

    page = desk.get(f"/v1/jobs/{zero.job_id}/attempts")

    (attempt,) = page["data"]
    assert (attempt["number"], attempt["state"], attempt["reason"]) == (
        1,
        "exited",
        "UserCodeError",
    )
    assert [(each["name"], each["ranks"], each["outcome"]) for each in attempt["nodes"]] == [
        ("n0", [0], "failed"),
        ("n1", [1], "stopped"),
    ]
    assert page["has_more"] is False
