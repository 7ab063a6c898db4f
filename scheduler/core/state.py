"""What the pass knows between passes: nodes, jobs, lines, tenants, timers. Mutable, deterministic.

Built from views and kept up by deltas; a state that has followed deltas decides like one that was
built from the same view at once. Nothing here decides.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

from scheduler.core.cluster import (
    ClusterView,
    JobView,
    NodeView,
    QueueView,
    QuotaView,
    Reservation,
    UsageView,
)
from scheduler.core.deltas import (
    Delta,
    JobGone,
    JobSeen,
    NodeGone,
    NodeSeen,
    Observed,
    RulesSeen,
)
from scheduler.core.durations import Durations
from scheduler.core.estimates import (
    CPU_MILLI_PER_GPU,
    estimate,
    find_deadline,
    measure_size,
)
from scheduler.core.lines import Entry, LineKey, Lines, Place, Rank
from scheduler.core.nodes import Nodes
from scheduler.core.octaves import count_octaves
from scheduler.core.policy import DEFAULT_POLICY, Policy
from scheduler.core.reasons import Reason
from scheduler.core.tenants import Tenant, Tenants

_STAYING = (None, Reason.MIGRATING)
_GONE_MAX = 10_000
LEAVING = frozenset({Reason.PREEMPTING, Reason.MIGRATING})


class State:
    """The scheduler's memory.

    Attributes:
        policy: the constants it decides with.
        explains: whether passes say why jobs wait; replays and forecasts do without.
        jobs: every job that waits or holds places.
        running: per pool the jobs that hold places and were not asked to stop, worst first.
        unjudged: jobs of which the next pass has to see whether they may start at all.
        claimants, reservations: jobs that places are kept for, and guarantees, by job.
        freed: pools in which something came free, or somebody came to stand lower.
        order_version: grows when who outranks whom may have changed everywhere.
        holders: per pool and tier the first job that found no place.
        firsts: the rank of each holder, None without one, when all were last compared with it.
        barred: pools in which a guarantee keeps somebody off some nodes.
        untold: lines in which somebody does not say yet why it waits.
        looked_ms: when the guarantee of a job was last worked out.
        durations: how long jobs that have ended took.
        is_checked: whether each pass ends with a check of the invariants.
    """

    def __init__(self, policy: Policy = DEFAULT_POLICY, *, explains: bool = True) -> None:
        self.policy = policy
        self.explains = explains
        self.nodes = Nodes()
        self.lines = Lines()
        self.tenants = Tenants(policy)
        self.queues: dict[str, QueueView] = {}
        self.jobs: dict[str, Entry] = {}
        self.running: dict[str, list[Place]] = {}
        self.unjudged: dict[str, None] = {}
        self.claimants: dict[str, None] = {}
        self.reservations: dict[str, Reservation] = {}
        self.freed: set[str] = set()
        self.order_version = 0
        self.holders: dict[tuple[str, int], str] = {}
        self.firsts: dict[tuple[str, int], Rank | None] = {}
        self.barred: set[str] = set()
        self.untold: dict[LineKey, None] = {}
        self.looked_ms: dict[str, int] = {}
        self.durations = Durations()
        self.is_checked = False
        self._seen: dict[str, int] = {}
        self._gone: dict[str, int] = {}  # the versions of the last that went, oldest first
        self._timers: list[tuple[int, str]] = []
        self._timers_set: set[tuple[int, str]] = set()
        self._holding: dict[str, dict[str, Entry]] = {}  # who holds places, by project
        self._largest = 0
        self._usage: tuple[UsageView, ...] = ()
        self._quotas: tuple[QuotaView, ...] = ()

    def apply(self, delta: Delta, now_ms: int) -> None:
        """Take in one delta."""
        match delta:
            case JobSeen():
                job = delta.job
                if job.version >= self._seen.get(job.job_id, self._gone.get(job.job_id, -1)):
                    self._seen[job.job_id] = job.version
                    self.put_job(job, now_ms)
            case JobGone():
                if delta.version >= self._seen.get(delta.job_id, -1):
                    self._bury(delta.job_id, delta.version)
                    self._learn(delta.job_id, now_ms)
                    self.remove_job(delta.job_id, now_ms)
            case NodeSeen():
                self._put_node(delta.node)
            case NodeGone():
                self._remove_node(delta.node_id)
            case RulesSeen():
                self._set_rules(delta, now_ms)
            case Observed():
                self._replace(delta.view, now_ms)

    @property
    def quotas(self) -> tuple[QuotaView, ...]:
        """All quotas that are set."""
        return self._quotas

    def _learn(self, job_id: str, now_ms: int) -> None:
        """Remember how long a job took that goes while it holds places."""
        entry = self.jobs.get(job_id)
        if entry is None or entry.view.placement is None:
            return
        view = entry.view
        took_ms = view.served_ms + max(0, now_ms - view.started_ms)
        self.durations.add(view.project, view.limit_ms, took_ms)

    def put_job(self, view: JobView, now_ms: int) -> Entry:
        """Add a job or replace what is known of it."""
        tenant, member = self.tenants.get_both(view.project, view.user)
        num_before = tenant.num_staying
        old = self.jobs.get(view.job_id)
        if old is not None:
            if old.view == view or self._update(old, view, now_ms):
                return old
            self._take_out(old, now_ms)
            if _frees(old.view, view):
                self._wake_for_room(old.view)
        size = measure_size(view.shape)
        known = estimate(view, size, now_ms, self.policy)
        place = (-view.priority, known.key, view.sequence, view.job_id)
        entry = self.jobs[view.job_id] = Entry(
            view=view,
            size=size,
            num_gpus=view.shape.num_gpus,
            estimate=known,
            place=place,
            tenant=tenant,
            member=member,
            key=known.key,
            price=self.tenants.get_overshare(view.project, view.user),
            is_fixed=self._is_fixed(view),
        )
        if view.claim is not None:
            self.claimants[view.job_id] = None
            for share in view.claim.placement.shares:
                self.nodes.take(view.job_id, share, view.shape.per_worker, is_claim=True)
            if view.placement is None:
                self.tenants.keep(view.project, view.user, view.shape.num_gpus)
            self.set_timer(view.claim.until_ms, view.job_id)
        if view.reservation is not None:
            self.reservations[view.job_id] = view.reservation
            self.set_timer(view.reservation.start_ms, view.job_id)
        if view.placement is None:
            self.unjudged[view.job_id] = None
            self._watch_starving(view, size, now_ms)
        else:
            self._put_running(entry, now_ms)
            self._note_growth(tenant, num_before)
        return entry

    def remove_job(self, job_id: str, now_ms: int) -> None:
        """Forget a job and free what it held."""
        entry = self.jobs.get(job_id)
        if entry is None:
            return
        self._take_out(entry, now_ms)
        if entry.view.placement is not None or entry.view.claim is not None:
            self._wake_for_room(entry.view)

    def _wake_for_room(self, view: JobView) -> None:
        """A job has given something back; what counts against a quota counts in every pool."""
        self.freed.add(view.pool)
        if self._quotas:
            self.lines.wake_project(view.project)

    def _lower(self, entry: Entry) -> None:
        """A running job has come to stand lower: others may now stand above it."""
        if entry.view.placement is not None:
            self.nodes.mark_places(entry.view.placement)
            self.freed.add(entry.view.pool)

    def _note_growth(self, tenant: Tenant, num_before: int) -> None:
        """What a project has got beyond what is guaranteed may now be taken from it.

        Whoever goes leaves it with less: far above the guarantee one more makes no difference.
        """
        guaranteed = tenant.quota.guaranteed_gpus
        if not guaranteed or not num_before < tenant.num_staying > guaranteed:
            return
        if num_before < guaranteed + 2 * self._largest:
            for entry in self._holding[tenant.quota.project].values():
                self._lower(entry)

    def _take_out(self, entry: Entry, now_ms: int) -> None:
        job_id, view = entry.job_id, entry.view
        del self.jobs[job_id]
        self.unjudged.pop(job_id, None)
        self._drop_reservation(view)
        self.looked_ms.pop(job_id, None)
        if view.claim is not None:
            del self.claimants[job_id]
            for share in view.claim.placement.shares:
                self.nodes.give_back(job_id, share, view.shape.per_worker, is_claim=True)
        if view.placement is None:
            self.unlist(entry)
            if view.claim is not None:
                self.tenants.keep(view.project, view.user, -view.shape.num_gpus)
            return
        self._remove_running(entry, now_ms)

    def _drop_reservation(self, view: JobView) -> None:
        if self.reservations.pop(view.job_id, None) is not None and view.pool in self.barred:
            self.barred.discard(view.pool)
            self.freed.add(view.pool)

    def list_waiting(self, entry: Entry) -> None:
        """Put a job that may start into its line."""
        if entry.line is not None:
            return
        line = self.lines.add(entry)
        self.tenants.wait(entry.view.project, entry.view.user, 1)
        if self.explains:
            line.unexplained.append(entry.job_id)

    def unlist(self, entry: Entry) -> None:
        """Take a job out of its line."""
        if entry.line is not None:
            self.lines.discard(entry)
            self.tenants.wait(entry.view.project, entry.view.user, -1)

    def set_timer(self, at_ms: int, job_id: str) -> None:
        """Let the job be looked at again at `at_ms`."""
        timer = (at_ms, job_id)
        if timer not in self._timers_set:
            self._timers_set.add(timer)
            heapq.heappush(self._timers, timer)

    def pop_due(self, now_ms: int) -> list[str]:
        """Return the jobs whose time has come."""
        due: dict[str, None] = {}
        while self._timers and self._timers[0][0] <= now_ms:
            due[self._pop_timer()] = None
        return sorted(due)  # not by instants: old timers that mean nothing more are among them

    def find_next_timer(self) -> int | None:
        """Return when the next job's time comes."""
        while self._timers and self._timers[0][1] not in self.jobs:
            self._pop_timer()
        return self._timers[0][0] if self._timers else None

    def _pop_timer(self) -> str:
        timer = heapq.heappop(self._timers)
        self._timers_set.discard(timer)
        return timer[1]

    def refresh(self, entry: Entry, now_ms: int) -> None:
        """Give a waiting job the place that follows from how long it has waited by now."""
        self._watch_starving(entry.view, entry.size, now_ms)
        known = estimate(entry.view, entry.size, now_ms, self.policy)
        if known.key == entry.place[1]:
            return
        is_listed = entry.line is not None
        self.unlist(entry)
        entry.estimate, entry.key = known, known.key
        entry.place = (entry.place[0], known.key, *entry.place[2:])
        if is_listed:
            self.list_waiting(entry)

    def _watch_starving(self, view: JobView, size: int, now_ms: int) -> None:
        if view.waiting_since_ms:
            at_ms = find_deadline(view, size, self.policy)
            if at_ms > now_ms:
                self.set_timer(at_ms, view.job_id)

    def rerank(self, entry: Entry, now_ms: int) -> None:
        """Work the key of a running job out anew, when it has entered another queue."""
        running = self.running[entry.view.pool]
        self._drop(running, entry.place)
        entry.estimate = estimate(entry.view, entry.size, now_ms, self.policy)
        key = entry.key
        self.look_at(entry, now_ms)
        entry.place = (*entry.place[:1], entry.estimate.key, *entry.place[2:])
        insort(running, _worst_first(entry.place))
        self.nodes.num_changes += 1  # another one may be among the worst now
        if entry.estimate.changes_at_ms is not None:
            self.set_timer(entry.estimate.changes_at_ms, entry.job_id)
        if entry.key > key:
            self._lower(entry)

    def reprice(self) -> None:
        """Pass new prices on to those who run, and let every line look again."""
        self.order_version += 1
        for running in self.running.values():
            for place in running:
                entry = self.jobs[place[3]]
                entry.price = self.tenants.get_overshare(entry.view.project, entry.view.user)
        self.lines.wake_all()

    def _is_fixed(self, view: JobView) -> bool:
        return (
            view.stop_reason is not None
            or not view.is_preemptible
            or view.evictions >= self.policy.evictions_max
        )

    def look_at(self, entry: Entry, now_ms: int) -> None:
        """Bring the key of a running job up to date; its place stays that of its last change."""
        known = estimate(entry.view, entry.size, now_ms, self.policy)
        entry.key = known.key
        if not known.is_known and known.changes_at_ms is not None:
            entry.stale_ms = known.changes_at_ms
            return
        # What remains is rounded down to seven bits, by at most a 64th: between two such values
        # the key stays as it is, so that it does not matter when somebody last looked.
        step_ms = 1 << max(0, known.wall_ms.bit_length() - 7)
        rounded_ms = known.wall_ms // step_ms * step_ms
        entry.key = known.bias + count_octaves(rounded_ms * entry.size)
        entry.stale_ms = now_ms + known.wall_ms - rounded_ms + 1
        if known.changes_at_ms is not None:
            entry.stale_ms = min(entry.stale_ms, known.changes_at_ms)

    def count_capacity(self) -> int:
        """Return what all nodes that take work have, in thousandths of a GPU."""
        if self._capacity is None:
            self._capacity = sum(
                _node_size(node.view)
                for node in self.nodes.by_id.values()
                if node.view.is_schedulable
            )
        return self._capacity

    _capacity: int | None = None

    def observe(self) -> ClusterView:
        """Return the view that this state stands for."""
        return ClusterView(
            nodes=tuple(self.nodes.by_id[key].view for key in sorted(self.nodes.by_id)),
            jobs=tuple(self.jobs[key].view for key in sorted(self.jobs)),
            quotas=self._quotas,
            usage=self._usage,
            queues=tuple(self.queues[key] for key in sorted(self.queues)),
        )

    def _bury(self, job_id: str, version: int) -> None:
        """Remember for a while that a job has gone: news of it that are late do not revive it."""
        self._seen.pop(job_id, None)
        self._gone.pop(job_id, None)
        self._gone[job_id] = version
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def _update(self, entry: Entry, view: JobView, now_ms: int) -> bool:
        """Take in what frees and claims nothing; False when more than that has changed."""
        if not _holds_the_same(entry.view, view):
            return False
        known = estimate(view, entry.size, now_ms, self.policy)
        if view.placement is None and (
            known.key != entry.place[1] or not _may_start_alike(entry.view, view)
        ):
            return False
        if view.reservation != entry.view.reservation:
            self._drop_reservation(entry.view)
            if view.reservation is not None:
                self.reservations[view.job_id] = view.reservation
                self.set_timer(view.reservation.start_ms, view.job_id)
        entry.view = view
        entry.stale_ms = 0
        was_fixed, entry.is_fixed = entry.is_fixed, self._is_fixed(view)
        if was_fixed and not entry.is_fixed:
            self._lower(entry)
        if view.placement is None:
            self._watch_starving(view, entry.size, now_ms)
            if entry.line is None:
                self.unjudged[view.job_id] = None
        elif view.stop_reason is None and not known.key == entry.place[1] <= entry.key:
            self.rerank(entry, now_ms)
        return True

    def _put_running(self, entry: Entry, now_ms: int) -> None:
        view = entry.view
        placement = view.placement
        if placement is None:
            return
        self._holding.setdefault(view.project, {})[view.job_id] = entry
        self._largest = max(self._largest, view.shape.num_gpus)
        for share in placement.shares:
            self.nodes.take(view.job_id, share, view.shape.per_worker, is_claim=False)
        if view.stop_reason in LEAVING:
            for share in placement.shares:
                self.nodes.mark_leaving(share, view.shape.per_worker, 1)
        self.tenants.change(view.project, view.user, entry.size, view.shape.num_gpus, now_ms)
        if view.stop_reason not in _STAYING:
            self.tenants.leave(view.project, view.user, view.shape.num_gpus)
        if view.stop_reason is None:
            insort(self.running.setdefault(view.pool, []), _worst_first(entry.place))
            if entry.estimate.changes_at_ms is not None:
                self.set_timer(entry.estimate.changes_at_ms, view.job_id)

    def _remove_running(self, entry: Entry, now_ms: int) -> None:
        view = entry.view
        placement = view.placement
        if placement is None:
            return
        del self._holding[view.project][view.job_id]
        for share in placement.shares:
            self.nodes.give_back(view.job_id, share, view.shape.per_worker, is_claim=False)
        if view.stop_reason in LEAVING:
            for share in placement.shares:
                self.nodes.mark_leaving(share, view.shape.per_worker, -1)
        self.tenants.change(view.project, view.user, -entry.size, -view.shape.num_gpus, now_ms)
        if view.stop_reason not in _STAYING:
            self.tenants.leave(view.project, view.user, -view.shape.num_gpus)
        if view.stop_reason is None:
            self._drop(self.running[view.pool], entry.place)

    def _drop(self, running: list[Place], place: Place) -> None:
        wanted = _worst_first(place)
        at = bisect_left(running, wanted)
        if at < len(running) and running[at] == wanted:
            del running[at]

    def _put_node(self, view: NodeView) -> None:
        old = self.nodes.by_id.get(view.node_id)
        if old is not None and old.view == view:
            return
        self.nodes.put(view)
        # One that comes back, or is seen after its jobs, is not empty either.
        if old is None or old.residents or old.num_claims:
            self._reseat(view.node_id)
        self._capacity = None
        self.order_version += 1
        self.lines.wake_all()

    def _reseat(self, node_id: str) -> None:
        """Give everybody on a node that has come or changed their places again."""
        for entry in self.jobs.values():
            view = entry.view
            held = () if view.placement is None else view.placement.shares
            kept = () if view.claim is None else view.claim.placement.shares
            for shares, is_claim in ((held, False), (kept, True)):
                for share in shares:
                    if share.node_id == node_id:
                        per_worker = view.shape.per_worker
                        self.nodes.take(view.job_id, share, per_worker, is_claim=is_claim)
                        if not is_claim and view.stop_reason in LEAVING:
                            self.nodes.mark_leaving(share, per_worker, 1)

    def _remove_node(self, node_id: str) -> None:
        self.nodes.remove(node_id)
        self._capacity = None
        self.order_version += 1
        self.lines.wake_all()

    def _set_rules(self, rules: RulesSeen, now_ms: int, *, is_all_new: bool = False) -> None:
        queues = {queue.name: queue for queue in rules.queues}
        if queues != self.queues:
            self.queues = queues
            for entry in self.jobs.values():
                if entry.view.placement is None:
                    self.unjudged[entry.job_id] = None
        if rules.quotas != self._quotas:
            self._quotas = rules.quotas
            self.tenants.set_quotas(rules.quotas)
            self.order_version += 1
            self.lines.wake_all()
        if is_all_new or rules.usage != self._usage:
            self._usage = rules.usage
            self.tenants.set_usage(rules.usage, now_ms)
            for entry in self.jobs.values():
                if entry.view.placement is not None:
                    view = entry.view
                    self.tenants.add_run(
                        view.project, view.user, entry.size, view.started_ms, now_ms
                    )

    def _replace(self, view: ClusterView, now_ms: int) -> None:
        """Become what a state built from `view` would be; keep the memory of what was decided."""
        seen = {node.node_id for node in view.nodes}
        for node_id in [known for known in self.nodes.by_id if known not in seen]:
            self._remove_node(node_id)
        for node in view.nodes:
            self._put_node(node)
        known_jobs = {job.job_id for job in view.jobs}
        for job_id in [known for known in self.jobs if known not in known_jobs]:
            self.remove_job(job_id, now_ms)
        self._seen = {job.job_id: job.version for job in view.jobs}
        # Who holds places comes first: what waits is then judged against the room there is.
        for job in sorted(view.jobs, key=lambda one: (one.placement is None, one.job_id)):
            self.put_job(job, now_ms)
        rules = RulesSeen(quotas=view.quotas, usage=view.usage, queues=view.queues)
        # What runs has used something too, whether or not ended attempts have.
        self._set_rules(rules, now_ms, is_all_new=True)


def _holds_the_same(old: JobView, new: JobView) -> bool:
    return (
        old.placement == new.placement
        and old.claim == new.claim
        and old.stop_reason == new.stop_reason
        and old.shape == new.shape
        and old.pool == new.pool
        and old.queue == new.queue
        and old.priority == new.priority
        and old.project == new.project
        and old.user == new.user
        and old.sequence == new.sequence
    )


def _frees(old: JobView, new: JobView) -> bool:
    """Whether what the job held is not all held or kept for it any more."""
    kept = (new.placement, None if new.claim is None else new.claim.placement)
    if old.placement is not None and old.placement not in kept:
        return True
    return old.claim is not None and old.claim.placement not in kept


def _may_start_alike(old: JobView, new: JobView) -> bool:
    return (
        old.is_held == new.is_held
        and old.not_before_ms == new.not_before_ms
        and old.waits_for == new.waits_for
    )


def _worst_first(place: Place) -> Place:
    return (-place[0], -place[1], -place[2], place[3])


def _node_size(node: NodeView) -> int:
    if node.gpu_indices:
        return len(node.gpu_indices) * 1000
    return max(1, node.capacity.cpu_milli * 1000 // CPU_MILLI_PER_GPU)
