"""Assignment, lease and exit: what supervisors say, and what becomes of the job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from api.attempts.writing import write
from api.auth.tokens import issue_attempt_token
from models import Attempt, Database, Job
from models.queries.attempts import ask_checkpoint, ask_stop, end_attempt
from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd
from scheduler.core.spec import JobSpec, RetrySpec
from scheduler.core.states import AttemptState, JobState
from tests.component.api_data.desk import ONE, TWO, Desk, Supervisor, bearer, ok, problem


def stop(database: Database, job_id: str, reason: str) -> None:
    with database.write() as session:
        ask_stop(session, session.get_one(Job, job_id), reason=reason, now=datetime.now(UTC))


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
