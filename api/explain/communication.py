"""What a job that is not submitted yet would send, and how long its steps would take.

The formulas are those by which the job itself will predict, in `trainmaster._communication`: one
text for both, and the only part of the library that the service uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from api.explain import schemas
from api.explain.pace import Pace
from scheduler.core.spec import JobSpec, write_spec
from trainmaster._communication import (
    Model,
    exposed_seconds,
    predict,
    transfer_seconds,
)
from trainmaster._layout import Layout
from trainmaster.recipes._sizes import UnknownSize, find_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What the caller knows and the service cannot.

    Attributes:
        num_parameters: of the model, in 32 bits.
        link_mbit: of the slowest link between ranks, each way.
    """

    num_parameters: int | None = None
    link_mbit: float | None = None


def foresee(
    spec: JobSpec, defaults: Mapping[str, Any], pace: Pace | None, hints: Hints, *, has_gpus: bool
) -> schemas.Communication | None:
    """Return what one step of a job sends; None for one rank, which sends nothing.

    Args:
        spec: as it would be submitted.
        defaults: what its recipe takes for what its config leaves out.
        pace: how long steps like these took, where that is known.
        hints: count more than what is known.
        has_gpus: whether each rank takes a GPU.
    """
    parallel = spec.parallel
    layout = Layout(data=spec.num_workers)
    if parallel is not None:
        layout = Layout(
            data=parallel.data,
            shard=parallel.shard,
            tensor=parallel.tensor,
            pipeline=parallel.pipeline,
        )
    if layout.size == 1:
        return None
    backend: Literal["gloo", "nccl"] = "nccl" if has_gpus else "gloo"
    try:
        model = _find_model(spec, {**defaults, **spec.config}, hints)
    except UnknownSize as unknown:
        return schemas.Communication(backend=backend, missing=[str(unknown)])
    batch_size = {**defaults, **spec.config}.get("batch_size")
    sync = write_spec(spec)["sync"]
    said = predict(model, layout, sync, backend=backend, batch_size=batch_size)
    missing = list(said.missing)
    transfer_s = compute_s = step_s = None
    if hints.link_mbit is None:
        missing.append("link_mbit: how fast the links are")
    else:
        transfer_s = transfer_seconds(said.serial_bytes_per_step, hints.link_mbit * 1e6)
    if pace is None:
        missing.append("how long a step computes: no job like it has succeeded here")
    else:
        compute_s = pace.compute_s
    if transfer_s is not None and compute_s is not None and not said.missing:
        step_s = compute_s + exposed_seconds(transfer_s, compute_s, sync)
    return schemas.Communication(
        backend=backend,
        num_parameters=model.num_parameters,
        bytes_per_step=said.total_bytes,
        bytes_per_step_by_phase=said.bytes_per_step,
        wire_bytes_per_step=said.wire_bytes,
        reduction_vs_ddp=(
            said.ddp_bytes_per_step / said.total_bytes
            if said.total_bytes and said.ddp_bytes_per_step and not said.missing
            else None
        ),
        transfer_seconds=transfer_s,
        compute_seconds=compute_s,
        step_seconds=step_s,
        missing=missing,
    )


def _find_model(spec: JobSpec, config: Mapping[str, Any], hints: Hints) -> Model:
    if hints.num_parameters is not None:
        return Model(num_parameters=hints.num_parameters)
    if spec.recipe is None:
        raise UnknownSize("num_parameters: how large the model is that the code trains")
    return find_size(spec.recipe, config, spec.inputs)
