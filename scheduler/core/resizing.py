"""Giving a job another number of workers: which are allowed, and what it does in each state. Pure.

What changes is the number of replicas; how one is spread over ranks stays. The global batch is a
part of the configuration, not of the layout, so it stays too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.core.errors import IllegalTransition, Problem
from scheduler.core.reasons import STOPS_THAT_GO_ON, Reason
from scheduler.core.spec import Elastic, JobSpec, Parallel
from scheduler.core.states import JobState

_S = JobState
_RESTING = frozenset({_S.PENDING, _S.QUEUED, _S.PAUSED})
_ACTIVE = frozenset({_S.STARTING, _S.RUNNING})
_MAY_GO_ON = STOPS_THAT_GO_ON | {Reason.PAUSE_REQUESTED}
"""Stops after which a job may run again, and so may have another size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeNow:
    """The job holds no places: it has the new size at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeAtEnd:
    """The attempt keeps its size; the job has the new one when the attempt has ended.

    Attributes:
        asks_stop: whether the attempt is to be asked to save and stop for it.
    """

    asks_stop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeKept:
    """The job keeps its size, though it was to have another; its attempt stops all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeAlready:
    """The job has that size, or is about to."""


Resizing = SizeNow | SizeAtEnd | SizeKept | SizeAlready


def decide_resize(
    job_id: str,
    state: JobState,
    stop_reason: str | None,
    *,
    num_workers: int,
    planned: int | None,
    wanted: int,
) -> Resizing:
    """Return what asking for `wanted` workers does now.

    Args:
        num_workers: what the job has.
        planned: what it is to have once its attempt has ended, None where that is not another.

    Raises:
        IllegalTransition: it ends, and will not run again.
    """
    may_go_on = state in _RESTING | _ACTIVE or (state is _S.STOPPING and stop_reason in _MAY_GO_ON)
    if not may_go_on:
        raise IllegalTransition(job_id, state, "resize", sorted(_RESTING | _ACTIVE))
    if wanted == (num_workers if planned is None else planned):
        return SizeAlready()
    if wanted == num_workers:
        return SizeKept()
    return SizeNow() if state in _RESTING else SizeAtEnd(asks_stop=state in _ACTIVE)


def resize_spec(spec: JobSpec, num_workers: int) -> JobSpec:
    """Return `spec` with another number of replicas; workers and parallel.data change together."""
    parallel = spec.parallel
    if parallel is not None:
        parallel = dataclasses.replace(parallel, data=num_workers // parallel.replica_size)
    return dataclasses.replace(spec, workers=num_workers, parallel=parallel)


def resize_document(document: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    """Return a whole document of a spec with another number of replicas."""
    parallel = document.get("parallel")
    if parallel is not None:
        parallel = {**parallel, "data": num_workers // Parallel(**parallel).replica_size}
    return {**document, "workers": num_workers, "parallel": parallel}


def check_elastic(spec: JobSpec) -> Iterator[Problem]:
    """Yield what is wrong with the bounds themselves."""
    bounds = spec.elastic
    if bounds is None:
        return
    if bounds.min_workers > bounds.max_workers:
        message = (
            f"min_workers is {bounds.min_workers}, max_workers is {bounds.max_workers}: make the "
            "first the smaller one"
        )
        yield Problem("/elastic/min_workers", "bounds_crossed", message)
        return
    num_workers = spec.num_workers
    if not bounds.allows(num_workers):
        message = (
            f"the job starts with {num_workers} workers, which does not lie from "
            f"{bounds.min_workers} to {bounds.max_workers}: set workers, or make the bounds wider"
        )
        yield Problem("/elastic", "workers_outside", message)
    yield from _check_cut("/elastic/min_workers", bounds.min_workers, spec)
    yield from _check_cut("/elastic/max_workers", bounds.max_workers, spec)


def check_size(spec: JobSpec, num_workers: int) -> Iterator[Problem]:
    """Yield why a job may not have `num_workers`, as its own bounds and replicas go.

    Args:
        spec: with `elastic`.
    """
    bounds = spec.elastic or Elastic(min_workers=spec.num_workers, max_workers=spec.num_workers)
    if not bounds.allows(num_workers):
        message = (
            f"elastic allows {bounds.min_workers} to {bounds.max_workers} workers, not "
            f"{num_workers}: ask for a number between, or fork the job with wider bounds"
        )
        yield Problem("/workers", "out_of_bounds", message)
    yield from _check_cut("/workers", num_workers, spec)


def _check_cut(pointer: str, count: int, spec: JobSpec) -> Iterator[Problem]:
    per_replica = (spec.parallel or Parallel()).replica_size
    if count % per_replica:
        below = count // per_replica * per_replica
        choices = [each for each in (below, below + per_replica) if each > 0]
        message = (
            f"one replica is spread over {per_replica} ranks (shard x tensor x pipeline), and "
            f"{count} is no multiple of that: use {' or '.join(map(str, choices))}"
        )
        yield Problem(pointer, "replica_cut", message)
