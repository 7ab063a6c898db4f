"""A small cluster in memory that applies what the core decides, and looks for broken laws.

Rows are views; decisions are compare-and-set on their versions, as in the service. The audit shares
no code with what it judges, but for the order itself (`estimate` and `outranks`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scheduler.core.cluster import (
    ClusterView,
    JobView,
    NodeShare,
    NodeView,
    Placement,
    QueueView,
    QuotaView,
    Shape,
    UsageView,
)
from scheduler.core.decisions import (
    Admit,
    Decision,
    Explain,
    Hold,
    Keep,
    Plan,
    Preempt,
    Reserve,
    Start,
)
from scheduler.core.deltas import Delta, JobGone, JobSeen, NodeGone, NodeSeen, Observed, RulesSeen
from scheduler.core.estimates import estimate, measure_size
from scheduler.core.lines import Rank
from scheduler.core.octaves import halve
from scheduler.core.policy import DEFAULT_POLICY, Policy
from scheduler.core.ranks import outranks
from scheduler.core.reasons import Reason
from scheduler.core.resources import Resources
from scheduler.core.state import State
from scheduler.core.states import JobState
from scheduler.core.step import step

NOW_MS = 1_700_000_000_000
PASSES_MAX = 60

_LATER_CAUSES = {"HigherPriority", "CapacityLost", "Overrun", "NotFirst", "Held"}


def node(name: str, gpus: int = 8, **changes: object) -> NodeView:
    """Return a node with as many GPUs, and CPUs and memory that nobody runs out of."""
    view = NodeView(
        node_id=name,
        pool="default",
        gpu_model="A100" if gpus else "",
        gpu_memory_mib=40_960 if gpus else 0,
        capacity=Resources(num_gpus=gpus, cpu_milli=64_000, memory_mib=1 << 20),
        gpu_indices=tuple(range(gpus)),
    )
    return dataclasses.replace(view, **changes)  # type: ignore[arg-type]  # tests name real fields


def nodes_of(*gpus: int) -> list[NodeView]:
    """Return nodes n0, n1 … with so many GPUs each."""
    return [node(f"n{number}", count) for number, count in enumerate(gpus)]


def shape(workers: int = 1, gpus: int = 1, cpus: int = 0, **changes: object) -> Shape:
    """Return a gang."""
    view = Shape(num_workers=workers, per_worker=Resources(num_gpus=gpus, cpu_milli=cpus or 1000))
    return dataclasses.replace(view, **changes)  # type: ignore[arg-type]  # tests name real fields


def job(name: str, workers: int = 1, gpus: int = 1, *, cpus: int = 0, **changes: Any) -> JobView:
    """Return a queued job; its number is its place in submit order."""
    view = JobView(
        job_id=name,
        version=1,
        state=JobState.QUEUED,
        sequence=int(name[1:]),
        submit_ms=NOW_MS,
        waiting_since_ms=NOW_MS,
        shape=shape(workers, gpus, cpus),
    )
    return dataclasses.replace(view, **changes)


@dataclass
class World:
    """Rows, and a core that sees them.

    Attributes:
        is_reliable: whether the core has been shown all that is, so that what it decides must be
            possible; else what cannot be done is refused, as the database would.
        open_debts: for whom jobs were asked to go, and who were.
        fates: what became of each debt.
        faults: broken laws, in words.
    """

    policy: Policy = DEFAULT_POLICY
    now_ms: int = NOW_MS
    is_checked: bool = True
    is_reliable: bool = True
    explains: bool = True
    jobs: dict[str, JobView] = field(default_factory=dict)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    quotas: tuple[QuotaView, ...] = ()
    queues: tuple[QueueView, ...] = ()
    usage: dict[tuple[str, str], UsageView] = field(default_factory=dict)
    unseen: list[Delta] = field(default_factory=list)
    log: list[tuple[tuple[Delta, ...], int]] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    starts: list[tuple[int, str]] = field(default_factory=list)
    open_debts: dict[str, list[str]] = field(default_factory=dict)
    fates: Counter[str] = field(default_factory=Counter)
    evictions: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    num_stale: int = 0
    num_refused: int = 0
    wakeup_ms: int | None = None

    def __post_init__(self) -> None:
        self.state = State(self.policy, explains=self.explains)
        self.state.is_checked = self.is_checked

    # --- What happens to the rows --------------------------------------------------------------

    def put_node(self, view: NodeView) -> None:
        """A node joins or changes."""
        self.nodes[view.node_id] = view
        self.unseen.append(NodeSeen(node=view))

    def remove_node(self, node_id: str) -> None:
        """A node is removed; who was on it does not know yet."""
        del self.nodes[node_id]
        self.unseen.append(NodeGone(node_id=node_id))

    def submit(self, *views: JobView) -> None:
        """Jobs come."""
        for view in views:
            self.jobs[view.job_id] = view
            self.unseen.append(JobSeen(job=view))

    def change(self, job_id: str, **changes: object) -> None:
        """Change a row, and tell the core."""
        view = self.jobs[job_id]
        self.jobs[job_id] = dataclasses.replace(
            view,
            version=view.version + 1,
            **changes,  # type: ignore[arg-type]  # tests name real fields
        )
        self.unseen.append(JobSeen(job=self.jobs[job_id]))

    def end(self, job_id: str) -> None:
        """A job ends, whatever it did."""
        view = self.jobs.pop(job_id)
        self._settle_usage(view)
        self._close_debt(job_id, "gone")
        self.unseen.append(JobGone(job_id=job_id, version=view.version + 1))

    def stop(self, job_id: str, *, is_eviction: bool = True, **changes: object) -> None:
        """A job gives its places back and waits again."""
        view = self.jobs[job_id]
        self._settle_usage(view)
        is_asked = view.stop_reason is not None and is_eviction
        is_move = view.stop_reason == Reason.MIGRATING
        self.change(
            job_id,
            **{
                "state": JobState.QUEUED,
                "reason": Reason.MIGRATED if is_move else Reason.PREEMPTED,
                "placement": None,
                "stop_reason": None,
                "served_ms": view.served_ms + max(0, self.now_ms - view.started_ms),
                "evictions": view.evictions + is_asked,
                "waiting_since_ms": self.now_ms,
                "remaining_ms": None,
                "saved_ms": None,
                **changes,
            },
        )

    def set_rules(
        self,
        quotas: tuple[QuotaView, ...] | None = None,
        queues: tuple[QueueView, ...] | None = None,
    ) -> None:
        """Somebody changes quotas or queues; the core sees usage at the same time."""
        self.quotas = self.quotas if quotas is None else quotas
        self.queues = self.queues if queues is None else queues
        view = self.observe()
        self.unseen.append(RulesSeen(quotas=view.quotas, usage=view.usage, queues=view.queues))

    def observe(self) -> ClusterView:
        """Return everything, as the database has it."""
        return ClusterView(
            nodes=tuple(self.nodes[key] for key in sorted(self.nodes)),
            jobs=tuple(self.jobs[key] for key in sorted(self.jobs)),
            quotas=self.quotas,
            usage=tuple(self.usage[key] for key in sorted(self.usage)),
            queues=self.queues,
        )

    def resync(self) -> None:
        """The core is shown everything anew."""
        self.unseen = [Observed(view=self.observe())]

    def restart(self) -> None:
        """The scheduler's process ends; another one begins with what the database has."""
        self.state = State(self.policy, explains=self.explains)
        self.state.is_checked = self.is_checked
        self.resync()

    # --- Passes --------------------------------------------------------------------------------

    def run_pass(self, drop: frozenset[int] = frozenset()) -> Plan:
        """Make one pass and apply what it decides.

        Args:
            drop: numbers of decisions that die on their way, with all that follow on that job.
        """
        deltas, self.unseen = tuple(self.unseen), []
        self.log.append((deltas, self.now_ms))
        self.state, plan = step(self.state, deltas, self.now_ms)
        self.plans.append(plan)
        self.wakeup_ms = plan.next_wakeup_ms
        if plan.next_wakeup_ms is not None and plan.next_wakeup_ms <= self.now_ms:
            self.faults.append(f"asks to be woken at {plan.next_wakeup_ms}, it is {self.now_ms}")
        self._audit_exchanges(plan)
        touched: dict[str, None] = {}
        for number, decision in enumerate(plan.decisions):
            row = self.jobs.get(decision.job_id)
            touched[decision.job_id] = None
            if row is None or row.version != decision.version or number in drop:
                self.num_stale += 1
                if self.is_reliable and not drop:
                    self.faults.append(f"stale: {decision}")
                continue
            self._apply(row, decision)
        for job_id in touched:
            if job_id in self.jobs:
                self.unseen.append(JobSeen(job=self.jobs[job_id]))
        return plan

    def settle(self) -> list[Plan]:
        """Make passes until nothing moves any more."""
        plans = []
        for _ in range(PASSES_MAX):
            plans.append(self.run_pass())
            hard = (Start, Preempt, Keep, Reserve, Admit, Hold)
            if not any(isinstance(one, hard) for one in plans[-1].decisions):
                return plans
        self.faults.append(f"goes in circles: {plans[-1].decisions}")
        return plans

    def advance(self, elapsed_ms: int) -> None:
        """Let time pass, waking the core when it asked to be woken, and settle."""
        until_ms = self.now_ms + elapsed_ms
        for _ in range(10_000):
            if self.wakeup_ms is None or self.wakeup_ms > until_ms:
                break
            self.now_ms = self.wakeup_ms
            self.settle()
        self.now_ms = until_ms
        self.settle()

    # --- Applying, and the laws of a single decision -------------------------------------------

    def _apply(self, row: JobView, decision: Decision) -> None:
        match decision:
            case Start():
                self._apply_start(row, decision)
            case Preempt():
                self._apply_preempt(row, decision)
            case Keep():
                if decision.claim is None:
                    self._audit_lapse(row)
                self._write(row, claim=decision.claim)
            case Reserve():
                self._audit_reserve(row, decision)
                self._write(row, reservation=decision.reservation)
            case Admit():
                self._expect(row.state is JobState.PENDING, f"admits {row}")
                self._write(
                    row,
                    state=JobState.QUEUED,
                    reason=decision.reason,
                    message="",
                    waiting_since_ms=self.now_ms,
                )
            case Hold():
                self._write(
                    row, state=JobState.PENDING, reason=decision.reason, message=decision.message
                )
            case Explain():
                self._expect(row.placement is None, f"says why it waits: {row}")
                self._write(row, reason=decision.reason, message=decision.message)

    def _expect(self, is_so: bool, fault: str) -> None:
        if not is_so:
            self.faults.append(fault)

    def _apply_preempt(self, row: JobView, decision: Preempt) -> None:
        may_go = row.placement is not None and row.stop_reason is None
        self._expect(may_go, f"asks to go: {row}")
        reason = decision.reason
        self._write(row, state=JobState.STOPPING, reason=reason, stop_reason=reason)
        self.evictions[row.job_id] += 1
        self.open_debts.setdefault(decision.for_job, []).append(row.job_id)

    def _write(self, row: JobView, **changes: object) -> None:
        self.jobs[row.job_id] = dataclasses.replace(
            row,
            version=row.version + 1,
            **changes,  # type: ignore[arg-type]  # real fields
        )

    def _apply_start(self, row: JobView, decision: Start) -> None:
        fault = self._find_start_fault(row, decision.placement)
        if fault is not None:
            self.num_refused += 1
            if self.is_reliable:
                self.faults.append(f"starts {row.job_id}: {fault}")
            return
        self._write(
            row,
            state=JobState.RUNNING,
            reason=Reason.TRAINING,
            message="",
            placement=decision.placement,
            claim=None,
            reservation=None,
            started_ms=self.now_ms,
            saved_ms=None,
            remaining_ms=None,
        )
        self.starts.append((self.now_ms, row.job_id))
        self._close_debt(row.job_id, "started")

    def _find_start_fault(self, row: JobView, placement: Placement) -> str | None:
        if row.placement is not None:
            return "it has its places already"
        if sum(share.num_workers for share in placement.shares) != row.shape.num_workers:
            return "the gang is not whole"
        held = self.list_slots()
        faults = [self._find_share_fault(row, share, held) for share in placement.shares]
        return next((one for one in faults if one), None) or self._find_quota_fault(row)

    def _find_share_fault(
        self, row: JobView, share: NodeShare, held: dict[tuple[str, int], str]
    ) -> str | None:
        view = self.nodes.get(share.node_id)
        if view is None or view.closed_reason or view.pool != row.pool:
            return f"{share.node_id} is no node for it"
        models = row.shape.gpu_models or (view.gpu_model,)
        if view.gpu_model not in models or view.gpu_memory_mib < row.shape.gpu_memory_mib:
            return f"{share.node_id} has other GPUs"
        slots = {(share.node_id, index) for index in share.gpu_indices}
        wanted = row.shape.per_worker.times(share.num_workers)
        if len(slots) != wanted.num_gpus or not slots <= {
            (share.node_id, index) for index in view.gpu_indices
        }:
            return f"it has not the GPUs that it needs on {share.node_id}"
        if slots & held.keys():
            return f"{held[min(slots & held.keys())]} holds {min(slots & held.keys())}"
        return self._find_overfull(view, wanted)

    def _find_overfull(self, view: NodeView, wanted: Resources) -> str | None:
        cpu_milli, memory_mib = self.count_used(view.node_id)
        if wanted.cpu_milli and cpu_milli + wanted.cpu_milli > view.capacity.cpu_milli:
            return f"{view.node_id} has not the CPUs"
        if wanted.memory_mib and memory_mib + wanted.memory_mib > view.capacity.memory_mib:
            return f"{view.node_id} has not the memory"
        return None

    def _find_quota_fault(self, row: JobView) -> str | None:
        for quota in self.quotas:
            if quota.project != row.project or quota.user not in ("", row.user):
                continue
            limit = quota.limit_gpus
            if not quota.may_borrow:
                limit = min(quota.guaranteed_gpus, 1 << 30 if limit is None else limit)
            used = self.count_gpus(quota.project, quota.user) + row.shape.num_gpus
            if limit is not None and row.shape.num_gpus and used > limit:
                return f"{quota.project}/{quota.user} would use {used} of {limit} GPUs"
            spent, budget = quota.spent_gpu_ms, quota.budget_gpu_ms
            if row.shape.num_gpus and budget is not None and spent >= budget:
                return f"{quota.project}/{quota.user} has spent its budget"
        return None

    def list_slots(self) -> dict[tuple[str, int], str]:
        """Return who holds each GPU."""
        return {
            (share.node_id, index): view.job_id
            for view in self.jobs.values()
            if view.placement is not None
            for share in view.placement.shares
            for index in share.gpu_indices
        }

    def count_used(self, node_id: str) -> tuple[int, int]:
        """Return CPUs and memory that are used on a node."""
        cpu_milli = memory_mib = 0
        for view in self.jobs.values():
            for share in () if view.placement is None else view.placement.shares:
                if share.node_id == node_id:
                    cpu_milli += share.num_workers * view.shape.per_worker.cpu_milli
                    memory_mib += share.num_workers * view.shape.per_worker.memory_mib
        return cpu_milli, memory_mib

    def count_gpus(self, project: str, user: str = "") -> int:
        """Return how many GPUs a tenant holds."""
        return sum(
            view.shape.num_gpus
            for view in self.jobs.values()
            if view.placement is not None
            and view.project == project
            and (not user or view.user == user)
        )

    # --- Laws over several decisions -----------------------------------------------------------

    def _audit_exchanges(self, plan: Plan) -> None:
        """Who goes is outranked before and after, within its budget, outside its exempt time."""
        totals: Counter[str] = Counter()
        for view in self.jobs.values():
            if view.placement is not None:
                totals[view.project] += view.shape.num_gpus
        for preemptor, decisions in _group_exchanges(plan, totals, self.jobs):
            if not isinstance(preemptor, str):
                continue
            above = self.jobs.get(preemptor)
            victims = [self.jobs.get(one.job_id) for one in decisions]
            if above is None or any(one is None for one in victims):
                continue  # a stale plan
            gone = [one for one in victims if one is not None]
            evicted = [
                one
                for one, decision in zip(gone, decisions, strict=True)
                if decision.reason != Reason.MIGRATING
            ]
            self._audit_victims(above, gone, totals, evicted)

    def _audit_victims(
        self, above: JobView, gone: list[JobView], totals: Counter[str], evicted: list[JobView]
    ) -> None:
        after = Counter(totals)
        after[above.project] += above.shape.num_gpus
        for view in evicted:
            after[view.project] -= view.shape.num_gpus
        for view in gone:
            if view.evictions >= self.policy.evictions_max:
                self.faults.append(f"{view.job_id} is asked to go beyond its budget")
            if not view.is_preemptible:
                self.faults.append(f"{view.job_id} may not be asked to go")
            if self.now_ms < view.started_ms + self.policy.exempt_ms:
                self.faults.append(f"{view.job_id} is asked to go in its exempt time")
        for view in evicted:
            is_same_project = view.project == above.project
            before = self._rank(above, totals, is_running=False)
            if not outranks(
                before,
                self._rank(view, totals, is_running=True),
                0,
                is_same_project=is_same_project,
            ):
                self.faults.append(f"{above.job_id} does not outrank {view.job_id} before")
            if outranks(
                self._rank(view, after, is_running=False),
                self._rank(above, after, is_running=True),
                self.policy.margin,
                is_same_project=is_same_project,
            ):
                self.faults.append(f"{view.job_id} outranks {above.job_id} after the exchange")

    def _rank(self, view: JobView, totals: Counter[str], *, is_running: bool) -> Rank:
        quota = next(
            (one for one in self.quotas if one.project == view.project and not one.user),
            QuotaView(project=view.project),
        )
        size, held = view.shape.num_gpus, totals[view.project]
        if is_running:
            is_borrowed = held - size >= quota.guaranteed_gpus
        else:
            is_borrowed = held + size > quota.guaranteed_gpus
        if not quota.guaranteed_gpus:
            is_borrowed = True
        known = estimate(view, measure_size(view.shape), self.now_ms, self.policy)
        price = self.state.tenants.get_overshare(view.project, view.user)
        priority = min(view.priority, quota.priority_max)
        return (int(is_borrowed), -priority, known.key + price, view.sequence, view.job_id)

    def _audit_lapse(self, row: JobView) -> None:
        claim = row.claim
        if claim is None:
            self.faults.append(f"{row.job_id} gives up places that are not kept for it")
            return
        is_lost = any(
            (view := self.nodes.get(share.node_id)) is None
            or view.closed_reason
            or not set(share.gpu_indices) <= set(view.gpu_indices)
            for share in claim.placement.shares
        )
        if claim.until_ms <= self.now_ms:
            cause = "lapsed"
        elif is_lost:
            cause = "node lost"
        elif row.is_held or row.waits_for or row.not_before_ms > self.now_ms or self._is_shut(row):
            cause = "held"
        else:
            cause = "capped"
            if self._find_quota_fault(row) is None:
                self.faults.append(f"{row.job_id} gives its places up without a cause")
        self._close_debt(row.job_id, cause)

    def _is_shut(self, row: JobView) -> bool:
        return any(one.name == row.queue and not one.is_open for one in self.queues)

    def _audit_reserve(self, row: JobView, decision: Reserve) -> None:
        old, new = row.reservation, decision.reservation
        if new is not None and new.start_ms < self.now_ms:
            self.faults.append(f"{row.job_id} is promised the past")
        if old is None:
            if decision.cause != "First":
                self.faults.append(f"{row.job_id} has no guarantee: {decision}")
            return
        is_later = new is None or new.start_ms > old.start_ms
        if is_later and decision.cause not in _LATER_CAUSES:
            self.faults.append(f"{row.job_id} is put off without a cause: {old} {decision}")
        if decision.cause == "Overrun" and old.start_ms > self.now_ms:
            self.faults.append(f"{row.job_id}: nothing was overrun yet: {old} {decision}")
        if decision.cause == "CapacityLost" and all(
            node_id in self.nodes and not self.nodes[node_id].closed_reason
            for node_id in old.node_ids
        ):
            self.faults.append(f"{row.job_id}: no machine was lost: {old} {decision}")

    def _close_debt(self, job_id: str, fate: str) -> None:
        if self.open_debts.pop(job_id, None) is not None:
            self.fates[fate] += 1

    def _settle_usage(self, view: JobView) -> None:
        if view.placement is None:
            return
        key = (view.project, view.user)
        known = self.usage.get(key, UsageView(project=key[0], user=key[1], gpu_ms=0, as_of_ms=0))
        kept = halve(known.gpu_ms, max(0, self.now_ms - known.as_of_ms), self.policy.half_life_ms)
        ran_ms = max(0, self.now_ms - view.started_ms)
        self.usage[key] = UsageView(
            project=key[0],
            user=key[1],
            gpu_ms=kept + ran_ms * measure_size(view.shape) // 1000,
            as_of_ms=max(self.now_ms, known.as_of_ms),
        )


def _group_exchanges(
    plan: Plan, totals: Counter[str], jobs: dict[str, JobView]
) -> Iterator[tuple[str, list[Preempt]]]:
    """Yield who makes room for whom, keeping `totals` as they are at that decision."""
    group: list[Preempt] = []
    for decision in plan.decisions:
        if isinstance(decision, Preempt):
            if group and group[-1].for_job != decision.for_job:
                yield group[0].for_job, group
                group = []
            group.append(decision)
        elif isinstance(decision, Keep) and decision.job_id in {one.job_id for one in group}:
            pass  # the new home of one that moves
        else:
            if group:
                yield group[0].for_job, group
                group = []
            if isinstance(decision, Start) and decision.job_id in jobs:
                totals[jobs[decision.job_id].project] += jobs[decision.job_id].shape.num_gpus
    if group:
        yield group[0].for_job, group
