"""Makes traces up, so that tests and first looks need nobody's log. Equal seeds, equal traces.

What a shared training cluster's log looks like, as the public ones do: most jobs are short and
most GPU time belongs to a few long ones; most want one GPU and few want many; some tenants submit
far more than others; days are busier than nights; limits are round numbers, far above what is
needed.
"""

from __future__ import annotations

import math
import random

from scheduler.sim.trace import Cluster, TraceJob

# GPUs of a gang, and how many of 100 jobs want that many.
GANGS = ((1, 60), (2, 10), (4, 10), (8, 14), (16, 4), (32, 2))
DURATION_MEDIAN_S = 1_200
DURATION_SIGMA = 2.0  # of the logarithm: the longest 10 % have about 13 times the median or more
DURATION_MIN_S, DURATION_MAX_S = 10, 20 * 86_400
NUM_TENANTS = 8
DAY_S = 86_400
DAY_SWING = 0.6  # around the mean rate, at its highest at noon
OVERESTIMATES = (1.1, 2.0, 5.0, 10.0)
LIMITS_S = (
    *(900, 1_800, 3_600, 2 * 3_600, 4 * 3_600, 8 * 3_600, 12 * 3_600),
    *(DAY_S * days for days in (1, 2, 3, 5, 7, 14, 30, 60, 120, 240)),
)


def make_trace(
    *, num_jobs: int, cluster: Cluster, seed: int, load: float = 0.9
) -> tuple[TraceJob, ...]:
    """Return jobs in submit order, that fit on the cluster.

    Args:
        num_jobs: at least 1.
        load: GPU time asked for ÷ GPU time there is while jobs come; > 1 makes the queue grow.
    """
    draw = random.Random(seed)
    sizes = [(gpus, share) for gpus, share in GANGS if gpus <= cluster.num_gpus]
    gangs = draw.choices([g for g, _ in sizes], [share for _, share in sizes], k=num_jobs)
    durations_ms = [_draw_duration_ms(draw) for _ in range(num_jobs)]
    work_ms = sum(gpus * ms for gpus, ms in zip(gangs, durations_ms, strict=True))
    span_ms = work_ms / (cluster.num_gpus * load)
    tenants = [f"tenant-{rank}" for rank in range(1, NUM_TENANTS + 1)]
    zipf = [1 / rank for rank in range(1, NUM_TENANTS + 1)]
    owners = draw.choices(tenants, zipf, k=num_jobs)
    submits_ms = _draw_submits_ms(draw, num_jobs, span_ms)
    return tuple(
        TraceJob(
            job_id=f"job-{index}",
            submit_ms=submits_ms[index],
            gpus=gangs[index],
            duration_ms=durations_ms[index],
            vc=owners[index],
            limit_ms=_draw_limit_ms(draw, durations_ms[index]),
        )
        for index in range(num_jobs)
    )


def _draw_duration_ms(draw: random.Random) -> int:
    seconds = draw.lognormvariate(math.log(DURATION_MEDIAN_S), DURATION_SIGMA)
    return round(min(max(seconds, DURATION_MIN_S), DURATION_MAX_S) * 1000)


def _draw_submits_ms(draw: random.Random, num_jobs: int, span_ms: float) -> list[int]:
    """Return Poisson arrivals whose rate follows the day, thinned from the highest rate."""
    rate_max = num_jobs / span_ms * (1 + DAY_SWING)
    at_ms = 0.0
    submits_ms: list[int] = []
    while len(submits_ms) < num_jobs:
        at_ms += draw.expovariate(rate_max)
        day = at_ms / 1000 / DAY_S
        rate = 1 - DAY_SWING * math.cos(2 * math.pi * day)
        if draw.random() * (1 + DAY_SWING) < rate:
            submits_ms.append(round(at_ms))
    return submits_ms


def _draw_limit_ms(draw: random.Random, duration_ms: int) -> int:
    wanted_s = duration_ms / 1000 * draw.choice(OVERESTIMATES)
    customary_s = next((limit for limit in LIMITS_S if limit >= wanted_s), None)
    return 1000 * (math.ceil(wanted_s) if customary_s is None else customary_s)
