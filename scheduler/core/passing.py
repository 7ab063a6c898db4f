"""The stages of one pass, in order. Deterministic; changes the state as if the plan were applied.

Timers, eligibility, kept places, then line by line: free room, else room made by others, else a
reason. What starts or is asked to go is noted in the state at once, so that later stages of the
same pass see it.
"""

from __future__ import annotations

import dataclasses
import heapq

from scheduler.core.cluster import Claim, Placement
from scheduler.core.decisions import Admit, Decision, Explain, Hold, Keep, Plan, Preempt, Start
from scheduler.core.eligibility import find_cap, find_hold
from scheduler.core.lines import Entry, Kind, Line, Rank
from scheduler.core.placement import place
from scheduler.core.preemption import Eviction, Patience, Search, count_affordable, price_wait
from scheduler.core.ranks import rank_entry, rank_in_line
from scheduler.core.reasons import Reason
from scheduler.core.reservation import Reserver
from scheduler.core.state import State
from scheduler.core.states import JobState
from scheduler.core.waiting import describe_no_room

_EXPLAINED_MAX = 256
_BEHIND_MAX = 8


class Pass:
    """One look at everything that has changed."""

    def __init__(self, state: State, now_ms: int) -> None:
        self._state, self._now_ms = state, now_ms
        self._decisions: list[Decision] = []
        self._num_explained = 0
        self._failed: dict[Kind, int] = {}
        self._hopeful: set[Kind] = set()
        self._heap: list[tuple[Rank, Line]] = []
        self._followers: dict[Kind, list[tuple[Rank, Line]]] = {}
        self._no_room: dict[Kind, tuple[str, str]] = {}
        self._reserver = Reserver(state, now_ms, self._decisions)

    def run(self) -> Plan:
        """Make the pass."""
        state = self._state
        self._fire_timers()
        self._judge()
        if state.tenants.refresh(state.count_capacity(), self._now_ms):
            state.reprice()
        self._serve_claims()
        self._serve_lines()
        self._reserver.finish()
        self._tell_more()
        wakeup_ms = state.find_next_timer()
        if state.lines.alive or state.freed or state.untold:
            wakeup_ms = self._now_ms + 1
        if wakeup_ms is not None:
            wakeup_ms = max(wakeup_ms, self._now_ms + 1)
        return Plan(decisions=tuple(self._decisions), next_wakeup_ms=wakeup_ms)

    def _fire_timers(self) -> None:
        state = self._state
        for job_id in state.pop_due(self._now_ms):
            entry = state.jobs.get(job_id)
            if entry is None:
                continue
            claim = entry.view.claim
            if claim is not None and claim.until_ms <= self._now_ms and entry.view.is_waiting:
                self._keep(entry, None)
                entry = state.jobs[job_id]
                state.unjudged[job_id] = None  # it may have been held since it got its claim
            if entry.view.is_waiting:
                state.refresh(entry, self._now_ms)
                if entry.line is not None:
                    state.lines.wake(entry.line)
                else:
                    state.unjudged[job_id] = None
                continue
            changes_at_ms = entry.estimate.changes_at_ms
            if (
                changes_at_ms is not None
                and changes_at_ms <= self._now_ms
                and entry.view.stop_reason is None
            ):
                state.rerank(entry, self._now_ms)

    def _judge(self) -> None:
        """Let in what nothing holds back; keep out the rest, and say why."""
        state = self._state
        unjudged, state.unjudged = state.unjudged, {}
        entries = [state.jobs[job_id] for job_id in unjudged if job_id in state.jobs]
        for entry in sorted(entries, key=lambda one: (one.view.sequence, one.job_id)):
            view = entry.view
            if not view.is_waiting:
                continue
            hold = find_hold(view, state.queues, self._now_ms)
            if hold is not None:
                state.unlist(entry)
                self._hold(entry, *hold)
                continue
            if view.state is JobState.PENDING:
                reason = Reason.WAITING_FOR_PLACEMENT
                self._decisions.append(
                    Admit(job_id=view.job_id, version=view.version, reason=reason, message="")
                )
                entry.view = dataclasses.replace(
                    view,
                    state=JobState.QUEUED,
                    version=view.version + 1,
                    reason=reason,
                    message="",
                    waiting_since_ms=self._now_ms,
                )
                state.refresh(entry, self._now_ms)
            if view.claim is None:
                state.list_waiting(entry)

    def _hold(self, entry: Entry, reason: str, message: str) -> None:
        view = entry.view
        if view.not_before_ms > self._now_ms and not view.is_held:
            self._state.set_timer(view.not_before_ms, view.job_id)
        if view.claim is not None:
            self._keep(entry, None)
            entry = self._state.jobs[view.job_id]
            self._state.unlist(entry)
            view = entry.view
        if view.reservation is not None:
            self._reserver.withdraw(entry, "Held")
            view = entry.view
        if view.state is JobState.PENDING and view.reason == reason:
            return
        self._decisions.append(
            Hold(job_id=view.job_id, version=view.version, reason=reason, message=message)
        )
        entry.view = dataclasses.replace(
            view, state=JobState.PENDING, version=view.version + 1, reason=reason, message=message
        )
        self._state.unjudged.pop(view.job_id, None)

    def _serve_claims(self) -> None:
        """Start those whose places have been emptied; give up what has gone or is not allowed."""
        state = self._state
        for job_id in sorted(state.claimants):
            entry = state.jobs[job_id]
            claim = entry.view.claim
            if claim is None or not entry.view.is_waiting:
                continue
            if not self._stands(claim) or find_cap(entry.view, state.tenants) is not None:
                self._keep(entry, None)
            elif self._is_empty(entry, claim):
                self._start(entry, claim.placement)

    def _stands(self, claim: Claim) -> bool:
        nodes = self._state.nodes.by_id
        return all(
            (node := nodes.get(share.node_id)) is not None
            and node.view.is_schedulable
            and all(index in node.position for index in share.gpu_indices)
            for share in claim.placement.shares
        )

    def _is_empty(self, entry: Entry, claim: Claim) -> bool:
        """Whether nobody but the claim itself holds the places any more."""
        per_worker = entry.view.shape.per_worker
        for share in claim.placement.shares:
            node = self._state.nodes.by_id[share.node_id]
            if any(node.taken[node.position[index]] != 1 for index in share.gpu_indices):
                return False
            if per_worker.cpu_milli * share.num_workers > node.free_cpu_milli:
                return False
            if per_worker.memory_mib * share.num_workers > node.free_memory_mib:
                return False
        return True

    def _serve_lines(self) -> None:
        state = self._state
        freed = self._lead_kinds()
        heap = self._heap
        for line in state.lines.alive.values():
            if line.places:
                heap.append((rank_in_line(line, line.places[0]), line))
        heapq.heapify(heap)
        while heap:
            rank, line = heapq.heappop(heap)
            if not line.places:
                continue
            current = rank_in_line(line, line.places[0])
            if current != rank:  # its project has got or lost places in this pass
                heapq.heappush(heap, (current, line))
                continue
            entry = state.jobs[line.places[0][3]]
            if (
                self._try(entry, line, rank)
                or self._start_behind(line)
                or self._try_behind(line, rank)
            ):
                if line.places:
                    heapq.heappush(heap, (rank_in_line(line, line.places[0]), line))
                self._go_on(line.kind)
                continue
            self._rest(entry, line, rank)
        for pool in freed:
            self._reserver.note_resting(pool)
            if state.explains:
                self._tell_kinds(pool)

    def _lead_kinds(self) -> list[str]:
        """Look who may gain by what has come free: kind by kind, not line by line."""
        state, highest = self._state, self._state.policy.evictions_max
        freed, state.freed = sorted(state.freed), set()
        for pool in freed:
            for kind in state.lines.kinds.get(pool, {}).values():
                if self._has_room(kind) or not self._is_settled(kind, highest):
                    followers = [
                        (rank_in_line(line, line.places[0]), line)
                        for line in kind.lines.values()
                        if not (line.is_alive or line.is_capped)
                    ]
                    heapq.heapify(followers)
                    self._followers[kind] = followers
                    self._go_on(kind)
                else:
                    for line in kind.restless.values():
                        state.lines.wake(line)
        return freed

    def _go_on(self, kind: Kind) -> None:
        """Let the next line of a kind try, after one that has not shown it to be in vain."""
        followers = self._followers.get(kind)
        if followers:
            heapq.heappush(self._heap, heapq.heappop(followers))

    def _has_room(self, kind: Kind) -> bool:
        nodes = self._state.nodes
        if kind.full_version == nodes.version:
            return False
        if place(kind.shape, kind.pool, nodes) is not None:
            return True
        kind.full_version = nodes.version
        return False

    def _is_settled(self, kind: Kind, level: int) -> bool:
        """Whether what was found in vain, among victims evicted less often, still holds.

        Keys of running jobs only fall while they run, and who starts takes room that was free to
        the one that looked: neither makes victims.
        """
        state, known = self._state, kind.vain.get(level)
        if known is None or known.order_version != state.order_version:
            return False
        if known.version == state.nodes.version:
            return True
        search = Search(state, known.entry, known.rank, self._now_ms, level=level)
        if search.may_gain(known):
            del kind.vain[level]
            if level == state.policy.evictions_max and kind not in self._followers:
                state.freed.add(kind.pool)  # its lines that are at rest have to look again
            return False
        kind.vain[level] = search.conclude()
        return True

    def _is_covered(self, kind: Kind, rank: Rank, level: int | None = None) -> bool:
        """Whether one that stood no lower has looked in vain, and that still holds.

        Args:
            level: how many evictions waiting has paid for; None: it does not matter.
        """
        highest = self._state.policy.evictions_max
        return any(
            (known := kind.vain.get(one)) is not None
            and rank >= known.rank
            and self._is_settled(kind, one)
            for one in range(highest, highest - 1 if level is None else level - 1, -1)
        )

    def _rest(self, entry: Entry, line: Line, rank: Rank) -> None:
        """Leave a line alone until there may be something in it for its head."""
        kind = line.kind
        is_barred = not line.is_capped and bool(self._reserver.find_closed(entry))
        if is_barred:
            self._state.barred.add(kind.pool)
        if line.is_capped or (not is_barred and self._is_covered(kind, rank)):
            kind.restless.pop(line.key, None)
        else:
            kind.restless[line.key] = line
        self._state.lines.rest(line)
        if self._state.explains:
            self._explain(entry, line)
        if line.is_capped or line.key in kind.restless or self._has_room(kind):
            self._go_on(kind)

    def _try(self, entry: Entry, line: Line, rank: Rank) -> bool:
        """Start a job or make room for it; False when it has to go on waiting."""
        line.is_capped = find_cap(entry.view, self._state.tenants) is not None
        if line.is_capped:
            return False
        if self._start_in_free_room(entry, line.kind) or self._make_room(entry, line.kind, rank):
            return True
        self._reserver.note_blocked(entry, rank)
        return False

    def _start_in_free_room(self, entry: Entry, kind: Kind) -> bool:
        nodes = self._state.nodes
        if kind.full_version == nodes.version:
            return False
        allowed = self._reserver.find_allowed(entry)
        found = place(kind.shape, kind.pool, nodes, allowed)
        if found is not None:
            self._start(entry, found)
            return True
        if allowed is None:
            kind.full_version = nodes.version
        return False

    def _make_room(self, entry: Entry, kind: Kind, rank: Rank) -> bool:
        state, policy, now_ms = self._state, self._state.policy, self._now_ms
        if self._is_covered(kind, rank):
            return False
        level = count_affordable(entry, now_ms, policy)
        if self._failed.get(kind, -1) >= level or (level and self._is_covered(kind, rank, level)):
            self._set_retry(entry)
            return False
        allowed = self._reserver.find_allowed(entry)
        search = Search(state, entry, rank, now_ms, level=level, allowed=allowed)
        found = search.find()
        if isinstance(found, Eviction):
            self._evict(entry, found)
            self._failed.clear()
            return True
        if allowed is None:
            self._failed[kind] = level
            if self._is_vain(entry, kind, search, found):
                return False
        if found.until_ms is not None:
            state.set_timer(found.until_ms, entry.job_id)
        return False

    def _is_vain(self, entry: Entry, kind: Kind, search: Search, found: Patience) -> bool:
        """Whether no patience would have helped; then all that stand no higher need not look."""
        state, level = self._state, self._state.policy.evictions_max
        if state.policy.exempt_ms:
            return False
        if search.level:
            kind.vain[search.level] = search.conclude()
        if kind in self._hopeful:
            return False
        if found.until_ms is not None and search.level < level:
            search = Search(state, entry, search.rank, self._now_ms, level=level)
            if search.may_gain(None):
                self._hopeful.add(kind)
                return False
        kind.vain[level] = search.conclude()
        return True

    def _set_retry(self, entry: Entry) -> None:
        """Look again when waiting has paid for one more."""
        policy = self._state.policy
        level = count_affordable(entry, self._now_ms, policy)
        if level < policy.evictions_max:
            at_ms = entry.view.waiting_since_ms + price_wait(entry, level, policy)
            self._state.set_timer(at_ms, entry.job_id)

    def _start_behind(self, line: Line) -> bool:
        """Start one that may go where a guarantee keeps the head of its line off."""
        state = self._state
        head = state.jobs[line.places[0][3]]
        closed = self._reserver.find_closed(head)
        if not closed or find_cap(head.view, state.tenants) is not None:
            return False
        shape, pool = head.view.shape, head.view.pool
        if place(shape, pool, state.nodes) is None:
            return False
        for one in line.places[1:]:
            entry = state.jobs[one[3]]
            theirs = self._reserver.find_closed(entry)
            if theirs == closed:
                continue
            found = place(shape, pool, state.nodes, self._reserver.find_allowed(entry))
            if found is not None:
                self._start(entry, found)
                return True
        return False

    def _try_behind(self, line: Line, rank: Rank) -> bool:
        """Let one of the next few make room that its head has not waited long enough for."""
        state, policy, now_ms = self._state, self._state.policy, self._now_ms
        if len(line.places) == 1:
            return False
        head = state.jobs[line.places[0][3]]
        kind = line.kind
        if self._failed.get(kind, -1) >= policy.evictions_max or self._is_covered(kind, rank):
            return False
        level = count_affordable(head, now_ms, policy)
        for _, _, _, job_id in line.places[1:_BEHIND_MAX]:
            if level >= policy.evictions_max:
                return False
            entry = state.jobs[job_id]
            if now_ms - entry.view.waiting_since_ms < price_wait(entry, level, policy):
                continue
            level = count_affordable(entry, now_ms, policy)
            if find_cap(entry.view, state.tenants) is None and self._make_room(
                entry, kind, rank_entry(entry)
            ):
                return True
        return False

    def _start(self, entry: Entry, placement: Placement) -> None:
        state, view = self._state, entry.view
        self._decisions.append(Start(job_id=view.job_id, version=view.version, placement=placement))
        after = dataclasses.replace(
            view,
            version=view.version + 1,
            state=JobState.STARTING,
            reason=Reason.LAUNCHING,
            message="",
            placement=placement,
            claim=None,
            reservation=None,
            started_ms=self._now_ms,
            saved_ms=None,
            remaining_ms=None,
            stop_reason=None,
        )
        state.put_job(after, self._now_ms)

    def _evict(self, entry: Entry, eviction: Eviction) -> None:
        """Ask the victims to go and keep their places for the job."""
        state = self._state
        grace_ms = 0
        for job_id in eviction.victims:
            victim = state.jobs[job_id]
            grace_ms = max(grace_ms, victim.view.grace_ms)
            self._ask_to_go(victim, Reason.PREEMPTING, entry.job_id, None)
        for job_id, home in eviction.moves:
            victim = state.jobs[job_id]
            grace_ms = max(grace_ms, victim.view.grace_ms)
            until_ms = self._now_ms + victim.view.grace_ms + state.policy.claim_extra_ms
            self._ask_to_go(
                victim, Reason.MIGRATING, entry.job_id, Claim(placement=home, until_ms=until_ms)
            )
        until_ms = self._now_ms + grace_ms + state.policy.claim_extra_ms
        self._keep(entry, Claim(placement=eviction.placement, until_ms=until_ms))

    def _ask_to_go(self, victim: Entry, reason: Reason, for_job: str, home: Claim | None) -> None:
        view = victim.view
        saved_ms = max(view.started_ms, view.saved_ms or 0)
        lost_ms = max(0, self._now_ms - saved_ms) + self._state.policy.restart_ms
        self._decisions.append(
            Preempt(
                job_id=view.job_id,
                version=view.version,
                reason=reason,
                for_job=for_job,
                lost_gpu_ms=view.shape.num_gpus * lost_ms,
            )
        )
        after = dataclasses.replace(
            view,
            version=view.version + 1,
            state=JobState.STOPPING,
            reason=reason,
            stop_reason=reason,
        )
        entry = self._state.put_job(after, self._now_ms)
        if home is not None:
            self._keep(entry, home)

    def _keep(self, entry: Entry, claim: Claim | None) -> None:
        view = entry.view
        self._decisions.append(Keep(job_id=view.job_id, version=view.version, claim=claim))
        after = dataclasses.replace(view, version=view.version + 1, claim=claim)
        self._state.put_job(after, self._now_ms)
        self._state.unjudged.pop(view.job_id, None)
        if claim is None and view.is_waiting:
            self._state.list_waiting(self._state.jobs[view.job_id])

    def _explain(self, entry: Entry, line: Line) -> None:
        """Say why the head waits, and that those behind it wait behind others."""
        state = self._state
        cap = find_cap(entry.view, state.tenants)
        line.blocked = cap or self._describe_no_room(entry, line.kind)
        if entry.view.reason != line.blocked[0]:
            self._say(entry, *line.blocked)
        self._tell_those_behind(line)

    def _tell_kinds(self, pool: str) -> None:
        """Tell those whom nothing has woken what is in the way now, if it is something else."""
        for kind in self._state.lines.kinds.get(pool, {}).values():
            head = next((one for one in kind.lines.values() if not one.is_capped), None)
            if head is None:
                continue
            told = kind.told
            self._describe_no_room(self._state.jobs[head.places[0][3]], kind)
            if kind.told != told:
                for line in kind.lines.values():
                    if not line.is_capped:
                        self._explain(self._state.jobs[line.places[0][3]], line)

    def _tell_those_behind(self, line: Line) -> None:
        behind, line.unexplained = line.unexplained, []
        if not line.places:
            return
        head = line.places[0][3]
        for at, job_id in enumerate(behind):
            if self._num_explained >= _EXPLAINED_MAX:
                line.unexplained = behind[at:]
                self._state.untold[line.key] = None
                break
            other = self._state.jobs.get(job_id)
            if other is None or job_id == head or other.line is not line:
                continue  # it is gone, or held, or in another line by now
            if other.view.reason != Reason.HIGHER_PRIORITY_AHEAD:
                message = f"waits in line behind {head}, which waits itself"
                self._say(other, Reason.HIGHER_PRIORITY_AHEAD, message)

    def _tell_more(self) -> None:
        """Go on with the reasons that earlier passes had no time for."""
        state = self._state
        while state.untold and self._num_explained < _EXPLAINED_MAX:
            line = state.lines.by_key.get(next(iter(state.untold)))
            del state.untold[next(iter(state.untold))]
            if line is not None:
                self._tell_those_behind(line)

    def _describe_no_room(self, entry: Entry, kind: Kind) -> tuple[str, str]:
        known = self._no_room.get(kind)
        if known is None:
            known = self._no_room[kind] = describe_no_room(entry.view, self._state)
            kind.told = known[0]
        return known

    def _say(self, entry: Entry, reason: str, message: str) -> None:
        view = entry.view
        self._num_explained += 1
        self._decisions.append(
            Explain(job_id=view.job_id, version=view.version, reason=reason, message=message)
        )
        entry.view = dataclasses.replace(
            view, version=view.version + 1, reason=reason, message=message
        )
