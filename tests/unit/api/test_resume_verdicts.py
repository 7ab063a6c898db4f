"""From what two runs left behind to a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.jobs.resuming import hash_subject
from api.verification.plan import plan_interrupted, plan_interruption
from api.verification.verdict import (
    Evidence,
    FilePair,
    MetricPair,
    Verdict,
    Why,
    decide,
    pair_metrics,
)
from scheduler.core.spec import JobSpec, write_spec


def files(**same: bool) -> tuple[FilePair, ...]:
    """Return files by name, with _ for . and whether both are the same."""
    return tuple(
        FilePair(
            path=name.replace("_", "."),
            reference_sha256="a",
            interrupted_sha256="b",
            is_same=is_same,
        )
        for name, is_same in same.items()
    )


NEAR = MetricPair(name="loss", reference=1.0, interrupted=1.01, is_near=True)
FAR = MetricPair(name="loss", reference=1.0, interrupted=2.0, is_near=False)
SAME = files(model_safetensors=True, state_pt=True, meta_json=True)
OTHER = files(model_safetensors=False, state_pt=False, meta_json=True)
WEIGHTS = files(model_safetensors=False, config_json=True)


def evidence(**changes: Any) -> Evidence:
    """Return what two runs of 20 steps left, the second one resumed at step 8."""
    known: dict[str, Any] = {
        "steps": (20, 20), "resumed_step": 8, "first_step_after": 9, "files": SAME,
    }  # fmt: skip
    return Evidence(**{**known, **changes})


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
    [
        pytest.param({}, Verdict.EXACT, Why.SAME_FILES, id="the same files"),
        pytest.param(
            {"first_step_after": None}, Verdict.EXACT, Why.SAME_FILES, id="and it said no steps"
        ),
        pytest.param(
            {"first_step_after": 8}, Verdict.EXACT, Why.SAME_FILES, id="and it said the old step"
        ),
        pytest.param(
            {"files": OTHER, "metrics": (NEAR,)},
            Verdict.EQUIVALENT,
            Why.METRICS_AGREE,
            id="other bits, metrics that agree",
        ),
        pytest.param(
            {"files": OTHER, "metrics": (NEAR, FAR)},
            Verdict.UNKNOWN,
            Why.METRICS_DIFFER,
            id="one metric far off",
        ),
        pytest.param(
            {"files": OTHER}, Verdict.UNKNOWN, Why.NO_METRICS, id="other bits and no metrics"
        ),
        pytest.param(
            {"files": WEIGHTS, "metrics": (NEAR,)},
            Verdict.WEIGHTS_ONLY,
            Why.ONLY_WEIGHTS,
            id="only weights, whatever the metrics say",
        ),
        pytest.param(
            {"files": WEIGHTS, "first_step_after": 1},
            Verdict.WEIGHTS_ONLY,
            Why.ONLY_WEIGHTS,
            id="only weights, and steps counted anew",
        ),
        pytest.param(
            {"files": files(model_safetensors=True)},
            Verdict.EXACT,
            Why.SAME_FILES,
            id="only weights, which is enough where they are the same",
        ),
        pytest.param(
            {"first_step_after": 1},
            Verdict.UNKNOWN,
            Why.STARTED_AGAIN,
            id="the same because all was done again",
        ),
        pytest.param(
            {"first_step_after": 1, "files": OTHER, "metrics": (NEAR,)},
            Verdict.UNKNOWN,
            Why.STARTED_AGAIN,
            id="done again and otherwise",
        ),
        pytest.param(
            {"first_step_after": 1, "files": files(model_safetensors=True)},
            Verdict.UNKNOWN,
            Why.STARTED_AGAIN,
            id="weights alone that are the same because all was done again",
        ),
        pytest.param(
            {"steps": (20, 21)}, Verdict.UNKNOWN, Why.STEPS_DIFFER, id="another number of steps"
        ),
        pytest.param(
            {"resumed_step": None}, Verdict.UNKNOWN, Why.NOT_INTERRUPTED, id="never killed"
        ),
        pytest.param(
            {"resumed_step": 20}, Verdict.UNKNOWN, Why.NOT_INTERRUPTED, id="killed after its end"
        ),
        pytest.param(
            {"files": files(state_json=False), "metrics": (NEAR,)},
            Verdict.EQUIVALENT,
            Why.METRICS_AGREE,
            id="a file of its own kind may hold a state",
        ),
    ],
)
def test_a_verdict_promises_no_more_than_was_seen(
    seen: dict[str, Any], verdict: Verdict, reason: Why
) -> None:
    found = decide(evidence(**seen))

    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.message


def test_metrics_are_compared_relative_to_the_larger_and_speed_is_left_out() -> None:
    reference = {
        "loss": 1.0, "val/acc": 0.5, "zero": 0.0, "bad": "NaN", "huge": "Infinity", "mine": 1,
        "tokens_per_second": 100.0, "mfu": 0.5, "step/seconds": 1.0,
    }  # fmt: skip
    interrupted = {
        **reference, "loss": 1.05, "val/acc": 0.4, "mine": 2, "tokens_per_second": 1.0, "new": 1.0,
    }  # fmt: skip

    pairs = pair_metrics(reference, interrupted, tolerance=0.05)

    assert {pair.name: pair.is_near for pair in pairs} == {
        "loss": True, "val/acc": False, "zero": True, "bad": False, "huge": True, "mine": False,
    }  # fmt: skip
    only = pair_metrics(reference, interrupted, tolerance=0.05, only="mfu")
    assert [pair.name for pair in only] == ["mfu"]


@given(
    first=st.integers(0, 10**9),
    length=st.integers(0, 10**6),
    seed=st.integers(0, 2**53 - 1),
)
def test_there_is_a_checkpoint_before_the_kill_and_work_after_it(
    first: int, length: int, seed: int
) -> None:
    last = first + length

    planned = plan_interruption(first_step=first, last_step=last, seed=seed)

    assert (planned is None) == (length < 3)
    if planned is not None:
        assert first < planned.save_at_step < planned.kill_at_step < last
        assert planned.kill_at_step // planned.save_at_step <= 3
        assert planned == plan_interruption(first_step=first, last_step=last, seed=seed)


def test_seeds_reach_every_step() -> None:
    kills = {
        planned.kill_at_step
        for seed in range(200)
        if (planned := plan_interruption(first_step=0, last_step=6, seed=seed))
    }

    assert kills == {2, 3, 4, 5}


def test_the_killed_job_is_tried_again_at_once_and_is_the_same_otherwise() -> None:
    spec = write_spec(JobSpec(recipe="image-classifier", name="digits", hold=True))
    planned = plan_interruption(first_step=0, last_step=30, seed=1)
    assert planned is not None

    document = plan_interrupted(spec, "ver_1", "digits", planned)

    assert document["retry"]["backoff_seconds"] == 0
    assert document["checkpoint"]["every_steps"] == planned.save_at_step
    assert document["hold"] is False
    assert hash_subject(document, None, "1") == hash_subject(spec, None, "1")


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        pytest.param(
            {"name": "b", "labels": {"a": "b"}, "priority": 90}, True, id="names, priority"
        ),
        pytest.param({"code": "file_2"}, True, id="the same code uploaded again"),
        pytest.param({"inputs": {"data": "file_9"}}, True, id="other data"),
        pytest.param({"checkpoint": {"every_steps": 1}}, True, id="other checkpoints"),
        pytest.param({"workers": None, "parallel": {"data": 2, "shard": 1}}, False, id="a layout"),
        pytest.param({"workers": 3}, False, id="other workers"),
        pytest.param({"config": {"lr": 0.2}}, False, id="another configuration"),
        pytest.param({"env": {"A": "1"}}, False, id="another environment variable"),
        pytest.param({"resources": {"gpus": 1}}, False, id="other devices"),
        pytest.param({"pool": "a100"}, False, id="other machines"),
    ],
)
def test_what_decides_is_hashed_and_nothing_else(change: dict[str, Any], is_same: bool) -> None:
    spec = {
        "code": "file_1", "entrypoint": "train.py", "config": {"lr": 0.1}, "workers": 2,
        "resources": {"gpus": None}, "pool": "default", "name": "a",
    }  # fmt: skip

    one, other = hash_subject(spec, "c0de", "1"), hash_subject({**spec, **change}, "c0de", "1")

    assert (one == other) is is_same
    assert one != hash_subject(spec, "other", "1")
    assert one != hash_subject(spec, "c0de", "2")
