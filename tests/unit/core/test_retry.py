"""What becomes of a job when its attempt has ended."""

import pytest

from scheduler.core.reasons import Reason
from scheduler.core.retry import AttemptEnd, Outcome, decide_after_attempt
from scheduler.core.spec import Health, Limits, RetrySpec
from scheduler.core.states import JobEvent

CRASH = AttemptEnd(outcome="failed", reason=Reason.USER_CODE_ERROR, message="ValueError: x")
KILLED = AttemptEnd(outcome="failed", reason=Reason.RANK_KILLED)
LOST = AttemptEnd(outcome="lost", reason=Reason.LEASE_LOST)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "stopped", "lost"])
@pytest.mark.parametrize(
    ("stop_reason", "limits", "event", "reason"),
    [
        (Reason.CANCEL_REQUESTED, Limits(), JobEvent.CANCELLED, Reason.CANCELLED_BY_USER),
        (Reason.PAUSE_REQUESTED, Limits(), JobEvent.PAUSED, Reason.PAUSED_BY_USER),
        (Reason.DEADLINE_REACHED, Limits(), JobEvent.FAILED, Reason.DEADLINE_EXCEEDED),
        (
            Reason.DEADLINE_REACHED,
            Limits(on_deadline="pause"),
            JobEvent.PAUSED,
            Reason.PAUSED_BY_DEADLINE,
        ),
    ],
)
def test_a_stop_that_was_asked_for_decides(
    stop_reason: str, limits: Limits, event: JobEvent, reason: str, outcome: Outcome
) -> None:
    end = AttemptEnd(outcome=outcome, stop_reason=stop_reason)

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=limits, user_failures=0, infra_failures=0
    )

    assert (verdict.event, verdict.reason) == (event, reason)
    assert (verdict.user_failures, verdict.infra_failures) == (0, 0)


@pytest.mark.parametrize(
    ("end", "before", "event", "after", "delay_s"),
    [
        pytest.param(CRASH, (0, 0), JobEvent.FAILED, (1, 0), 0, id="code errors are not retried"),
        pytest.param(KILLED, (0, 0), JobEvent.REQUEUED, (0, 1), 10, id="a killed rank is"),
        pytest.param(LOST, (0, 9), JobEvent.REQUEUED, (0, 10), 10, id="up to the limit"),
        pytest.param(LOST, (0, 10), JobEvent.FAILED, (0, 11), 0, id="and no further"),
    ],
)
def test_each_kind_of_failure_spends_its_own_budget(
    end: AttemptEnd,
    before: tuple[int, int],
    event: JobEvent,
    after: tuple[int, int],
    delay_s: float,
) -> None:
    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), user_failures=before[0], infra_failures=before[1]
    )

    assert verdict.event is event
    assert (verdict.user_failures, verdict.infra_failures) == after
    assert verdict.delay_seconds == delay_s


def test_the_patience_for_code_errors_doubles_up_to_ten_minutes() -> None:
    retry = RetrySpec(max_user_failures=20, backoff_seconds=10)
    delays = [
        decide_after_attempt(
            CRASH, retry=retry, limits=Limits(), user_failures=n, infra_failures=0
        ).delay_seconds
        for n in range(8)
    ]

    assert delays == [10, 20, 40, 80, 160, 320, 600, 600]


def test_a_final_failure_says_what_the_code_said() -> None:
    verdict = decide_after_attempt(
        CRASH, retry=RetrySpec(), limits=Limits(), user_failures=0, infra_failures=0
    )

    assert (verdict.reason, verdict.message) == (Reason.USER_CODE_ERROR, "ValueError: x")


def test_a_clean_end_is_a_success() -> None:
    verdict = decide_after_attempt(
        AttemptEnd(outcome="succeeded"),
        retry=RetrySpec(),
        limits=Limits(),
        user_failures=3,
        infra_failures=2,
    )

    assert verdict.event is JobEvent.SUCCEEDED


