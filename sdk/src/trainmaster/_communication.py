"""What ranks send each other: from layout, synchronization and the size of a model. Pure.

Standard library only. The one place for these formulas: a job counts with them what torch's
collectives send, and predicts with them what it will have counted; the service says before a job
starts what it will send (it imports this module, and nothing else of this library).

All bytes are *logical* ones: what one rank hands to others, as a mean over the ranks, so that what
all ranks together move is `num_workers` times that. Headers of TCP/IP come on top: `WIRE_FACTOR`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._layout import Layout

# A frame of 1,514 bytes carries 1,448, and what acknowledges it comes back: 1.046 to 1.053 were
# measured on the interfaces of two and four ranks.
WIRE_FACTOR = 1.05

EVERY = 16  # steps between rounds, where a job does not say

# Bytes of one number as it is sent. Integers have a scale of four bytes for each 512 of them.
_SCALE_BYTES = 4 / 512
_COMPRESSED_BYTES = {
    "fp16": 2.0,
    "bf16": 2.0,
    "int8": 1.0 + _SCALE_BYTES,
    "int4": 0.5 + _SCALE_BYTES,
}


def sent_share(operation: str, ranks: int, backend: str) -> float:
    """Return the bytes that a rank sends for each byte of payload, mean over the group.

    The payload is the tensor that is reduced or handed round, or what all parts make together.

    Args:
        operation: as in `all_reduce`, `all_gather`, `all_gather_single`, `reduce_scatter`,
            `broadcast`, `gather`, `scatter`, `all_to_all`, `reduce`, `send`, `recv`.
        ranks: of the group.
        backend: gloo or nccl.
    """
    if ranks == 1:
        return 0.0
    ring = (ranks - 1) / ranks
    if operation == "all_reduce":
        return 2 * ring
    if operation == "reduce_scatter":
        # gloo reduces everything everywhere and then keeps a part; measured on its interfaces.
        return 2 * ring if backend == "gloo" else ring
    if operation in {"gather", "scatter"}:
        return ring / ranks  # one rank has no part of its own to send, the others one each
    return {"send": 1.0, "recv": 0.0}.get(operation, ring)


@dataclass(frozen=True)
class Model:
    """What must be known of a model.

    Attributes:
        num_parameters: numbers that are trained.
        number_bytes: of one parameter, and of its gradient.
        buffer_bytes: of what is not trained and handed round before each step.
        boundary_bytes: of what passes from one block to the next, for one sample; None where that
            is not known.
        num_sums: how often a step adds up such a boundary over tensor ranks; None where that is
            not known. A block does it four times: after each of its two halves, there and back.
        gathered_bytes: of what tensor ranks put together besides, for one sample: logits.
        tied_bytes: of parameters that the first and the last block have in common.
        root_share: of the parameters, those that FSDP2 keeps after the forward pass.
    """

    num_parameters: int
    number_bytes: int = 4
    buffer_bytes: int = 0
    boundary_bytes: int | None = None
    num_sums: int | None = None
    gathered_bytes: int = 0
    tied_bytes: int = 0
    root_share: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """What one step will send.

    Attributes:
        bytes_per_step: by phase, mean over the ranks; what is not known is left out.
        serial_bytes_per_step: what passes the busiest link one after the other, in either
            direction; where replicas speak to few servers, that is a server's. The ranks of a
            replica may have a link each or share one to the other replicas: the slower counts.
        ddp_bytes_per_step: what data parallel training in 32 bits would send with as many shares.
        missing: what would have to be known, and is not; the sum is then too small.
    """

    bytes_per_step: dict[str, float] = field(default_factory=dict)
    ddp_bytes_per_step: float = 0.0
    serial_bytes_per_step: float = 0.0
    missing: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> float:
        """All phases together."""
        return sum(self.bytes_per_step.values())

    @property
    def wire_bytes(self) -> float:
        """The same with the headers of TCP/IP."""
        return self.total_bytes * WIRE_FACTOR


def predict(
    model: Model,
    layout: Layout,
    sync: Mapping[str, Any],
    *,
    backend: str,
    batch_size: int | None,
) -> Prediction:
    """Return what one step of a job sends.

    Args:
        model: what is trained.
        layout: of the ranks.
        sync: `sync` of a job.
        backend: gloo or nccl, within a replica and for `allreduce`.
        batch_size: samples of a step, over all shares; None where that is not known.
    """
    phases: dict[str, float] = {}
    between = 0.0  # of what a rank sends, that which goes to other replicas
    missing: list[str] = []
    # What a rank holds: the split over tensor and pipeline ranks is even but for a few vectors, and
    # both ends of a pipeline have what they have in common.
    held_twice = model.tied_bytes if layout.pipeline > 1 else 0
    held_bytes = model.num_parameters * model.number_bytes + held_twice
    local_bytes = held_bytes / (layout.tensor * layout.pipeline)
    if layout.shard > 1:
        phases.update(_shard_phases(local_bytes, model, layout, backend))
    if layout.data > 1:
        phase, sent = _data_phase(local_bytes / layout.shard, model, layout, sync, backend)
        phases[phase] = phases.get(phase, 0.0) + sent
        between += sent
    if layout.data > 1 and layout.shard == 1 and _is_allreduce(sync) and model.buffer_bytes:
        phases["buffers"] = model.buffer_bytes * sent_share("broadcast", layout.data, backend)
        between += phases["buffers"]
    if layout.tensor > 1 or layout.pipeline > 1:
        sent_activations = _activation_bytes(model, layout, backend, batch_size, missing)
        if sent_activations is not None:
            phases["activations"] = sent_activations
    plain_bytes = 4.0 * model.num_parameters
    return Prediction(
        bytes_per_step=phases,
        ddp_bytes_per_step=plain_bytes * sent_share("all_reduce", layout.shares, backend),
        serial_bytes_per_step=_serialize(sum(phases.values()) - between, between, layout, sync),
        missing=tuple(missing),
    )


def transfer_seconds(bytes_sent: float, bits_per_second: float) -> float:
    """Return how long so many logical bytes take on a link, headers included."""
    return bytes_sent * WIRE_FACTOR * 8 / bits_per_second


def exposed_seconds(transfer_s: float, compute_s: float, sync: Mapping[str, Any]) -> float:
    """Return how long a step stands still for a transfer that takes so long.

    An all-reduce goes on beside the backward pass, two thirds of the computation; what a replica
    says to servers it waits for.
    """
    return max(0.0, transfer_s - 2 / 3 * compute_s) if _is_allreduce(sync) else transfer_s


def steps_between_rounds(sync: Mapping[str, Any]) -> int:
    """Return after how many steps the same is sent again."""
    if sync.get("mode") in ("local_sgd", "diloco"):
        return int(sync.get("every") or EVERY)
    return 1


def _is_allreduce(sync: Mapping[str, Any]) -> bool:
    return (sync.get("mode") or "allreduce") == "allreduce"


def _compressed(number_bytes: int, compression: str | None) -> float:
    """Return the bytes of one number after compression."""
    return min(number_bytes, _COMPRESSED_BYTES.get(compression or "none", number_bytes))


def _shard_phases(
    local_bytes: float, model: Model, layout: Layout, backend: str
) -> dict[str, float]:
    """FSDP2: parameters are gathered before each pass, gradients reduced after the second."""
    gathers = 2.0 - model.root_share
    return {
        "parameters": gathers
        * local_bytes
        * sent_share("all_gather_single", layout.shard, backend),
        "gradients": local_bytes * sent_share("reduce_scatter", layout.shard, backend),
    }


def _data_phase(
    held_bytes: float, model: Model, layout: Layout, sync: Mapping[str, Any], backend: str
) -> tuple[str, float]:
    """Among the replicas: phase and bytes, for what one rank holds of a replica."""
    numbers = held_bytes / model.number_bytes
    sent_numbers = numbers * _compressed(model.number_bytes, sync.get("compression"))
    if _is_allreduce(sync):
        return "gradients", sent_numbers * sent_share("all_reduce", layout.data, backend)
    # Up and down, once a round. Servers stand beside ranks, so that one part in `data` of what is
    # exchanged stays on its machine: it leaves a rank what a ring would send.
    away = (layout.data - 1) / layout.data
    return "outer", 2 * sent_numbers * away / steps_between_rounds(sync)


def _serialize(within: float, between: float, layout: Layout, sync: Mapping[str, Any]) -> float:
    """Return what passes the busiest link, from what a rank sends within and between replicas."""
    # Each rank of a replica sends its own part to the others at the same time. Neighbours sit on
    # one node where they can, and then all these parts go out by the one link of that node.
    of_replica = between * layout.replica_size
    if _is_allreduce(sync):
        return max(within + between, of_replica)
    # `data - 1` replicas call on each server, and one stands beside it.
    return within + of_replica * layout.data / (sync.get("servers") or 1)


def _activation_bytes(
    model: Model, layout: Layout, backend: str, batch_size: int | None, missing: list[str]
) -> float | None:
    if model.boundary_bytes is None:
        missing.append("the size of the activations between blocks")
    if batch_size is None:
        missing.append("the batch size")
    if layout.tensor > 1 and model.num_sums is None:
        missing.append("how its layers are divided")
    if missing or model.boundary_bytes is None or batch_size is None:
        return None
    samples = batch_size / layout.shares
    if layout.pipeline > 1:
        # A share goes in twice as many pieces as there are stages; one that is empty borrows.
        samples = max(samples, 2 * layout.pipeline)
    share_bytes = model.boundary_bytes * samples
    # Forward and back over each boundary; the ranks at both ends have one neighbour only.
    sent = 2 * share_bytes * (layout.pipeline - 1) / layout.pipeline
    if layout.pipeline > 1:
        # Both ends send each other the gradients of what they have in common.
        sent += 2 * model.tied_bytes / (layout.pipeline * layout.tensor * layout.shard)
    if layout.tensor > 1:
        # Of a pipeline each rank has its part of the layers.
        sums = (model.num_sums or 0) / layout.pipeline
        sent += sums * share_bytes * sent_share("all_reduce", layout.tensor, backend)
        gathered_bytes = model.gathered_bytes * samples / layout.pipeline
        sent += gathered_bytes * sent_share("all_gather_single", layout.tensor, backend)
    return sent
