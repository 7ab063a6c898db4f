"""What a spec may mean: every rule that concerns more than the shape of one field. Pure.

`check_spec` returns all problems at once, each with its JSON pointer and the way out. What the
caller knows of the world (recipes, files, pools) comes in as `World`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scheduler.core.errors import Problem
from scheduler.core.mode_rules import check_modes
from scheduler.core.resizing import check_elastic, resize_spec
from scheduler.core.resources import Resources, gib_to_mib, is_gpu_model, resolve_request
from scheduler.core.spec import JobSpec, ResourceRequest

RESERVED_ENV = frozenset(
    {
        "PATH", "HOME", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONHOME",
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
        "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG", "CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME",
        "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "LD_PRELOAD",
    }
)  # fmt: skip
"""Variables that the supervisor sets, or that would change what our own code loads."""


DEFAULT_QUEUE = "default"
DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOffer:
    """What one node could hold if it were empty.

    Attributes:
        gpu_model: of all its GPUs; "" without GPUs.
        gpu_memory_mib: of one GPU, the smallest where they differ.
    """

    capacity: Resources
    gpu_model: str = ""
    gpu_memory_mib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """What a pool could hold if it were empty: one offer per node that has joined."""

    nodes: tuple[NodeOffer, ...] = ()

    @property
    def has_gpus(self) -> bool:
        """Whether workers take a GPU by default."""
        return any(node.capacity.num_gpus for node in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the rules may know beyond the spec itself.

    Attributes:
        recipes: what each has a plan for, of `SPLITS_BY_PLAN`.
        queues: the pool behind each queue.
    """

    recipes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pools: Mapping[str, PoolView] = field(default_factory=dict)
    queues: Mapping[str, str] = field(default_factory=dict)
    input_roots: tuple[str, ...] = ()


def settle_queue(spec: JobSpec, world: World) -> JobSpec:
    """Return `spec` with the pool of its queue, or the queue of its pool, where one is left out."""
    queues = world.queues
    if spec.pool == DEFAULT_POOL and spec.queue in queues:
        return dataclasses.replace(spec, pool=queues[spec.queue])
    if spec.queue == DEFAULT_QUEUE and queues.get(spec.queue) != spec.pool:
        # Every pool has a queue of its own name.
        queue = spec.pool if queues.get(spec.pool) == spec.pool else spec.queue
        return dataclasses.replace(spec, queue=queue)
    return spec


def count_gpus(spec: JobSpec, world: World) -> int:
    """Return how many GPUs the gang takes in its pool; 0 in a pool that is unknown."""
    pool = world.pools.get(spec.pool, PoolView())
    wanted = resolve_request(spec.resources, pool_has_gpus=pool.has_gpus)
    return spec.num_workers * wanted.num_gpus


def check_spec(spec: JobSpec, world: World) -> tuple[Problem, ...]:
    """Return everything that is wrong with `spec`, in the order of its fields."""
    return tuple(
        problem
        for rule in (
            _check_source,
            _check_layout,
            _check_inputs,
            _check_offer,
            _check_queue,
            _check_gpus,
            _check_fit,
        )
        for problem in rule(spec, world)
    )


def _check_source(spec: JobSpec, world: World) -> Iterator[Problem]:
    if spec.recipe is None and spec.code is None:
        yield Problem("", "missing_source", "say what to run: either recipe, or code + entrypoint")
    if spec.recipe is not None:
        for name in ("code", "entrypoint"):
            if getattr(spec, name) is not None:
                message = f"a recipe brings its own code: leave out {name}, or leave out recipe"
                yield Problem(f"/{name}", "two_sources", message)
        if spec.recipe not in world.recipes:
            known = ", ".join(sorted(world.recipes)) or "none"
            yield Problem("/recipe", "unknown_recipe", f"there is no such recipe; known: {known}")
    elif spec.code is not None and spec.entrypoint is None:
        message = "name the script inside the bundle that the ranks run, such as train.py"
        yield Problem("/entrypoint", "missing_entrypoint", message)
    if spec.entrypoint is not None and not _is_plain_path(spec.entrypoint):
        message = "must be a relative path inside the bundle, without .. or empty parts"
        yield Problem("/entrypoint", "bad_path", message)


def _check_layout(spec: JobSpec, world: World) -> Iterator[Problem]:
    parallel = spec.parallel
    if parallel is not None and spec.workers not in {None, parallel.num_workers}:
        message = (
            f"workers is {spec.workers}, the product of parallel is {parallel.num_workers}: "
            "make them equal, or leave one of them out"
        )
        yield Problem("/workers", "layout_mismatch", message)
    splits = world.recipes.get(spec.recipe, frozenset()) if spec.recipe is not None else None
    found = tuple(check_modes(spec, splits))
    yield from found
    yield from _check_elastic(spec, splits, frozenset(problem.code for problem in found))


def _check_elastic(
    spec: JobSpec, splits: frozenset[str] | None, known: frozenset[str]
) -> Iterator[Problem]:
    """Yield what is wrong with the bounds, or would be with the job at one of them."""
    problems = tuple(check_elastic(spec))
    yield from problems
    if problems or spec.elastic is None:
        return
    for name in ("min_workers", "max_workers"):
        count = getattr(spec.elastic, name)
        for problem in check_modes(resize_spec(spec, count), splits):
            if problem.code not in known:
                message = f"with {count} workers: {problem.message}"
                yield Problem(f"/elastic/{name}", problem.code, message)


