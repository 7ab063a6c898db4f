"""Integer vectors of what nodes have and workers take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.spec import ResourceRequest

CPU_MILLI_DEFAULT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Whole GPUs, thousandths of a CPU, MiB of memory; all >= 0."""

    num_gpus: int = 0
    cpu_milli: int = 0
    memory_mib: int = 0

    def fits(self, room: Resources) -> bool:
        """Whether this can be taken out of `room`."""
        return (
            self.num_gpus <= room.num_gpus
            and self.cpu_milli <= room.cpu_milli
            and self.memory_mib <= room.memory_mib
        )

    def minus(self, other: Resources) -> Resources:
        """Return the difference; the caller has checked that it fits."""
        return Resources(
            num_gpus=self.num_gpus - other.num_gpus,
            cpu_milli=self.cpu_milli - other.cpu_milli,
            memory_mib=self.memory_mib - other.memory_mib,
        )

    def times(self, count: int) -> Resources:
        """Return `count` of this."""
        return Resources(
            num_gpus=self.num_gpus * count,
            cpu_milli=self.cpu_milli * count,
            memory_mib=self.memory_mib * count,
        )

    def count_fitting(self, wanted: Resources) -> int:
        """Return how many of `wanted` fit in here; `wanted` is not all zero."""
        pairs = (
            (self.num_gpus, wanted.num_gpus),
            (self.cpu_milli, wanted.cpu_milli),
            (self.memory_mib, wanted.memory_mib),
        )
        return min(have // want for have, want in pairs if want > 0)

    def describe(self) -> str:
        """Return this in words, such as `1 GPU, 2 CPUs, 8 GiB`."""
        parts = []
        if self.num_gpus:
            parts.append(f"{self.num_gpus} GPU{'' if self.num_gpus == 1 else 's'}")
        parts.append(f"{self.cpu_milli / 1000:g} CPU{'' if self.cpu_milli == 1000 else 's'}")
        if self.memory_mib:
            parts.append(f"{self.memory_mib / 1024:.4g} GiB")
        return ", ".join(parts)


def resolve_request(request: ResourceRequest, *, pool_has_gpus: bool) -> Resources:
    """Return what one worker takes in a pool: a GPU where there are any, else a CPU."""
    default_gpus = 1 if pool_has_gpus else 0
    return Resources(
        num_gpus=default_gpus if request.gpus is None else request.gpus,
        cpu_milli=CPU_MILLI_DEFAULT if request.cpus is None else round(request.cpus * 1000),
        memory_mib=0 if request.memory_gib is None else round(request.memory_gib * 1024),
    )