@pytest.mark.parametrize(
    ("stop_reason", "reason"),
    [(Reason.PREEMPTING, Reason.PREEMPTED), (Reason.MIGRATING, Reason.MIGRATED)],
)
@pytest.mark.parametrize("outcome", ["failed", "stopped", "lost"])
def test_a_job_that_made_room_goes_on_at_once_however_its_code_took_it(
    stop_reason: str, reason: str, outcome: Outcome
) -> None:
    end = AttemptEnd(outcome=outcome, reason=Reason.USER_CODE_ERROR, stop_reason=stop_reason)

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), user_failures=0, infra_failures=0
    )

    assert (verdict.event, verdict.reason, verdict.delay_seconds) == (
        JobEvent.REQUEUED,
        reason,
        0.0,
    )
    assert (verdict.user_failures, verdict.infra_failures) == (0, 0)
    assert verdict.is_eviction
    assert verdict.keeps_deadline


@pytest.mark.parametrize(
    ("end", "keeps"),
    [
        pytest.param(
            AttemptEnd(outcome="stopped", stop_reason=Reason.NODE_DRAINING), True, id="a drain"
        ),
        pytest.param(LOST, False, id="a lost attempt, which is tried again"),
        pytest.param(
            AttemptEnd(outcome="stopped", stop_reason=Reason.PAUSE_REQUESTED), False, id="a pause"
        ),
    ],
)
def test_only_a_stop_by_the_service_is_part_of_the_same_run(end: AttemptEnd, keeps: bool) -> None:
    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), user_failures=0, infra_failures=0
    )

    assert verdict.keeps_deadline is keeps
    assert not verdict.is_eviction


@pytest.mark.parametrize(
    ("stop_reason", "limits", "event", "reason"),
    [
        (Reason.BUDGET_REACHED, Limits(gpu_hours=2), JobEvent.PAUSED, Reason.PAUSED_BY_BUDGET),
        (
            Reason.BUDGET_REACHED,
            Limits(gpu_hours=2, on_budget="fail"),
            JobEvent.FAILED,
            Reason.BUDGET_EXCEEDED,
        ),
        (
            Reason.BUDGET_SPENT,
            Limits(gpu_hours=2, on_budget="fail"),
            JobEvent.PAUSED,
            Reason.PAUSED_BY_BUDGET,
        ),
    ],
    ids=["its own, pause", "its own, fail", "the month's never fails a job"],
)
def test_a_spent_budget_pauses_or_fails(
    stop_reason: str, limits: Limits, event: JobEvent, reason: str
) -> None:
    end = AttemptEnd(outcome="stopped", stop_reason=stop_reason)

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=limits, user_failures=0, infra_failures=0
    )

    assert (verdict.event, verdict.reason) == (event, reason)


@pytest.mark.parametrize("stop_reason", [Reason.BUDGET_REACHED, Reason.PREEMPTING])
def test_a_job_that_ends_well_while_it_is_stopped_has_succeeded(stop_reason: str) -> None:
    end = AttemptEnd(outcome="succeeded", stop_reason=stop_reason)

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), user_failures=0, infra_failures=0
    )

    assert verdict.event is JobEvent.SUCCEEDED


@pytest.mark.parametrize(
    ("health", "event", "reason"),
    [
        pytest.param(Health(), JobEvent.REQUEUED, Reason.RETRY_BACKOFF, id="is restarted"),
        pytest.param(
            Health(on_stall="fail"), JobEvent.FAILED, Reason.STALL_DETECTED, id="ends the job"
        ),
    ],
)
def test_a_stall(health: Health, event: JobEvent, reason: Reason) -> None:
    end = AttemptEnd(outcome="failed", reason=Reason.STALL_DETECTED, message="rank 1 is missing")

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), health=health, user_failures=0, infra_failures=0
    )

    assert (verdict.event, verdict.reason) == (event, reason)
    assert (verdict.user_failures, verdict.infra_failures) == (0, 1)
    assert "rank 1 is missing" in verdict.message
