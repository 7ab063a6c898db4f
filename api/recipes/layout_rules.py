"""Whether a recipe's configuration goes with the layout of a job. Pure.

What the ranks would find out minutes later, each of them, is said when the job is submitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.recipes.catalogue import Recipe
from scheduler.core.errors import Problem
from scheduler.core.resizing import resize_spec
from scheduler.core.spec import JobSpec, Parallel
from trainmaster.recipes._sizes import find_heads

_BATCH = "batch_size"


def read_defaults(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe takes for what a config leaves out."""
    properties = recipe.config.get("properties", {})
    return {name: part["default"] for name, part in properties.items() if "default" in part}


def check_layout(spec: JobSpec, recipe: Recipe) -> list[Problem]:
    """Return what does not go together, now or at the largest size of an elastic job.

    Args:
        spec: with a config that its recipe takes.
    """
    config = {**read_defaults(recipe), **spec.config}
    problems = [*_check_batch(config, spec), *_check_heads(config, spec)]
    if spec.elastic is not None and not problems:
        count = spec.elastic.max_workers
        problems.extend(
            Problem("/elastic/max_workers", one.code, f"with {count} workers: {one.message}")
            for one in _check_batch(config, resize_spec(spec, count))
        )
    return problems


def _check_batch(config: Mapping[str, Any], spec: JobSpec) -> Iterator[Problem]:
    parallel = _layout_of(spec)
    batch_size, num_shares = config.get(_BATCH), parallel.data * parallel.shard
    if isinstance(batch_size, int) and batch_size < num_shares:
        message = (
            f"batch_size is {batch_size}, and counts the samples of all {num_shares} shares of a "
            "batch (data x shard): give at least one for each, or use fewer workers"
        )
        yield Problem(f"/config/{_BATCH}", "batch_too_small", message)


def _check_heads(config: Mapping[str, Any], spec: JobSpec) -> Iterator[Problem]:
    num_tensor = _layout_of(spec).tensor
    begins_with_another = spec.resume_from is not None and config.get("model") == "auto"
    if num_tensor == 1 or begins_with_another:
        return  # the checkpoint says how many heads there are, and only the ranks read it
    num_heads = find_heads(spec.recipe or "", config)
    if num_heads is not None and num_heads % num_tensor:
        message = (
            f"tensor ranks divide the heads of each block, and {num_heads} are no multiple of "
            f"{num_tensor}: use a tensor count that divides them, or set config.heads"
        )
        yield Problem("/parallel/tensor", "heads_undivided", message)


def _layout_of(spec: JobSpec) -> Parallel:
    return spec.parallel or Parallel(data=spec.num_workers)
