"""What asking for another size does in each state, and which sizes a job may have."""

import pytest

from scheduler.core.control import Action, Already, AskStop, decide_action
from scheduler.core.errors import IllegalTransition
from scheduler.core.reasons import Reason
from scheduler.core.resizing import (
    Resizing,
    SizeAlready,
    SizeAtEnd,
    SizeKept,
    SizeNow,
    check_size,
    decide_resize,
    resize_document,
    resize_spec,
)
from scheduler.core.retry import AttemptEnd, decide_after_attempt
from scheduler.core.spec import Elastic, JobSpec, Limits, Parallel, RetrySpec, write_spec
from scheduler.core.states import JobEvent, JobState

ASKED, NOTED = SizeAtEnd(asks_stop=True), SizeAtEnd(asks_stop=False)


@pytest.mark.parametrize(
    ("state", "stop_reason", "want"),
    [
        ("pending", None, SizeNow()),
        ("queued", None, SizeNow()),
        ("paused", None, SizeNow()),
        ("starting", None, ASKED),
        ("running", None, ASKED),
        ("stopping", Reason.RESIZING, NOTED),
        ("stopping", Reason.PAUSE_REQUESTED, NOTED),
        ("stopping", Reason.PREEMPTING, NOTED),
        ("stopping", Reason.MIGRATING, NOTED),
        ("stopping", Reason.NODE_DRAINING, NOTED),
        ("stopping", Reason.CANCEL_REQUESTED, None),
        ("stopping", Reason.DEADLINE_REACHED, None),
        ("stopping", Reason.BUDGET_REACHED, None),
        ("finalizing", None, None),
        ("succeeded", None, None),
        ("failed", None, None),
        ("cancelled", None, None),
    ],
)
def test_another_size_in_each_state(
    state: str, stop_reason: str | None, want: Resizing | None
) -> None:
    def decide() -> Resizing:
        return decide_resize(
            "job_1", JobState(state), stop_reason, num_workers=2, planned=None, wanted=3
        )

    if want is None:
        with pytest.raises(IllegalTransition, match="resize needs one of"):
            decide()
    else:
        assert decide() == want


@pytest.mark.parametrize(
    ("planned", "wanted", "want"),
    [
        pytest.param(None, 2, SizeAlready(), id="the size it has"),
        pytest.param(3, 3, SizeAlready(), id="the size it is about to have"),
        pytest.param(3, 2, SizeKept(), id="back to the size it has: it stops, and keeps it"),
        pytest.param(3, 4, NOTED, id="who asks last decides"),
    ],
)
def test_a_size_is_compared_with_the_one_to_come(
    planned: int | None, wanted: int, want: Resizing
) -> None:
    state, reason = (
        (JobState.RUNNING, None) if planned is None else (JobState.STOPPING, Reason.RESIZING)
    )

    effect = decide_resize("j", state, reason, num_workers=2, planned=planned, wanted=wanted)

    assert effect == want


def test_a_job_that_is_resized_may_be_paused_or_cancelled_and_needs_no_resume() -> None:
    stopping = JobState.STOPPING

    paused = decide_action("j", stopping, Reason.RESIZING, Action.PAUSE)

    assert paused == AskStop(reason=Reason.PAUSE_REQUESTED)
    assert decide_action("j", stopping, Reason.RESIZING, Action.RESUME) == Already()
    assert decide_action("j", stopping, Reason.RESIZING, Action.CANCEL) == AskStop(
        reason=Reason.CANCEL_REQUESTED
    )


@pytest.mark.parametrize("outcome", ["stopped", "failed"])
def test_a_resize_spends_neither_failures_nor_evictions_and_gives_no_fresh_limit(
    outcome: str,
) -> None:
    end = AttemptEnd(outcome=outcome, stop_reason=Reason.RESIZING)  # type: ignore[arg-type]  # one of the outcomes

    verdict = decide_after_attempt(
        end, retry=RetrySpec(), limits=Limits(), user_failures=0, infra_failures=0
    )

    assert (verdict.event, verdict.reason) == (JobEvent.REQUEUED, Reason.RESIZED)
    assert (verdict.user_failures, verdict.infra_failures) == (0, 0)
    assert (verdict.is_eviction, verdict.delay_seconds, verdict.keeps_deadline) == (False, 0, True)


@pytest.mark.parametrize("outcome", ["stopped", "failed", "lost"])
def test_a_resize_that_was_called_off_gives_no_other_size_and_the_job_goes_on(outcome: str) -> None:
    end = AttemptEnd(outcome=outcome, stop_reason=Reason.RESIZING)  # type: ignore[arg-type]  # one of the outcomes

    verdict = decide_after_attempt(
        end,
        retry=RetrySpec(),
        limits=Limits(),
        user_failures=0,
        infra_failures=0,
        keeps_size=True,
    )

    assert (verdict.event, verdict.reason) == (JobEvent.REQUEUED, Reason.RESUMED)
    assert "keeps its number of workers" in verdict.message
    assert (verdict.user_failures, verdict.infra_failures, verdict.delay_seconds) == (0, 0, 0)


@pytest.mark.parametrize(
    ("parallel", "num_workers", "want"),
    [
        (None, 3, None),
        (Parallel(data=2), 3, Parallel(data=3)),
        (Parallel(data=1, shard=2), 6, Parallel(data=3, shard=2)),
        (Parallel(data=2, tensor=2, pipeline=2), 4, Parallel(data=1, tensor=2, pipeline=2)),
    ],
)
def test_workers_and_replicas_change_together_in_spec_and_document_alike(
    parallel: Parallel | None, num_workers: int, want: Parallel | None
) -> None:
    spec = JobSpec(recipe="r", workers=parallel.num_workers if parallel else 2, parallel=parallel)

    resized = resize_spec(spec, num_workers)

    assert (resized.num_workers, resized.parallel) == (num_workers, want)
    assert resize_document(write_spec(spec), num_workers) == write_spec(resized)


def test_a_job_that_named_its_layout_only_has_a_number_of_workers_once_it_is_resized() -> None:
    spec = JobSpec(recipe="r", parallel=Parallel(data=2, shard=2))

    assert resize_spec(spec, 2).num_workers == 2


@pytest.mark.parametrize(
    ("num_workers", "want"),
    [
        (2, []),
        (8, []),
        (1, ["out_of_bounds", "replica_cut"]),
        (9, ["out_of_bounds", "replica_cut"]),
        (3, ["replica_cut"]),
        (10, ["out_of_bounds"]),
    ],
)
def test_a_size_lies_within_the_bounds_and_cuts_no_replica(
    num_workers: int, want: list[str]
) -> None:
    spec = JobSpec(
        recipe="r",
        workers=4,
        parallel=Parallel(data=2, shard=2),
        elastic=Elastic(min_workers=2, max_workers=8),
    )

    found = list(check_size(spec, num_workers))

    assert [problem.code for problem in found] == want
    assert {problem.pointer for problem in found} <= {"/workers"}


@pytest.mark.parametrize(("num_workers", "way_out"), [(1, "use 2"), (5, "use 4 or 6")])
def test_the_sizes_beside_one_that_cuts_a_replica_are_named(num_workers: int, way_out: str) -> None:
    spec = JobSpec(
        recipe="r",
        workers=4,
        parallel=Parallel(data=2, shard=2),
        elastic=Elastic(min_workers=2, max_workers=8),
    )

    *_, problem = check_size(spec, num_workers)

    assert problem.message.endswith(way_out)