def _check_inputs(spec: JobSpec, world: World) -> Iterator[Problem]:
    for name, source in spec.inputs.items():
        pointer = f"/inputs/{_escape(name)}"
        if source.startswith("dir:"):
            path = source.removeprefix("dir:")
            if ".." in path.split("/") or not any(
                _is_below(path, root) for root in world.input_roots
            ):
                allowed = ", ".join(world.input_roots) or "none"
                message = f"the operator allows these directories: {allowed}"
                yield Problem(pointer, "directory_not_allowed", message)
        elif not source.startswith("file_"):
            message = "name an uploaded file (file_…) or an allowed directory (dir:/…)"
            yield Problem(pointer, "bad_input", message)
    for name in spec.env:
        if name in RESERVED_ENV or name.startswith("TRAINMASTER_"):
            message = "the service sets this variable itself: choose another name"
            yield Problem(f"/env/{_escape(name)}", "reserved_name", message)


def _check_offer(spec: JobSpec, world: World) -> Iterator[Problem]:
    """Refuse what the spec knows and the service cannot do yet: nothing is silently ignored."""
    unavailable = [
        ("/secrets", bool(spec.secrets), "secrets are not available yet: leave them out"),
        ("/privacy", spec.privacy is not None, "privacy is not available yet: leave it out"),
    ]  # fmt: skip
    for pointer, is_asked, message in unavailable:
        if is_asked:
            yield Problem(pointer, "not_available", message)
    if spec.checkpoint.every_steps is None and spec.checkpoint.every_seconds is None:
        message = "keep one of every_steps and every_seconds: without both a crash loses all work"
        yield Problem("/checkpoint/every_seconds", "no_checkpoints", message)


def _check_queue(spec: JobSpec, world: World) -> Iterator[Problem]:
    pool = world.queues.get(spec.queue)
    if pool == spec.pool or spec.pool not in world.pools:
        return  # a pool that is unknown says so itself
    if pool is None:
        known = ", ".join(sorted(world.queues)) or "none"
        yield Problem("/queue", "unknown_queue", f"there is no such queue; known: {known}")
        return
    message = (
        f"queue {spec.queue} stands before pool {pool}, the job asks for pool {spec.pool}: "
        "leave out one of them"
    )
    yield Problem("/queue", "wrong_queue", message)


def _check_gpus(spec: JobSpec, world: World) -> Iterator[Problem]:
    request = spec.resources
    if request.gpus == 0 and request.gpu_models:
        message = "the workers take no GPU: leave gpu_models out, or ask for gpus"
        yield Problem("/resources/gpu_models", "no_gpus_asked", message)
    if request.gpus == 0 and request.gpu_memory_gib is not None:
        message = "the workers take no GPU: leave gpu_memory_gib out, or ask for gpus"
        yield Problem("/resources/gpu_memory_gib", "no_gpus_asked", message)


def _check_fit(spec: JobSpec, world: World) -> Iterator[Problem]:
    pool = world.pools.get(spec.pool)
    if pool is None:
        known = ", ".join(sorted(world.pools)) or "none"
        yield Problem("/pool", "unknown_pool", f"there is no such pool; known: {known}")
        return
    if not pool.nodes:
        return  # nobody has joined yet: the job waits, and says so
    wanted = resolve_request(spec.resources, pool_has_gpus=pool.has_gpus)
    nodes = [node.capacity for node in pool.nodes if _has_gpus_asked(node, spec.resources)]
    if not nodes:
        yield _no_such_gpu(spec, pool)
        return
    room = sum(node.count_fitting(wanted) for node in nodes)
    if room >= spec.num_workers:
        return
    largest = max(node.count_fitting(wanted) for node in nodes)
    such = " with such GPUs" if len(nodes) < len(pool.nodes) else ""
    if largest == 0:
        best = max(nodes, key=lambda node: (node.num_gpus, node.cpu_milli, node.memory_mib))
        message = (
            f"one worker asks for {wanted.describe()}, the largest node{such} of pool {spec.pool} "
            f"has {best.describe()}: ask for less per worker and use more workers"
        )
        yield Problem("/resources", "worker_too_large", message)
    else:
        message = (
            f"pool {spec.pool} holds at most {room} workers of {wanted.describe()}{such}, the job "
            f"asks for {spec.num_workers}: use fewer workers, or less per worker (such as "
            "cpus: 0.5)"
        )
        yield Problem("/workers", "gang_too_large", message)


def _has_gpus_asked(node: NodeOffer, request: ResourceRequest) -> bool:
    if request.gpus == 0 or (not request.gpu_models and request.gpu_memory_gib is None):
        return True
    is_model = not request.gpu_models or any(
        is_gpu_model(asked, node.gpu_model) for asked in request.gpu_models
    )
    memory_mib = gib_to_mib(request.gpu_memory_gib) or 0
    return node.capacity.num_gpus > 0 and is_model and node.gpu_memory_mib >= memory_mib


def _no_such_gpu(spec: JobSpec, pool: PoolView) -> Problem:
    kinds = {
        f"{node.gpu_model or 'a GPU'} with {node.gpu_memory_mib / 1024:.4g} GiB"
        for node in pool.nodes
        if node.capacity.num_gpus
    }
    field_name = "gpu_models" if spec.resources.gpu_models else "gpu_memory_gib"
    message = (
        f"no node of pool {spec.pool} has such a GPU; it has: {', '.join(sorted(kinds)) or 'none'}"
    )
    return Problem(f"/resources/{field_name}", "no_such_gpu", message)


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    return (
        all(part not in {"", ".", ".."} for part in parts) and "\\" not in path and "\0" not in path
    )


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
