"""What a pass sees: nodes, jobs, quotas, usage. Frozen values of integers and strings, pure.

A node says what it has; what is free follows from the jobs that hold places on it, so that the
two can never disagree. Instants are milliseconds since the epoch (`_ms`), as are durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.core.resources import Resources
from scheduler.core.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One machine: what it has, and whether new work may go there.

    Attributes:
        rack: machines of one rack are close to each other; "" when nobody said.
        gpu_model: of all its GPUs; "" without GPUs.
        gpu_memory_mib: of one GPU, the smallest where they differ.
        gpu_indices: as the node numbers them; `capacity.num_gpus` many.
        closed_reason: why it takes no new work (`cordoned`, `draining`, `silent`,
            `quarantined`), "" when it does.
    """

    node_id: str
    pool: str
    rack: str = ""
    gpu_model: str = ""
    gpu_memory_mib: int = 0
    capacity: Resources
    gpu_indices: tuple[int, ...] = ()
    closed_reason: str = ""

    @property
    def is_schedulable(self) -> bool:
        """Whether new work may go there."""
        return not self.closed_reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """The part of a gang that one node runs."""

    node_id: str
    num_workers: int
    gpu_indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A whole gang, node by node; ranks are numbered in this order."""

    shares: tuple[NodeShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a gang needs; gangs of one shape are interchangeable to placement.

    Attributes:
        per_worker: what each worker takes.
        gpu_models: any of these; empty means any model.
        gpu_memory_mib: each GPU has at least this much.
        may_spread: a gang that one node could hold may be split over several all the same.
    """

    num_workers: int
    per_worker: Resources
    gpu_models: tuple[str, ...] = ()
    gpu_memory_mib: int = 0
    may_spread: bool = False

    @property
    def num_gpus(self) -> int:
        """GPUs of the whole gang."""
        return self.num_workers * self.per_worker.num_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Places that are being emptied for a job, or kept for one that moves.

    Attributes:
        until_ms: when it lapses if the job could not start by then.
    """

    placement: Placement
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A guarantee: the job starts on these nodes at `start_ms` at the latest."""

    start_ms: int
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job that waits or holds places. Jobs that are paused or have ended are not seen.

    Attributes:
        version: of the row; a view with a smaller one is old news.
        sequence: submit order; smaller came first.
        user: who submitted it (a key's id), for shares inside a project.
        not_before_ms: earliest start (begin_at, retry back-off), 0 when there is none.
        not_before_reason: what that instant is, shown while it lies ahead.
        waits_for: jobs that must succeed first and have not yet.
        limit_ms: wall time of all its attempts at which its declared limit ends it, None without.
        history_ms: how long jobs like it took in all, None when there were none.
        served_ms: how long its earlier attempts ran, in all.
        evictions: how often it was preempted or moved.
        waiting_since_ms: since when nothing but a lack of room has kept it; of a job with places,
            until it got them.
        placement: the places it holds, None while it waits.
        started_ms: when it got them.
        saved_ms: when its last checkpoint of this attempt was committed.
        remaining_ms: steps left ÷ steps per second, measured at `measured_ms`; None: not known.
        stop_reason: why it was asked to stop, None when it was not.
    """

    job_id: str
    version: int
    state: JobState
    sequence: int
    submit_ms: int = 0
    project: str = "default"
    user: str = ""
    name: str = ""
    queue: str = "default"
    priority: int = 50
    pool: str = "default"
    shape: Shape
    is_preemptible: bool = True
    is_held: bool = False
    not_before_ms: int = 0
    not_before_reason: str = ""
    waits_for: tuple[str, ...] = ()
    limit_ms: int | None = None
    history_ms: int | None = None
    served_ms: int = 0
    evictions: int = 0
    waiting_since_ms: int = 0
    reason: str = ""
    message: str = ""
    grace_ms: int = 30_000
    claim: Claim | None = None
    reservation: Reservation | None = None
    placement: Placement | None = None
    started_ms: int = 0
    saved_ms: int | None = None
    remaining_ms: int | None = None
    measured_ms: int = 0
    stop_reason: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no places."""
        return self.placement is None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaView:
    """What a project, or one user of it, is entitled to and may use at the same time.

    Attributes:
        user: "" for the project as a whole.
        weight: of its share among its siblings.
        guaranteed_gpus: up to here it goes first and is not preempted by borrowers.
        limit_gpus: never more than this at once; None: no limit.
        may_borrow: whether it may use more than is guaranteed while others do not need it.
        budget_gpu_ms: for the current month; None: no limit.
        spent_gpu_ms: of the current month, by attempts that have ended.
        priority_max: what its jobs may ask for at most.
    """

    project: str
    user: str = ""
    weight: int = 1
    guaranteed_gpus: int = 0
    limit_gpus: int | None = None
    may_borrow: bool = True
    budget_gpu_ms: int | None = None
    spent_gpu_ms: int = 0
    priority_max: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageView:
    """GPU-milliseconds that a user of a project has had, decayed up to `as_of_ms`.

    Counts attempts that have ended; what runs is added by the pass.
    """

    project: str
    user: str
    gpu_ms: int
    as_of_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A line in front of one pool.

    Attributes:
        is_open: a closed queue accepts jobs and starts none.
    """

    name: str
    pool: str
    is_open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything a pass may know."""

    nodes: tuple[NodeView, ...] = ()
    jobs: tuple[JobView, ...] = ()
    quotas: tuple[QuotaView, ...] = ()
    usage: tuple[UsageView, ...] = ()
    queues: tuple[QueueView, ...] = field(default=())
