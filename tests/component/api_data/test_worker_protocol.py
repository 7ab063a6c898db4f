"""Assignment, lease and exit: what supervisors and daemons say, and what becomes of the job."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event

from api.attempts.writing import write
from api.auth.tokens import issue_attempt_token
from models import Attempt, Database, Job
from models.queries.attempts import ask_checkpoint, ask_stop, end_attempt
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd
from scheduler.core.spec import Health, JobSpec, ResourceRequest, RetrySpec
from scheduler.core.states import AttemptState, JobState
from tests.component.api_data.desk import ONE, TWO, Desk, NodeDesk, Supervisor, bearer, ok, problem

WIDE = JobSpec(
    recipe="image-classifier", workers=2, resources=ResourceRequest(cpus=6), retry=RetrySpec()
)


def stop(database: Database, job_id: str, reason: str) -> None:
    with database.write() as session:
        ask_stop(session, session.get_one(Job, job_id), reason=reason, now=datetime.now(UTC))


def launch_on_two_nodes(desk: Desk) -> tuple[NodeDesk, NodeDesk, Supervisor, Supervisor]:
    first, second = desk.join("n0"), desk.join("n1")
    job_id = desk.submit(WIDE)
    desk.schedule()
    return first, second, first.take(job_id), second.take(job_id)


def test_a_job_goes_through_all_its_states_as_its_supervisor_reports(desk: Desk) -> None:
    supervisor = desk.launch()
    for phase in ("staging", "starting", "running", "running", "finalizing"):
        supervisor.lease(phase)

    answer = ok(supervisor.exit())

    job_id = supervisor.job_id
    assert answer == {"accepted": True, "job_state": "succeeded"}
    assert desk.world.history(job_id) == [
        "job.pending", "job.queued", "job.starting", "attempt.staging", "attempt.starting",
        "job.running", "job.finalizing", "job.succeeded",
    ]  # fmt: skip
    (attempt,) = desk.world.attempts(job_id)
    assert attempt.state is AttemptState.EXITED
    assert attempt.started_at is not None


def test_a_job_that_needed_no_lease_has_run_all_the_same(desk: Desk) -> None:
    supervisor = desk.launch()

    ok(supervisor.exit())

    job = desk.world.job(supervisor.job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.started_at is not None
    assert "job.running" in desk.world.history(job.id)


def test_a_job_whose_ranks_never_started_has_not_run(desk: Desk) -> None:
    supervisor = desk.launch()
    rank = {"rank": 0, "code": None, "signal": None, "class": "user", "last_step": None}

    supervisor.lease("finalizing", ranks=[])
    ok(supervisor.exit("failed", "SetupFailed", ranks=[rank]))

    job = desk.world.job(supervisor.job_id)
    assert (job.state, job.reason, job.started_at) == (JobState.FAILED, "SetupFailed", None)
    assert "job.running" not in desk.world.history(job.id)


def test_an_assignment_names_everything_the_node_needs(desk: Desk) -> None:
    supervisor = desk.launch()

    document = supervisor.assignment()

    assert document["world_size"] == 2
    assert document["ranks"] == [
        {"rank": 0, "local_rank": 0, "gpu_indices": []},
        {"rank": 1, "local_rank": 1, "gpu_indices": []},
    ]
    assert document["cluster"] == [{"node_rank": 0, "address": "127.0.0.1", "ranks": [0, 1]}]
    assert document["command"]["module"] == "trainmaster.recipes.image_classifier"
    assert document["spec"]["workers"] == 2
    assert (document["code"], document["inputs"], document["resume"]) == (None, [], None)
    assert document["timers"]["grace_seconds"] == 30.0


def test_the_same_exit_gets_the_same_answer_whatever_has_happened_since(desk: Desk) -> None:
    node = desk.join()
    spec = JobSpec(
        recipe="image-classifier",
        workers=1,
        retry=RetrySpec(max_user_failures=1, backoff_seconds=0),
    )
    supervisor = desk.launch(spec, node)
    supervisor.lease()
    first = ok(supervisor.exit("failed", "UserCodeError"))
    desk.schedule()

    again = [ok(supervisor.exit("failed", "UserCodeError")) for _ in range(2)]

    assert first == {"accepted": True, "job_state": "pending"}
    assert again == [first, first]
    assert len(desk.world.attempts(supervisor.job_id)) == 2
    assert desk.world.job(supervisor.job_id).user_failures == 1


def test_an_attempt_that_has_ended_takes_nothing_more(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease()
    begun = ok(supervisor.begin(1, {"m": b"x"}))
    ok(supervisor.exit())
    before = desk.world.history(supervisor.job_id)

    answers = [
        supervisor.call("GET", "assignment"),
        supervisor.call("POST", "lease", json={"phase": "running"}),
        supervisor.append(b"late", 0),
        supervisor.measure(0, {"loss": [(1, 0.5)]}),
        supervisor.begin(2, {"m": b"y"}),
        supervisor.call("PUT", begun["uploads"][0]["url"], content=b"x"),
        supervisor.commit(begun["checkpoint_id"]),
    ]

    assert {problem(answer, 409) for answer in answers} == {"stale_attempt"}
    assert desk.world.history(supervisor.job_id) == before


def test_a_token_of_an_older_epoch_changes_nothing(desk: Desk) -> None:
    supervisor = desk.launch()
    node_id = supervisor.assignment()["node_id"]
    expires_at = datetime.now(UTC) + timedelta(minutes=1)
    supervisor.token = issue_attempt_token(
        desk.config.signing_key, supervisor.attempt_id, node_id, 7, expires_at
    )

    assert problem(supervisor.append(b"x", 0), 409) == "stale_attempt"
    assert problem(supervisor.exit(), 409) == "stale_attempt"


def test_a_lost_attempt_may_not_report_its_end(desk: Desk) -> None:
    supervisor = desk.launch()
    with desk.database.write() as session:
        attempt = session.get_one(Attempt, supervisor.attempt_id)
        end = AttemptEnd(outcome="lost", reason=Reason.LEASE_LOST)
        end_attempt(session, attempt, end, now=datetime.now(UTC))

    assert problem(supervisor.exit(), 409) == "stale_attempt"


def test_every_credential_opens_its_own_doors_only(desk: Desk) -> None:
    node = desk.join()
    mine, other = desk.launch(ONE, node), desk.launch(ONE, node)
    routes = [
        ("GET", "assignment"),
        ("POST", "lease"),
        ("POST", "exit"),
        ("PUT", "logs/0/stdout?offset=0"),
        ("POST", "metrics"),
        ("POST", "checkpoints"),
        ("POST", "checkpoints/ckpt_0/commit"),
        ("GET", "files/file_0"),
    ]

    for headers in (bearer(other.token), node.headers, desk.admin):
        for method, route in routes:
            url = f"/v1/attempts/{mine.attempt_id}/{route}"
            options: dict[str, Any] = {"json": {}} if method == "POST" else {}
            answer = desk.http.request(method, url, headers=headers, **options)
            assert answer.status_code == 403, route


def test_a_token_does_not_open_what_users_see(desk: Desk) -> None:
    supervisor = desk.launch()

    for path in (
        f"/v1/jobs/{supervisor.job_id}/logs",
        "/v1/files",
        f"/v1/jobs/{supervisor.job_id}",
    ):
        assert problem(supervisor.call("GET", path), 403) == "forbidden"


def test_an_expired_token_is_refused(desk: Desk) -> None:
    supervisor = desk.launch()
    past = datetime.now(UTC) - timedelta(seconds=1)
    key, node_id = desk.config.signing_key, supervisor.assignment()["node_id"]
    supervisor.token = issue_attempt_token(key, supervisor.attempt_id, node_id, 1, past)

    assert problem(supervisor.call("GET", "assignment"), 401) == "unauthenticated"


def test_a_token_is_renewed_once_half_its_life_is_over(desk: Desk) -> None:
    supervisor = desk.launch()
    key, node_id = desk.config.signing_key, supervisor.assignment()["node_id"]
    fresh = supervisor.token
    soon = datetime.now(UTC) + timedelta(seconds=200)
    old = issue_attempt_token(key, supervisor.attempt_id, node_id, 1, soon)

    assert supervisor.lease()["token"] == fresh
    supervisor.token = old
    renewed = supervisor.lease()["token"]

    assert renewed != old
    supervisor.token = renewed
    supervisor.lease()


def test_a_lease_is_prolonged_and_progress_is_kept(desk: Desk) -> None:
    supervisor = desk.launch()
    progress = {"step": 10, "total_steps": 100, "steps_per_second": 2.5}
    before = datetime.now(UTC)

    supervisor.lease(progress=progress)
    supervisor.lease(progress=None)

    (attempt,) = desk.world.attempts(supervisor.job_id)
    (part,) = desk.world.parts(attempt.id)
    assert attempt.progress == progress
    assert part.lease_expires_at >= before + timedelta(seconds=60)
    assert part.workers == [{"rank": 0, "pid": 1, "state": "running"}]


def test_the_last_step_of_the_exit_is_the_progress(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease(progress={"step": 10, "total_steps": 12, "steps_per_second": 2.5})
    rank = {"rank": 0, "code": 0, "signal": None, "class": "ok", "last_step": 12}

    ok(supervisor.exit(ranks=[rank]))

    (attempt,) = desk.world.attempts(supervisor.job_id)
    assert attempt.progress == {"step": 12, "total_steps": 12, "steps_per_second": 2.5}


def test_a_stop_is_wanted_until_the_attempt_has_stopped(desk: Desk) -> None:
    node = desk.join()
    supervisor = desk.launch(TWO, node)
    supervisor.lease()

    stop(desk.database, supervisor.job_id, Reason.PAUSE_REQUESTED)

    here = {"attempt_id": supervisor.attempt_id, "epoch": 1}
    want = {**here, "reason": "PauseRequested", "grace_seconds": 30.0}
    assert node.beat()["stops"] == [want]
    assert node.beat()["stops"] == [want]
    wanted = supervisor.lease("stopping")["wanted"]
    assert (wanted["action"], wanted["reason"]) == ("stop", "PauseRequested")
    assert ok(supervisor.exit("stopped"))["job_state"] == "paused"
    assert node.beat()["stops"] == [{**here, "reason": "Stale", "grace_seconds": 0.0}]


def test_a_cancelled_job_is_cancelled_however_its_code_took_it(desk: Desk) -> None:
    node = desk.join()
    for outcome in ("succeeded", "failed", "stopped", "lost"):
        supervisor = desk.launch(ONE, node)
        supervisor.lease()
        stop(desk.database, supervisor.job_id, Reason.CANCEL_REQUESTED)

        assert ok(supervisor.exit(outcome))["job_state"] == "cancelled"


def test_a_checkpoint_wish_reaches_the_supervisor_once_per_serial(desk: Desk) -> None:
    node = desk.join()
    supervisor = desk.launch(TWO, node)
    assert supervisor.lease()["wanted"]["action"] == "run"

    for serial in (1, 2):
        with desk.database.write() as session:
            ask_checkpoint(session, session.get_one(Job, supervisor.job_id))
        assert node.beat()["nudges"] == [{"attempt_id": supervisor.attempt_id}]
        assert node.beat()["nudges"] == []
        wanted = supervisor.lease()["wanted"]
        assert (wanted["action"], wanted["serial"]) == ("checkpoint", serial)


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


def test_attempts_of_another_project_do_not_exist(desk: Desk) -> None:
    supervisor = desk.launch()
    stranger = desk.add_project("other")

    answer = desk.http.get(f"/v1/jobs/{supervisor.job_id}/attempts", headers=stranger)

    assert problem(answer, 404) == "not_found"


def test_a_malformed_report_is_refused_and_changes_nothing(desk: Desk) -> None:
    supervisor = desk.launch()
    before = desk.world.history(supervisor.job_id)
    reports: list[tuple[str, dict[str, Any]]] = [
        ("lease", {"phase": "dancing"}),
        ("lease", {"phase": "running", "progress": {"step": -1}}),
        ("lease", {"phase": "running", "progress": {"step": 2**63}}),
        ("lease", {"phase": "running", "unknown": 1}),
        ("lease", {"phase": "running", "rendezvous": {"address": "a", "port": 0}}),
        ("exit", {"outcome": "great"}),
        ("exit", {"outcome": "failed", "reason": "no spaces please"}),
        ("exit", {"outcome": "failed", "ranks": [{"rank": 0, "class": "?"}]}),
    ]

    for route, body in reports:
        answer = supervisor.call("POST", route, json=body)
        assert answer.status_code in {400, 422}, body

    assert desk.world.history(supervisor.job_id) == before


def print_lines(supervisor: Supervisor, rank: int) -> None:
    length = 0
    for line in range(25):
        length = ok(supervisor.append(b"%d %d\n" % (rank, line), length, rank=rank))["length"]


def measure(supervisor: Supervisor, rank: int) -> None:
    for line in range(25):
        ok(supervisor.measure(line, {"loss": [(line, 1.0)]}, rank=rank))


def renew(supervisor: Supervisor, _rank: int) -> None:
    for step in range(25):
        supervisor.lease(progress={"step": step, "total_steps": None, "steps_per_second": None})


def save(supervisor: Supervisor, rank: int) -> None:
    for step in range(10):
        write(
            supervisor.desk.database,
            lambda session: ask_checkpoint(session, session.get_one(Job, supervisor.job_id)),
        )
        supervisor.save(2 * step + rank)


def test_everything_at_once_is_kept_exactly_once(desk: Desk) -> None:
    supervisor = desk.launch(TWO)
    supervisor.lease()

    with ThreadPoolExecutor(8) as threads:
        works = [
            threads.submit(work, supervisor, rank)
            for work in (print_lines, measure, renew, save)
            for rank in (0, 1)
        ]
        for work in works:
            work.result(60)

    job = f"/v1/jobs/{supervisor.job_id}"
    for rank in (0, 1):
        lines = desk.get(f"{job}/logs", rank=rank)["data"]
        assert [line["text"] for line in lines] == [f"{rank} {line}" for line in range(25)]
        assert desk.get(f"{job}/metrics", key="loss", rank=rank)["steps"] == list(range(25))
    history = desk.world.history(supervisor.job_id)
    assert history.count("checkpoint.committed") == 20
    assert history.count("job.running") == 1
    assert desk.world.job(supervisor.job_id).checkpoint_serial > 0


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


STALL = {
    "action": "restart",
    "silent_seconds": 600.5,
    "missing_ranks": [1],
    "waiting_ranks": [0],
    "ranks": [{"rank": 0, "step": 7, "phase": "communication"}, {"rank": 1, "step": 7}],
    "stacks": [
        {"ranks": [1], "stack": "main thread:\n  train.py:15 in load_batch"},
        {"ranks": [0], "stack": "main thread:\n  https://me:secret@host/x.py:1 in all_reduce"},
    ],
}


def test_a_stall_becomes_one_event_with_every_stack(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease("running")
    report = {"sequence": 0, "kind": "stalled", "message": "rank 1 is missing", "data": STALL}

    answers = [ok(supervisor.call("POST", "reports", json=report)) for _ in range(2)]

    events = desk.get(f"/v1/jobs/{supervisor.job_id}/events")["data"]
    (stalled,) = [each for each in events if each["type"] == "attempt.stalled"]
    assert answers == [{"accepted": True}] * 2
    assert (stalled["state"], stalled["message"]) == ("running", "rank 1 is missing")
    assert stalled["data"]["attempt_id"] == supervisor.attempt_id
    assert [each["ranks"] for each in stalled["data"]["stacks"]] == [[1], [0]]
    assert "secret" not in str(stalled)


def test_a_stall_is_retried_as_a_fault_of_machines_unless_the_job_says_otherwise(
    desk: Desk,
) -> None:
    endings = {}
    for on_stall in ("restart", "fail"):
        spec = dataclasses.replace(TWO, health=Health(on_stall=on_stall))
        supervisor = desk.launch(spec)
        supervisor.lease("running")
        ok(supervisor.exit("failed", "StallDetected", message="rank 1 is missing"))
        job = desk.get(f"/v1/jobs/{supervisor.job_id}")
        endings[on_stall] = (job["state"], job["reason"])

    assert endings == {"restart": ("pending", "RetryBackoff"), "fail": ("failed", "StallDetected")}


def test_what_ranks_do_with_their_time_is_explained_while_they_run(desk: Desk) -> None:
    supervisor = desk.launch()
    times = {"window": 10.0, "checkpoint": 0.0, "idle": 0.0}
    fast = {**times, "data_wait": 0.2, "compute": 5.8, "communication": 4.0}
    slow = {**times, "data_wait": 4.1, "compute": 5.7, "communication": 0.2}
    ranks = [
        {"rank": 0, "pid": 1, "state": "running", "step": 7, "phase": "compute", "times": fast},
        {"rank": 1, "pid": 2, "state": "running", "step": 7, "memory_peak_bytes": 2**30,
         "phase": "data_wait", "times": slow},
    ]  # fmt: skip
    supervisor.lease("running", ranks=ranks)

    said = desk.get(f"/v1/jobs/{supervisor.job_id}/explain")["ranks"]

    assert (said["slow_rank"], said["cause"]) == (1, "data_wait")
    assert said["message"].startswith("rank 1 is slow: it waits for data for 41 % of its time")
    assert [(one["rank"], one["node"], one["step"]) for one in said["ranks"]] == [
        (0, "n0", 7), (1, "n0", 7),
    ]  # fmt: skip
    assert said["ranks"][1]["shares"]["data_wait"] == 0.41
    assert said["ranks"][1]["memory_peak_bytes"] == 2**30


def test_ranks_that_measure_nothing_are_listed_without_a_word(desk: Desk) -> None:
    supervisor = desk.launch()
    supervisor.lease("running")

    said = desk.get(f"/v1/jobs/{supervisor.job_id}/explain")["ranks"]

    assert (said["message"], said["slow_rank"]) == (None, None)
    assert [one["shares"] for one in said["ranks"]] == [None]
