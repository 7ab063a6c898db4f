"""The two jobs of a verification, and where the second one is killed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LABEL = "trainmaster-verification"
_STEPS_MIN = 3
_SAVES_MAX = 3
_INFRA_FAILURES_MIN = 3
_NAME_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class Interruption:
    """Where the second job saves, and where it dies.

    Attributes:
        save_at_step: it saves at this step, and at every multiple of it.
        kill_at_step: all ranks die here, or as soon after it as there is a checkpoint.
    """

    save_at_step: int
    kill_at_step: int


def plan_interruption(*, first_step: int, last_step: int, seed: int) -> Interruption | None:
    """Return where to save and where to kill, None when there are too few steps for both.

    Any step may be it: one within an epoch, at its end, in the warm-up. There are at most three
    checkpoints before, and at least one step of work is lost and one is left to do.

    Args:
        first_step: the step that the job begins after, 0 unless it resumes from elsewhere.
        last_step: the step at which the uninterrupted job ended.
        seed: the same for the same answer.
    """
    if last_step - first_step < _STEPS_MIN:
        return None
    draw = random.Random(seed)
    kill = draw.randint(first_step + 2, last_step - 1)
    save = draw.randint(max(first_step + 1, -(-kill // _SAVES_MAX)), kill - 1)
    return Interruption(save_at_step=save, kill_at_step=kill)


def plan_reference(spec: Mapping[str, Any], verification_id: str, name: str) -> dict[str, Any]:
    """Return the spec of the job that nobody disturbs."""
    return {
        **spec,
        "name": f"{name[:_NAME_CHARS_MAX]}, uninterrupted",
        "labels": {**spec["labels"], LABEL: verification_id},
        # The user waits for the answer, not for other jobs or an hour.
        "hold": False,
        "begin_at": None,
        "depends_on": [],
    }


def plan_interrupted(
    spec: Mapping[str, Any], verification_id: str, name: str, interruption: Interruption
) -> dict[str, Any]:
    """Return the spec of the job that is killed once, and tried again at once."""
    retry, checkpoint = spec["retry"], spec["checkpoint"]
    return {
        **plan_reference(spec, verification_id, name),
        "name": f"{name[:_NAME_CHARS_MAX]}, interrupted",
        "checkpoint": {**checkpoint, "every_steps": interruption.save_at_step},
        "retry": {
            **retry,
            "max_infra_failures": max(retry["max_infra_failures"], _INFRA_FAILURES_MIN),
            "backoff_seconds": 0.0,
        },
    }
