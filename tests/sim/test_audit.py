"""The audit finds what is planted."""

from dataclasses import replace

import pytest

from scheduler.sim.outcome import Outcome, Run
from tests.sim.audit import find_faults
from tests.sim.traces import cluster_of, job

JOBS = (job("a", 1, 2, 10), job("wide", 0, 3, 20))
FIRST = Run(0, 1000, 6000, 0, ((0, 0b11),), False)
SECOND = Run(0, 30_000, 95_000, 60_000, ((1, 0b11),), True)
WIDE = Run(1, 6000, 26_000, 0, ((0, 0b01), (1, 0b11)), True)


def find(*runs: Run) -> list[str]:
    return find_faults(
        Outcome(jobs=JOBS, cluster=cluster_of(2, 2), runs=list(runs)), resume_ms=60_000
    )


def test_a_replay_as_it_should_be_has_no_faults() -> None:
    assert find(FIRST, SECOND, WIDE) == []


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        pytest.param(
            [FIRST, SECOND, replace(WIDE, start_ms=5999, stop_ms=25_999)],
            "GPU (0, 0) is given to 1 and 0 at 5999",
            id="a GPU held twice",
        ),
        pytest.param(
            [FIRST, SECOND, replace(WIDE, place=((0, 0b11),))],
            "job 1: a gang of 3 sits [2]",
            id="a gang in part",
        ),
        pytest.param(
            [FIRST, replace(SECOND, place=((0, 1), (1, 1))), WIDE],
            "job 0: a gang of 2 sits [1, 1]",
            id="a small gang on two nodes",
        ),
        pytest.param(
            [FIRST, replace(SECOND, place=((1, 0b110),)), WIDE],
            "job 0: sits where no GPU is",
            id="a GPU that is not there",
        ),
        pytest.param(
            [FIRST, replace(SECOND, stop_ms=94_000), WIDE],
            "job 0: was served 9000 of 10000 ms",
            id="service lost",
        ),
        pytest.param(
            [FIRST, replace(SECOND, resume_ms=0, stop_ms=35_000), WIDE],
            "job 0: start 1 resumes in 0 ms",
            id="a resume for nothing",
        ),
        pytest.param(
            [FIRST, replace(SECOND, is_last=False), WIDE],
            "job 0: its end is not its last stop",
            id="a job that never ended",
        ),
        pytest.param(
            [replace(FIRST, start_ms=0, stop_ms=5000), SECOND, WIDE],
            "job 0: never ran, or before it was submitted",
            id="a start before the submit",
        ),
        pytest.param([FIRST, SECOND], "job 1: never ran, or before it was submitted", id="no run"),
    ],
)
def test_a_planted_fault_is_found(runs: list[Run], fault: str) -> None:
    assert find(*runs) == [fault]
