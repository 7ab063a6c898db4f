"""What a replay leaves behind: every stretch in which a job held GPUs. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.sim.slots import Place
from scheduler.sim.trace import Cluster, TraceJob


@dataclass(frozen=True, slots=True)
class Run:
    """A job held a place from `start_ms` to `stop_ms`, to its end or until it was evicted.

    Attributes:
        job: index in the trace.
        resume_ms: the first part of the stretch, in which it restored what it had saved and was
            not served; longer than the stretch when it was evicted before it was back.
    """

    job: int
    start_ms: int
    stop_ms: int
    resume_ms: int
    place: Place
    is_last: bool

    @property
    def service_ms(self) -> int:
        """How long it was served."""
        return max(0, self.stop_ms - self.start_ms - self.resume_ms)

    @property
    def num_gpus(self) -> int:
        """GPUs it held."""
        return sum(mask.bit_count() for _, mask in self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What was said at a submit about when the job would start; None: nothing was said."""

    job: int
    interval_ms: tuple[int, int] | None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A whole replay.

    Attributes:
        runs: in the order in which they ended.
        forecasts: None when nobody forecast; else one for each job that was asked about.
        num_passes: how often the policy was asked.
        num_stale: how many of its decisions came too late and were dropped.
    """

    jobs: tuple[TraceJob, ...]
    cluster: Cluster
    runs: list[Run] = field(default_factory=list)
    forecasts: list[Forecast] | None = None
    num_passes: int = 0
    num_stale: int = 0
