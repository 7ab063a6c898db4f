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


def is_gpu_model(asked: str, model: str) -> bool:
    """Whether a GPU that calls itself `model` is what people call `asked`.

    The words of `asked` follow each other in `model`, in any case: H100 is a `NVIDIA H100 80GB
    HBM3`, A10 is no `NVIDIA A100-SXM4-40GB`.
    """
    wanted, words = _words(asked), _words(model)
    starts = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in starts)


def resolve_request(request: ResourceRequest, *, pool_has_gpus: bool) -> Resources:
    """Return what one worker takes in a pool: a GPU where there are any, else a CPU."""
    default_gpus = 1 if pool_has_gpus else 0
    return Resources(
        num_gpus=default_gpus if request.gpus is None else request.gpus,
        cpu_milli=CPU_MILLI_DEFAULT if request.cpus is None else round(request.cpus * 1000),
        memory_mib=gib_to_mib(request.memory_gib) or 0,
    )


def gib_to_mib(gib: float | None) -> int | None:
    """Return GiB, as people write them, in MiB."""
    return None if gib is None else round(gib * 1024)


def _words(text: str) -> list[str]:
    return text.lower().replace("-", " ").replace("_", " ").split()
