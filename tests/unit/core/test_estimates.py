"""What a job still needs: the smallest of what is known, else what it has had."""

from typing import Any

import pytest

from scheduler.core.cluster import NodeShare, Placement
from scheduler.core.estimates import estimate, find_remaining, measure_size
from scheduler.core.octaves import OCTAVE
from scheduler.core.policy import DEFAULT_POLICY, HOUR_MS
from tests.unit.core.world import NOW_MS, job, shape

MINUTE_MS = 60_000
ON_N0 = Placement(shares=(NodeShare(node_id="n0", num_workers=1, gpu_indices=(0,)),))


@pytest.mark.parametrize(
    ("known", "had_ms", "want_ms"),
    [
        pytest.param({}, 0, None, id="nothing is known"),
        pytest.param({"limit_ms": HOUR_MS}, 0, HOUR_MS, id="the limit"),
        pytest.param({"limit_ms": HOUR_MS}, 600_000, 3_000_000, id="what is left of the limit"),
        pytest.param({"limit_ms": HOUR_MS}, 2 * HOUR_MS, 72_000, id="a fiftieth of an old limit"),
        pytest.param({"history_ms": HOUR_MS}, 600_000, 3_000_000, id="what others left"),
        pytest.param({"history_ms": HOUR_MS}, HOUR_MS, None, id="it has outlived its history"),
        pytest.param(
            {"history_ms": HOUR_MS, "limit_ms": 9 * HOUR_MS}, 2 * HOUR_MS, 7 * HOUR_MS,
            id="one that outlived its history has its limit",
        ),
        pytest.param(
            {"history_ms": HOUR_MS, "limit_ms": 9 * HOUR_MS}, 0, HOUR_MS,
            id="history below the limit",
        ),
        pytest.param(
            {"remaining_ms": 600_000, "measured_ms": NOW_MS, "limit_ms": HOUR_MS}, 0, 600_000,
            id="measured below the limit",
        ),
        pytest.param(
            {"remaining_ms": 9 * HOUR_MS, "measured_ms": NOW_MS, "limit_ms": HOUR_MS}, 0, HOUR_MS,
            id="the limit below the measured",
        ),
        pytest.param(
            {"remaining_ms": HOUR_MS, "measured_ms": NOW_MS - 600_000}, 0, 3_000_000,
            id="measured some time ago",
        ),
        pytest.param(
            {"remaining_ms": 1000, "measured_ms": NOW_MS - HOUR_MS}, 0,
            DEFAULT_POLICY.restart_ms, id="never less than a restart",
        ),
    ],
)  # fmt: skip
def test_the_smallest_of_what_is_known_counts(
    known: dict[str, Any], had_ms: int, want_ms: int | None
) -> None:
    assert find_remaining(job("j1", **known), had_ms, NOW_MS, DEFAULT_POLICY) == want_ms


@pytest.mark.parametrize(
    ("served_ms", "want_octaves"),
    [
        pytest.param(0, 0, id="the first GPU-hour"),
        pytest.param(HOUR_MS - 1, 0, id="just before the boundary"),
        pytest.param(HOUR_MS, 1, id="from one GPU-hour"),
        pytest.param(10 * HOUR_MS, 2, id="from ten"),
        pytest.param(99 * HOUR_MS, 2, id="up to a hundred"),
    ],
)
def test_without_any_knowledge_queues_of_ten_times_the_service_follow_each_other(
    served_ms: int, want_octaves: int
) -> None:
    size = measure_size(shape(1, 1))
    first = estimate(job("j1"), size, NOW_MS, DEFAULT_POLICY)

    found = estimate(job("j1", served_ms=served_ms), size, NOW_MS, DEFAULT_POLICY)

    assert round((found.key - first.key) / OCTAVE / 3.3219) == want_octaves
    assert found.changes_at_ms is None


def test_a_running_job_changes_queues_when_it_has_had_the_boundary() -> None:
    view = job("j1", 1, 4, placement=ON_N0, started_ms=NOW_MS - 60_000)

    found = estimate(view, measure_size(view.shape), NOW_MS, DEFAULT_POLICY)

    assert found.changes_at_ms == view.started_ms + HOUR_MS // 4


def test_twice_the_gpus_is_one_octave_and_so_is_twice_the_time() -> None:
    keys = [
        estimate(view, measure_size(view.shape), NOW_MS, DEFAULT_POLICY).key
        for view in (
            job("j1", 1, 1, limit_ms=HOUR_MS),
            job("j2", 1, 2, limit_ms=HOUR_MS),
            job("j3", 1, 1, limit_ms=2 * HOUR_MS),
        )
    ]

    assert [key - keys[0] for key in keys] == [0, OCTAVE, OCTAVE]


def test_who_came_one_ageing_time_earlier_is_one_octave_better() -> None:
    late = job("j1", limit_ms=HOUR_MS)
    early = job("j2", limit_ms=HOUR_MS, submit_ms=NOW_MS - DEFAULT_POLICY.ageing_ms)

    keys = [estimate(view, 1000, NOW_MS, DEFAULT_POLICY).key for view in (early, late)]

    assert keys[1] - keys[0] == OCTAVE


def test_a_waiting_job_has_the_same_key_at_any_time() -> None:
    views = [job("j1"), job("j2", limit_ms=HOUR_MS, served_ms=5000), job("j3", history_ms=HOUR_MS)]

    for view in views:
        assert estimate(view, 1000, NOW_MS, DEFAULT_POLICY) == estimate(
            view, 1000, NOW_MS + 10 * HOUR_MS, DEFAULT_POLICY
        )


def test_a_gang_without_gpus_counts_its_cpus() -> None:
    assert measure_size(shape(4, 0, 4000)) == 2000
    assert measure_size(shape(1, 0, 1)) == 1
