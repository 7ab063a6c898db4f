"""What a spec may mean: every rule that concerns more than the shape of one field. Pure.

`check_spec` returns all problems at once, each with its JSON pointer and the way out. What the
caller knows of the world (recipes, files, pools) comes in as `World`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scheduler.core.errors import Problem
from scheduler.core.resources import Resources, resolve_request
from scheduler.core.spec import Health, JobSpec, Limits, Sync

RESERVED_ENV = frozenset(
    {
        "PATH", "HOME", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONHOME",
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
        "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG", "CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME",
        "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "LD_PRELOAD",
    }
)  # fmt: skip
"""Variables that the supervisor sets, or that would change what our own code loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """What a pool could hold if it were empty: one capacity per node that has joined."""

    nodes: tuple[Resources, ...] = ()

    @property
    def has_gpus(self) -> bool:
        """Whether workers take a GPU by default."""
        return any(node.num_gpus for node in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the rules may know beyond the spec itself."""

    recipes: frozenset[str] = frozenset()
    pools: Mapping[str, PoolView] = field(default_factory=dict)
    input_roots: tuple[str, ...] = ()


def check_spec(spec: JobSpec, world: World) -> tuple[Problem, ...]:
    """Return everything that is wrong with `spec`, in the order of its fields."""
    return tuple(
        problem
        for rule in (_check_source, _check_layout, _check_inputs, _check_offer, _check_fit)
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
    for name in ("shard", "tensor", "pipeline"):
        if parallel is not None and getattr(parallel, name) != 1:
            message = f"{name} parallelism is not available yet: use data parallel workers"
            yield Problem(f"/parallel/{name}", "not_available", message)
    yield from _check_sync(spec.sync)


def _check_sync(sync: Sync) -> Iterator[Problem]:
    if sync.mode != "allreduce":
        message = f"{sync.mode} is not available yet: use allreduce"
        yield Problem("/sync/mode", "not_available", message)
        return
    if sync.compression != "none":
        message = "compression is not available yet: use none"
        yield Problem("/sync/compression", "not_available", message)
    plain = Sync()
    for name in ("every", "staleness", "servers", "compensation", "outer_lr", "outer_momentum",
                 "fragments", "graph"):  # fmt: skip
        if getattr(sync, name) != getattr(plain, name):
            yield Problem(
                f"/sync/{name}", "not_of_this_mode", f"allreduce has no {name}: leave it out"
            )


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
        ("/elastic", spec.elastic is not None, "resizing is not available yet: leave elastic out"),
        ("/privacy", spec.privacy is not None, "privacy is not available yet: leave it out"),
        ("/depends_on", bool(spec.depends_on),
         "dependencies are not available yet: submit in order"),
        ("/health", spec.health != Health(), "health checks cannot be changed yet: leave them out"),
        ("/limits/gpu_hours", spec.limits.gpu_hours is not None,
         "GPU budgets are not available yet: use wall_seconds"),
        ("/limits/on_budget", spec.limits.on_budget != Limits().on_budget,
         "GPU budgets are not available yet: leave on_budget out"),
        ("/queue", spec.queue != "default", "there is one queue, default: leave queue out"),
    ]  # fmt: skip
    for pointer, is_asked, message in unavailable:
        if is_asked:
            yield Problem(pointer, "not_available", message)
    if spec.checkpoint.every_steps is None and spec.checkpoint.every_seconds is None:
        message = "keep one of every_steps and every_seconds: without both a crash loses all work"
        yield Problem("/checkpoint/every_seconds", "no_checkpoints", message)


def _check_fit(spec: JobSpec, world: World) -> Iterator[Problem]:
    pool = world.pools.get(spec.pool)
    if pool is None:
        known = ", ".join(sorted(world.pools)) or "none"
        yield Problem("/pool", "unknown_pool", f"there is no such pool; known: {known}")
        return
    if not pool.nodes:
        return  # nobody has joined yet: the job waits, and says so
    wanted = resolve_request(spec.resources, pool_has_gpus=pool.has_gpus)
    room = sum(node.count_fitting(wanted) for node in pool.nodes)
    if room >= spec.num_workers:
        return
    largest = max(node.count_fitting(wanted) for node in pool.nodes)
    if largest == 0:
        best = max(pool.nodes, key=lambda node: (node.num_gpus, node.cpu_milli, node.memory_mib))
        message = (
            f"one worker asks for {wanted.describe()}, the largest node of pool {spec.pool} has "
            f"{best.describe()}: ask for less per worker and use more workers"
        )
        yield Problem("/resources", "worker_too_large", message)
    else:
        message = (
            f"pool {spec.pool} holds at most {room} workers of {wanted.describe()}, the job asks "
            f"for {spec.num_workers}: use fewer workers, or less per worker (such as cpus: 0.5)"
        )
        yield Problem("/workers", "gang_too_large", message)


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    return (
        all(part not in {"", ".", ".."} for part in parts) and "\\" not in path and "\0" not in path
    )


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
