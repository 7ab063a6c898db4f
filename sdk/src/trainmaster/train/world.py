"""The processes of one torch world: their group, their device, and the small talk among them.

Knows nothing of models, data or checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from trainmaster.train.store import name_start, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainmaster.run import Run


class World:
    """This process among its peers; alone when the world has one rank.

    Attributes:
        rank: number of this process.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(
        self,
        run: Run,
        device: str | None,
        members: tuple[int, int] | None = None,
        name: str = "",
    ) -> None:
        """Join a world.

        Args:
            run: this rank's run.
            device: where to compute; None for a GPU where there is one.
            members: number of this process among those of this world, and how many these are; by
                default the world is all of the job.
            name: tells worlds of one job apart.

        Raises:
            RunError: nobody keeps the job's store.
        """
        self.rank, self.size = members or (run.rank, run.world_size)
        self.device = _choose_device(device, run.local_rank)
        self._is_ours = self.size > 1 and not dist.is_initialized()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self._is_ours:
            # Two backends in one group: what the ranks agree on stays on the CPU, so that
            # asking costs no wait for the GPU.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            if members is None:
                dist.init_process_group(backend)
            else:
                store = _open_store(run, name)
                dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all ranks."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return [int(number) for number in numbers.tolist()]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all ranks, on the rank's device."""
        total = values.detach().to(self.device, copy=True)
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Return everybody's state on rank 0, in the order of ranks; None elsewhere."""
        if self.size == 1:
            return [state]
        states: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(state, states)
        return states

    def close(self) -> None:
        """Leave the group, if it was we who joined it."""
        if self._is_ours and dist.is_initialized():
            dist.destroy_process_group()


def _open_store(run: Run, name: str) -> dist.Store:
    """Return the part of the job's store that is this world's, in this start of its ranks."""
    prefix = f"trainmaster/world/{name_start(run.description, run.places)}/{name}"
    places = run.places
    return open_store(places["MASTER_ADDR"], int(places["MASTER_PORT"]), run.rank, prefix)


def _choose_device(wanted: str | None, local_rank: int) -> torch.device:
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cuda":
        return torch.device(wanted)
    # The service shows each rank only its own GPUs; torchrun shows every rank all of them.
    return torch.device("cuda", local_rank % torch.cuda.device_count())
