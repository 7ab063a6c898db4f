"""What daemons say of their nodes, and which supervisors are wanted there."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event

from models import Database, Job
from models.queries.attempts import ask_stop
from scheduler.core.reasons import Reason
from scheduler.core.states import AttemptState, JobState
from tests.component.api_data.desk import TWO, Desk, NodeDesk, bearer, problem


def stop(database: Database, job_id: str, reason: str) -> None:
    with database.write() as session:
        ask_stop(session, session.get_one(Job, job_id), reason=reason, now=datetime.now(UTC))


def test_an_assignment_is_repeated_until_its_supervisor_is_alive(desk: Desk) -> None:
    node = desk.join()
    desk.submit()
    desk.schedule()

    first, again = node.beat()["assignments"], node.beat()["assignments"]
    node.supervisors = [{"attempt_id": first[0]["attempt_id"], "epoch": first[0]["epoch"]}]

    assert [each["attempt_id"] for each in first] == [each["attempt_id"] for each in again]
    assert node.beat()["assignments"] == []


def test_an_unknown_supervisor_is_stopped_at_once(desk: Desk) -> None:
    node = desk.join()
    node.supervisors = [{"attempt_id": "att_" + "0" * 26, "epoch": 3}]

    (stale,) = node.beat()["stops"]

    assert (stale["reason"], stale["grace_seconds"], stale["epoch"]) == ("Stale", 0.0, 3)


def test_a_supervisor_of_another_epoch_is_stopped_and_the_right_one_started(desk: Desk) -> None:
    node = desk.join()
    supervisor = desk.launch(TWO, node)
    node.supervisors = [{"attempt_id": supervisor.attempt_id, "epoch": 9}]

    wanted = node.beat()

    assert [each["epoch"] for each in wanted["stops"]] == [9]
    assert [each["epoch"] for each in wanted["assignments"]] == [1]


def test_a_waiting_heartbeat_answers_as_soon_as_there_is_work(desk: Desk) -> None:
    node = desk.join()
    job_id = desk.submit()
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append((node.beat(wait=20), time.monotonic()))
    )
    waiting.start()
    while not desk.app.state.streams._waiters:
        time.sleep(0.005)

    started_s = time.monotonic()
    desk.schedule()
    waiting.join(15)

    ((wanted, answered_s),) = answers
    assert len(wanted["assignments"]) == 1
    assert answered_s - started_s < 1.5
    assert desk.world.job(job_id).state is JobState.STARTING


def test_a_waiting_heartbeat_does_not_answer_the_same_thing_at_once_again(desk: Desk) -> None:
    node = desk.join()
    supervisor = desk.launch(TWO, node)
    stop(desk.database, supervisor.job_id, Reason.CANCEL_REQUESTED)
    node.beat(wait=5)

    started_s = time.monotonic()
    wanted = node.beat(wait=0.3)

    assert time.monotonic() - started_s >= 0.3
    assert len(wanted["stops"]) == 1


def test_a_node_is_written_down_as_it_says(desk: Desk) -> None:
    node = desk.join()

    node.beat(boot_id="boot-2", address="10.0.0.7", health={"disk_free_mib": 5})

    row = desk.world.node(node.node_id)
    assert (row.boot_id, row.address, row.health) == ("boot-2", "10.0.0.7", {"disk_free_mib": 5})
    assert row.capacity == {"cpu_milli": 8000, "memory_mib": 8192, "gpus": []}
    assert row.heartbeat_at is not None


def test_a_busy_node_does_not_write_with_every_heartbeat(desk: Desk) -> None:
    node = desk.join()
    heard_at = desk.world.node(node.node_id).heartbeat_at

    for _ in range(3):
        node.beat()

    assert desk.world.node(node.node_id).heartbeat_at == heard_at


def test_a_supervisor_that_is_provably_gone_ends_its_attempt(desk: Desk) -> None:
    node = desk.join()
    supervisor = desk.launch(TWO, node)
    supervisor.lease()
    gone = {
        "attempt_id": supervisor.attempt_id,
        "epoch": 1,
        "reason": "SupervisorDied",
        "message": "m",
    }
    node.supervisors = []

    for _ in range(2):
        wanted = node.beat(ended=[gone])

    job = desk.world.job(supervisor.job_id)
    (attempt,) = desk.world.attempts(supervisor.job_id)
    assert (job.state, job.reason, job.infra_failures) == (JobState.PENDING, "RetryBackoff", 1)
    assert (attempt.state, attempt.reason) == (AttemptState.LOST, "SupervisorDied")
    assert wanted["assignments"] == []


def test_a_node_that_joins_again_gets_a_new_credential_and_the_old_one_is_dead(desk: Desk) -> None:
    node = desk.join()

    answer = desk.http.post("/v1/nodes", json={"name": "n0"}, headers=desk.admin)

    assert answer.status_code == 200
    assert answer.json()["id"] == node.node_id
    path = f"/v1/nodes/{node.node_id}/heartbeat"
    assert desk.http.post(path, json={}, headers=node.headers).status_code == 401
    NodeDesk(desk, node.node_id, bearer(answer.json()["credential"])).beat()


def test_a_node_may_speak_for_itself_only(desk: Desk) -> None:
    first, second = desk.join("n0"), desk.join("n1")

    answer = desk.http.post(f"/v1/nodes/{second.node_id}/heartbeat", json={}, headers=first.headers)

    assert problem(answer, 403) == "forbidden"


def test_what_a_node_has_run_before_does_not_slow_its_heartbeat_down(desk: Desk) -> None:
    node = desk.join()
    statements: list[tuple[str, Any]] = []
    event.listen(
        desk.database.engine,
        "before_cursor_execute",
        lambda _c, _k, statement, values, *_: statements.append((statement, values)),
    )

    node.beat()

    if not desk.database.is_sqlite:
        return  # its planner goes by statistics, which an empty database has none of
    (look,) = [each for each in statements if "FROM attempt_nodes" in each[0]]
    with desk.database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {look[0]}", look[1]).all()
    assert any("ix_attempt_nodes_open" in str(step) for step in plan), plan
