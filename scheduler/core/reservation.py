"""Guarantees: the first job of each tier that finds no place is told when it starts at the latest.

The instant follows from what must happen by then: running jobs reach their declared limits, or the
waiting has lasted long enough to ask them to go. Nothing may push it back but a job that goes
first, lost machines or somebody's overrun, and each is recorded. Until then its nodes take only
work that ends in time, or that may be asked to go.
"""

from __future__ import annotations

import dataclasses

from scheduler.core.cluster import JobView, Reservation
from scheduler.core.decisions import Decision, Reserve
from scheduler.core.lines import Entry, Rank
from scheduler.core.nodes import Node
from scheduler.core.placement import Allowed, count_per_node, find_homes, split
from scheduler.core.preemption import price_wait
from scheduler.core.ranks import outranks, rank_entry, rank_in_line, rank_running
from scheduler.core.state import State

_LOOK_MS = 600_000


class Reserver:
    """Guarantees, in one pass."""

    def __init__(self, state: State, now_ms: int, decisions: list[Decision]) -> None:
        self._state, self._now_ms, self._decisions = state, now_ms, decisions
        self._first: dict[tuple[str, int], tuple[Rank, str]] = {}
        self._searched: list[tuple[str, int]] = []

    def find_allowed(self, entry: Entry) -> Allowed | None:
        """Return which nodes a job may use beside the guarantees of others; None: all."""
        closed = self.find_closed(entry)
        return (lambda node_id: node_id not in closed) if closed else None

    def find_closed(self, entry: Entry) -> set[str]:
        """Return the nodes that guarantees of others keep the job off."""
        state, view = self._state, entry.view
        if not state.reservations:
            return set()
        if view.is_preemptible and view.evictions < state.policy.evictions_max:
            return set()  # whoever holds the guarantee goes first, and may ask it to go
        mine = rank_entry(entry)
        closed: set[str] = set()
        for job_id, reservation in state.reservations.items():
            holder = state.jobs[job_id]
            if job_id == view.job_id or holder.view.pool != view.pool:
                continue
            if rank_entry(holder) < mine and not self._ends_by(view, reservation.start_ms):
                closed.update(reservation.node_ids)
        return closed

    def note_blocked(self, entry: Entry, rank: Rank) -> None:
        """Remember the first of each tier that found no place."""
        tier = (entry.view.pool, rank[0])
        first = self._first.get(tier)
        if first is None or rank < first[0]:
            self._first[tier] = (rank, entry.job_id)

    def withdraw(self, entry: Entry, cause: str) -> None:
        """Take a guarantee back."""
        self._reserve(entry, None, cause)

    def finish(self) -> None:
        """Give, keep or withdraw guarantees."""
        state = self._state
        self._find_holders()
        for tier, (rank, job_id) in sorted(self._first.items()):
            holder = state.holders.get(tier)
            if holder is not None and holder != job_id:
                known = state.jobs.get(holder)
                if known is not None and known.view.is_waiting and self._still_first(known, rank):
                    continue
                if known is not None and known.view.reservation is not None:
                    is_passed = rank_entry(known) > rank
                    self._reserve(known, None, "HigherPriority" if is_passed else "NotFirst")
            state.holders[tier] = job_id
            entry = state.jobs.get(job_id)
            if entry is not None and entry.line is not None:
                entry.line.kind.restless[entry.line.key] = entry.line
                self._look(entry, rank)
        for tier in self._searched:
            state.firsts[tier] = self._rank_holder(tier)

    def _find_holders(self) -> None:
        """Know again, in a state that is built anew, whose guarantees those are that were given."""
        state = self._state
        for job_id in sorted(state.reservations.keys() - set(state.holders.values())):
            entry = state.jobs[job_id]
            tier = (entry.view.pool, rank_entry(entry)[0])
            known = state.jobs.get(state.holders.get(tier, ""))
            if known is None or known.view.reservation is None:
                state.holders[tier] = job_id
            else:
                self._reserve(entry, None, "NotFirst")

    def note_resting(self, pool: str) -> None:
        """Remember the first of those that nothing has woken; what came free was not for them.

        Nothing is to be found where the holders are known to be the first and stand as they did:
        who has come since was woken, and looked at.
        """
        state, tiers = self._state, ((pool, 0), (pool, 1))
        if all(
            tier in state.firsts and state.firsts[tier] == self._rank_holder(tier) for tier in tiers
        ):
            return
        self._searched += tiers
        for line in state.lines.by_pool.get(pool, {}).values():
            if not line.is_capped:
                rank = rank_in_line(line, line.places[0])
                self.note_blocked(state.jobs[rank[4]], rank)

    def _rank_holder(self, tier: tuple[str, int]) -> Rank | None:
        holder = self._state.jobs.get(self._state.holders.get(tier, ""))
        return None if holder is None or holder.line is None else rank_entry(holder)

    def _still_first(self, holder: Entry, rank: Rank) -> bool:
        return holder.line is not None and rank_entry(holder) < rank

    def _look(self, entry: Entry, rank: Rank) -> None:
        """Work out when the job can start, at most every ten minutes.

        Most jobs find a place within the minute that they wait before they evict; the others get
        their guarantee then.
        """
        state, job_id = self._state, entry.job_id
        from_ms = entry.view.waiting_since_ms + state.policy.patience_min_ms
        if self._now_ms < from_ms:
            state.set_timer(from_ms, job_id)
            return
        looked_ms = state.looked_ms.get(job_id)
        if looked_ms is not None and looked_ms <= self._now_ms < looked_ms + _LOOK_MS:
            state.set_timer(looked_ms + _LOOK_MS, job_id)
            return
        state.looked_ms[job_id] = self._now_ms
        known = entry.view.reservation
        if known is not None:
            lost = [node_id for node_id in known.node_ids if not self._is_open(node_id)]
            if not lost and known.start_ms > self._now_ms:
                return
            cause = "CapacityLost" if lost else "Overrun"
        else:
            cause = "First"
        found = self._find_start(entry, rank)
        if found != known:
            self._reserve(entry, found, cause)

    def _is_open(self, node_id: str) -> bool:
        node = self._state.nodes.by_id.get(node_id)
        return node is not None and node.view.is_schedulable

    def _reserve(self, entry: Entry, reservation: Reservation | None, cause: str) -> None:
        view = entry.view
        self._decisions.append(
            Reserve(job_id=view.job_id, version=view.version, reservation=reservation, cause=cause)
        )
        after = dataclasses.replace(view, version=view.version + 1, reservation=reservation)
        self._state.put_job(after, self._now_ms)

    def _find_start(self, entry: Entry, rank: Rank) -> Reservation | None:
        state, shape = self._state, entry.view.shape
        groups = state.nodes.find_groups(entry.view.pool, shape)
        best: Reservation | None = None
        for group in find_homes(shape, groups):
            per_node = count_per_node(shape, group.capacity)
            whole, rest = split(shape, per_node)
            wanted = per_node if whole else rest
            num_nodes = whole + (whole > 0 and rest > 0) if whole else 1
            times = []
            for node_id in group.iter_emptiest():
                at_ms = self._find_empty(state.nodes.by_id[node_id], entry, rank, wanted)
                if at_ms is not None:
                    times.append((at_ms, node_id))
            if len(times) < num_nodes:
                continue
            chosen = sorted(times)[:num_nodes]
            start_ms = max(self._now_ms, *(at_ms for at_ms, _ in chosen))
            if best is None or start_ms < best.start_ms:
                best = Reservation(
                    start_ms=start_ms, node_ids=tuple(sorted(node_id for _, node_id in chosen))
                )
        return best

    def _find_empty(self, node: Node, entry: Entry, rank: Rank, wanted: int) -> int | None:
        """When `wanted` workers fit on the node at the latest, None when nobody can say."""
        per_worker = entry.view.shape.per_worker
        room = node.count_room(per_worker)
        if room >= wanted:
            return self._now_ms
        leaves = []
        for job_id in node.residents:
            at_ms = self._find_leave(self._state.jobs[job_id], entry, rank)
            if at_ms is not None:
                leaves.append((at_ms, job_id))
        free_gpus, free_cpu, free_memory = (
            node.free_gpus, node.free_cpu_milli, node.free_memory_mib,
        )  # fmt: skip
        need = per_worker.times(wanted)
        for at_ms, job_id in sorted(leaves):
            view = self._state.jobs[job_id].view
            free_gpus += node.residents[job_id]
            for share in () if view.placement is None else view.placement.shares:
                if share.node_id == node.view.node_id:
                    free_cpu += view.shape.per_worker.cpu_milli * share.num_workers
                    free_memory += view.shape.per_worker.memory_mib * share.num_workers
            if (
                free_gpus >= need.num_gpus
                and free_cpu >= need.cpu_milli
                and free_memory >= need.memory_mib
            ):
                return at_ms
        return None

    def _find_leave(self, other: Entry, entry: Entry, rank: Rank) -> int | None:
        """When a running job has left at the latest: asked to, or at its limit."""
        state, view = self._state, other.view
        policy = state.policy
        leave_ms = view.grace_ms + policy.claim_extra_ms
        if view.stop_reason is not None:
            return self._now_ms + leave_ms
        theirs = rank_running(other, key=other.place[1], num_gpus=view.shape.num_gpus)
        if (
            view.is_preemptible
            and view.evictions < policy.evictions_max
            and outranks(
                rank, theirs, policy.margin, is_same_project=view.project == entry.view.project
            )
        ):
            price_ms = price_wait(entry, view.evictions, policy)
            due_ms = max(self._now_ms, entry.view.waiting_since_ms + price_ms)
            return due_ms + leave_ms
        if view.limit_ms is not None:
            end_ms = view.started_ms + max(0, view.limit_ms - view.served_ms)
            return max(end_ms, self._now_ms) + leave_ms
        return None

    def _ends_by(self, view: JobView, at_ms: int) -> bool:
        if view.limit_ms is None:
            return False
        return self._now_ms + max(0, view.limit_ms - view.served_ms) + view.grace_ms <= at_ms
