"""Which rank is slow, and why; what all of them spend their time on."""

from __future__ import annotations

from typing import Any

import pytest

from api.explain.ranks import PHASES, RankNow, judge, read_rank


def spent(rank: int, **shares: float) -> RankNow:
    return RankNow(
        rank=rank, node="n0", state="running", shares={name: shares.get(name, 0) for name in PHASES}
    )


@pytest.mark.parametrize(
    ("ranks", "slow_rank", "cause", "message"),
    [
        pytest.param(
            [
                spent(0, compute=0.55, communication=0.43, data_wait=0.02),
                spent(1, compute=0.55, communication=0.42, data_wait=0.03),
                spent(2, compute=0.55, communication=0.04, data_wait=0.41),
            ], 2, "data_wait",
            "rank 2 is slow: it waits for data for 41 % of its time, the others for 2 %; the "
            "others wait for it and for communication for 42 %",
            id="slow data",
        ),
        pytest.param(
            [
                spent(0, compute=0.9, communication=0.05, data_wait=0.05),
                spent(1, compute=0.5, communication=0.45, data_wait=0.05),
            ], 0, "compute",
            "rank 0 is slow: it computes for 90 % of its time, the other for 50 %; the other waits "
            "for it and for communication for 45 %",
            id="a slow processor",
        ),
        pytest.param(
            [
                spent(0, compute=0.3, communication=0.1, checkpoint=0.6),
                spent(1, compute=0.3, communication=0.7),
            ], 0, "checkpoint",
            "rank 0 is slow: it saves for 60 % of its time, the other for 0 %; the other waits for "
            "it and for communication for 70 %",
            id="one that saves for all",
        ),
        pytest.param(
            [spent(0, compute=0.6, data_wait=0.4), spent(1, compute=0.62, data_wait=0.38)],
            None, "data_wait",
            "the ranks spend their time: 61 % computing, 39 % waiting for data",
            id="all wait for data",
        ),
        pytest.param(
            [spent(0, compute=0.95, communication=0.05), spent(1, compute=0.9, communication=0.1)],
            None, None,
            "the ranks spend their time: 92 % computing, 8 % communicating",
            id="all is well",
        ),
        pytest.param(
            [spent(0, compute=0.98, idle=0.02)], None, None,
            "it spends its time: 98 % computing, 2 % outside of the training loop",
            id="a rank alone",
        ),
    ],
)  # fmt: skip
def test_of_these_ranks_it_is_said(
    ranks: list[RankNow], slow_rank: int | None, cause: str | None, message: str
) -> None:
    verdict = judge(ranks)

    assert verdict is not None
    assert (verdict.slow_rank, verdict.cause) == (slow_rank, cause)
    assert verdict.message == message


def test_of_ranks_that_measure_nothing_nothing_is_said() -> None:
    assert judge([RankNow(rank=0, node="n0", state="running", step=5)]) is None
    assert judge([]) is None


TIMES = {
    "window": 10.0,
    "data_wait": 4.0,
    "compute": 5.0,
    "communication": 1.0,
    "checkpoint": 0.0,
    "idle": 0.0,
}


@pytest.mark.parametrize(
    ("times", "want"),
    [
        (TIMES, {"data_wait": 0.4, "compute": 0.5, "communication": 0.1}),
        ({**TIMES, "window": 1.5}, {}),
        (None, {}),
        ({**TIMES, "data_wait": 10.2}, {"data_wait": 1.0, "compute": 0.5, "communication": 0.1}),
    ],
    ids=["a while", "too short a while", "nothing", "a little too much"],
)
def test_shares_are_of_what_a_lease_said(
    times: dict[str, float] | None, want: dict[str, float]
) -> None:
    worker: dict[str, Any] = {"rank": 3, "pid": 7, "state": "running", "times": times}

    read = read_rank(worker, "gpu-01")

    assert (read.rank, read.node, read.step) == (3, "gpu-01", None)
    assert {name: share for name, share in read.shares.items() if share} == want
