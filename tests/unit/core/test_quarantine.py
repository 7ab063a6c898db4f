"""When a node gets no new work for a while."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.core.quarantine import DURATION, Fault, decide_quarantine
from scheduler.core.reasons import Reason

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _faults(*told: tuple[str, float]) -> list[Fault]:
    return [
        Fault(job_id=job_id, reason=Reason.RANK_KILLED, at=NOW - timedelta(minutes=minutes))
        for job_id, minutes in told
    ]


@pytest.mark.parametrize(
    ("faults", "is_due"),
    [
        pytest.param(_faults(("a", 5), ("b", 3), ("a", 0)), True, id="three, of two jobs"),
        pytest.param(_faults(("a", 5), ("b", 0)), False, id="two may be bad luck"),
        pytest.param(_faults(("a", 9), ("a", 5), ("a", 0)), False, id="one job may be the cause"),
        pytest.param(_faults(("a", 61), ("b", 3), ("a", 0)), False, id="one was long ago"),
        pytest.param(
            _faults(("a", 0.4), ("b", 0.2), ("c", 0), ("d", 0)), False, id="it went down once"
        ),
        pytest.param([], False, id="none"),
    ],
)
def test_a_node_that_fails_again_and_again_is_left_alone(faults: list[Fault], is_due: bool) -> None:
    assert (decide_quarantine(faults, now=NOW) is not None) is is_due


def test_the_quarantine_says_how_often_why_and_what_to_do() -> None:
    quarantine = decide_quarantine(_faults(("a", 5), ("b", 3), ("a", 1)), now=NOW)

    assert quarantine is not None
    assert quarantine.until == NOW - timedelta(minutes=1) + DURATION
    assert quarantine.message == (
        "failed 3 times within an hour, under 2 jobs (RankKilled): "
        "look at the machine, then uncordon the node"
    )
