"""Which ways of spreading a model and joining its replicas go together. Pure.

`parallel` says how one model copy is spread over ranks, `sync` how the copies are joined; why they
are two is in docs/decisions/0017. What is not a combination is refused here, at submit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from scheduler.core.errors import Problem
from scheduler.core.spec import JobSpec, Parallel, Sync, SyncMode

FIELDS: Final[dict[SyncMode, frozenset[str]]] = {
    "allreduce": frozenset(),
    "local_sgd": frozenset({"every"}),
    "diloco": frozenset({"every", "outer_lr", "outer_momentum", "fragments"}),
    "parameter_server": frozenset({"staleness", "servers", "compensation"}),
    "gossip": frozenset({"graph", "every"}),
}
"""What each mode knows beside `mode` and `compression`."""

COMPRESSIONS: Final[dict[SyncMode, tuple[str, ...]]] = {
    "allreduce": ("none", "fp16", "bf16"),
    "local_sgd": ("none", "fp16", "bf16", "int8", "int4"),
    "diloco": ("none", "fp16", "bf16", "int8", "int4"),
    "parameter_server": ("none", "fp16", "bf16", "int8"),
    "gossip": ("none",),
}

EVERY: Final = 16
"""Steps between rounds where the job does not say; the library's own default."""

SPLITS_BY_PLAN: Final = ("tensor", "pipeline")
"""What a model can only be spread by with a plan beside it."""


def check_modes(spec: JobSpec, splits: frozenset[str] | None) -> Iterator[Problem]:
    """Yield what does not go together in `parallel` and `sync`.

    Args:
        splits: of SPLITS_BY_PLAN, those that the recipe has a plan for; None for a job that brings
            its own code, whose plan only its ranks can see.
    """
    parallel = spec.parallel or Parallel(data=spec.num_workers)
    yield from _check_framework(spec, parallel)
    if splits is not None:
        yield from _check_plan(spec.recipe or "", parallel, splits)
    yield from _check_sync(spec.sync, parallel)


def _check_framework(spec: JobSpec, parallel: Parallel) -> Iterator[Problem]:
    if spec.framework == "torch":
        return
    for pointer, is_asked in (("/parallel", _is_spread(parallel)), ("/sync", spec.sync != Sync())):
        if is_asked:
            message = (
                f"the service spreads and joins models of torch only, and framework is "
                f"{spec.framework}: leave this out, and let the script do it"
            )
            yield Problem(pointer, "not_of_this_framework", message)


def _check_plan(recipe: str, parallel: Parallel, splits: frozenset[str]) -> Iterator[Problem]:
    for name in SPLITS_BY_PLAN:
        if getattr(parallel, name) != 1 and name not in splits:
            message = (
                f"recipe {recipe} has no plan for {name} parallelism: use data or shard, which "
                "take any model"
            )
            yield Problem(f"/parallel/{name}", "no_plan", message)


def _check_sync(sync: Sync, parallel: Parallel) -> Iterator[Problem]:
    mode = sync.mode
    if mode == "gossip":
        message = "gossip is not available yet: use local_sgd or diloco"
        yield Problem("/sync/mode", "not_available", message)
        return
    yield from _check_fields(sync)
    yield from _check_fragments(sync)
    yield from _check_compression(sync, parallel)
    yield from _check_servers(sync, parallel)
    if mode == "parameter_server":
        yield from _check_spread(sync, parallel)


def _check_fields(sync: Sync) -> Iterator[Problem]:
    plain = Sync()
    known = FIELDS[sync.mode]
    for name in sorted(frozenset[str]().union(*FIELDS.values()) - known):
        if getattr(sync, name) != getattr(plain, name):
            has = f"it has {', '.join(sorted(known))}" if known else "it has no fields"
            message = f"{sync.mode} has no {name} ({has}): leave it out"
            yield Problem(f"/sync/{name}", "not_of_this_mode", message)


def _check_fragments(sync: Sync) -> Iterator[Problem]:
    every = sync.every or EVERY
    if sync.fragments is not None and sync.fragments > every:
        message = (
            f"a round comes every {every} steps and has at most one fragment for each: ask for "
            "fewer fragments, or for rounds farther apart"
        )
        yield Problem("/sync/fragments", "too_many_fragments", message)


def _check_compression(sync: Sync, parallel: Parallel) -> Iterator[Problem]:
    known = COMPRESSIONS[sync.mode]
    if sync.compression not in known:
        message = f"{sync.mode} compresses by {', '.join(known)}: use one of these"
        yield Problem("/sync/compression", "not_of_this_mode", message)
    elif sync.mode == "allreduce" and sync.compression != "none" and _is_spread(parallel):
        message = (
            "gradients of a model spread over several ranks travel as they are: leave compression "
            "out, or join the replicas with local_sgd or diloco"
        )
        yield Problem("/sync/compression", "spread_uncompressed", message)


def _check_spread(sync: Sync, parallel: Parallel) -> Iterator[Problem]:
    if _is_spread(parallel):
        if sync.staleness == 0:
            message = (
                "a parameter server takes whole replicas of one rank each: use allreduce, which "
                "computes the same, or leave out shard, tensor and pipeline"
            )
        else:
            message = (
                "the ranks of one replica must see the same parameters at every step, which "
                "asynchronous pulls cannot promise: use local_sgd or diloco, or leave out shard, "
                "tensor and pipeline"
            )
        yield Problem("/sync/mode", "spread_replicas", message)


def _check_servers(sync: Sync, parallel: Parallel) -> Iterator[Problem]:
    if sync.servers is not None and sync.servers > parallel.data:
        message = (
            f"there is one server beside a worker at most, and the job has {parallel.data}: ask "
            "for fewer servers"
        )
        yield Problem("/sync/servers", "too_many_servers", message)
    if sync.compensation is not None and sync.staleness == 0:
        message = "synchronous gradients are never stale: leave compensation out"
        yield Problem("/sync/compensation", "nothing_to_compensate", message)


def _is_spread(parallel: Parallel) -> bool:
    return parallel.replica_size > 1
