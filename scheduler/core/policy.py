"""The constants of the scheduling policy, and where each comes from. Pure.

None is fitted to a workload: each is a custom of the field, a round number, or a consequence of
another. What halving and doubling each does on two public traces is measured in
docs/scheduling.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.octaves import OCTAVE

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How waiting is ordered and when running is disturbed.

    Attributes:
        ageing_ms: a job that waits this long outranks one that is half as large and comes then.
            40 days: below it large jobs gain little and the mean suffers, above it the largest
            wait a second time; the curve is flat from 20 to 80.
        margin: what a preemptor must be better by, in 1/1024 octaves. Half an octave: an estimate
            that is wrong by 40 % does not evict.
        patience_ppm: a job evicts only when it has waited this part of its own estimate. Places
            come free by themselves often enough that a short wait saves most evictions.
        patience_min_ms: but at least as long as an eviction costs its victim.
        patience_base: each eviction that a victim has suffered multiplies that wait, so that the
            budget of a long job lasts for its life.
        evictions_max: budget of a job: after so many it runs to its end.
        starved_min_ms, starved_factor: a job that has waited a day, and ten times what it asks
            for, goes first in its class, and is not evicted for as long as it asked for.
        exempt_ms: a job that has just got its places keeps them at least this long.
        restart_ms: what an eviction costs beyond lost work: stop, start, load the checkpoint.
        attained_gpu_ms: the first boundary of the attained-service queues, one GPU-hour.
        attained_base: from one boundary to the next.
        half_life_ms: of usage in the fair share; 7 days is Slurm's default.
        overshare_ppm: octaves that a project or user pays for each doubling above its fair share.
        overshare_max: and never more, in 1/1024 octaves.
        floor_ppm: an estimate never falls below this part of what was declared: a job near its
            limit is short, not infinitely urgent.
        claim_extra_ms: how long after the victims' grace places are kept for their preemptor.
        victims_max, nodes_max: how many of the worst-ranked running jobs, and of the emptiest
            nodes, a search for room looks at; bounds a pass on large clusters.
    """

    ageing_ms: int = 40 * DAY_MS
    margin: int = OCTAVE // 2
    patience_ppm: int = 5_000
    patience_min_ms: int = 60 * SECOND_MS
    patience_base: int = 2
    evictions_max: int = 6
    starved_min_ms: int = DAY_MS
    starved_factor: int = 10
    exempt_ms: int = 0
    restart_ms: int = 60 * SECOND_MS
    attained_gpu_ms: int = HOUR_MS
    attained_base: int = 10
    half_life_ms: int = 7 * DAY_MS
    overshare_ppm: int = 1_000_000
    overshare_max: int = 3 * OCTAVE
    floor_ppm: int = 20_000
    claim_extra_ms: int = 60 * SECOND_MS
    victims_max: int = 256
    nodes_max: int = 64


DEFAULT_POLICY = Policy()
