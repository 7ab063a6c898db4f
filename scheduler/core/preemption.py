"""Whom to ask to save and go, so that a job that outranks them can start. Decides, changes nothing.

Room is made by moving small jobs to free places elsewhere, which costs them a restart, and by
evicting jobs that are outranked, which costs them their turn. Victims are chosen by what is lost:
GPUs times (time since the last checkpoint + restart), more for each eviction they have suffered.
The set is trimmed from behind until nothing in it is superfluous. No victim goes unless all do,
and only when the whole gang then fits.

Source:
    Greedy choice and reverse trim as in Kueue's preemption; the price in waiting time is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from scheduler.core.cluster import NodeShare, Placement
from scheduler.core.lines import Entry, Rank, Vain
from scheduler.core.nodes import Group, Node
from scheduler.core.octaves import OCTAVE, scale
from scheduler.core.placement import Allowed, count_per_node, find_homes, split
from scheduler.core.policy import Policy
from scheduler.core.ranks import limit_priority, would_be_borrowed
from scheduler.core.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """Room for one job.

    Attributes:
        placement: where the job will go.
        victims: jobs that have to wait again.
        moves: jobs that get another place, with that place.
        cost: what is lost, weighted; only good for comparing.
    """

    placement: Placement
    victims: tuple[str, ...]
    moves: tuple[tuple[str, Placement], ...]
    cost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """It would find victims if it waited until `until_ms`; None: waiting buys nothing."""

    until_ms: int | None


_NEITHER = (False, False)
_GAP_BITS = 16  # so that halving loses nothing that matters
_GAP_MAX = 20 * OCTAVE


def price_wait(entry: Entry, evictions: int, policy: Policy) -> int:
    """Return how long a job waits before it may evict one that was evicted so often, in ms."""
    price_ms = entry.estimate.wall_ms * policy.patience_ppm // 1_000_000
    return int(max(price_ms, policy.patience_min_ms) * policy.patience_base**evictions)


def count_affordable(entry: Entry, now_ms: int, policy: Policy) -> int:
    """Return below how many evictions of a victim the job has waited long enough."""
    waited_ms = now_ms - entry.view.waiting_since_ms
    for evictions in range(policy.evictions_max):
        if waited_ms < price_wait(entry, evictions, policy):
            return evictions
    return policy.evictions_max


class Search:
    """One search for room, for one job.

    Args:
        allowed: nodes that are not guaranteed to others; None: all.
        level: it looks at victims that were evicted less often than this.
    """

    def __init__(
        self,
        state: State,
        entry: Entry,
        rank: Rank,
        now_ms: int,
        *,
        level: int,
        allowed: Allowed | None = None,
    ) -> None:
        self.rank, self.level = rank, level
        self._allowed = allowed
        self._state, self._entry, self._now_ms = state, entry, now_ms
        self._shape = entry.view.shape
        self._retry_ms: int | None = None
        self._judged: dict[str, tuple[bool, bool]] = {}
        self._too_dear: set[int] = set()  # evictions of victims that it has not waited for yet
        self._margin = state.policy.margin
        self._num_free = state.nodes.count_free(entry.view.pool)
        self._seen: set[str] = set()
        self._able: set[str] = set()
        self._lacks: dict[str, int] = {}

    def find(self) -> Eviction | Patience:
        """Return the cheapest room, or when there may be some."""
        if self.level == 0 and not self._may_find_a_class_below():
            return Patience(until_ms=self._price_until(0))
        best: Eviction | None = None
        groups = self._state.nodes.find_groups(self._entry.view.pool, self._shape)
        for group in find_homes(self._shape, groups):
            per_node = count_per_node(self._shape, group.capacity)
            whole, rest = split(self._shape, per_node)
            if whole == 0:
                found = self._find_on_one(group, rest)
            else:
                found = self._find_on_many(group, per_node, whole, rest)
            if found is not None and (best is None or found.cost < best.cost):
                best = found
        if best is None and self._too_dear:
            self._wait_until(self._price_until(min(self._too_dear)))
        return best or Patience(until_ms=self._retry_ms)

    def conclude(self) -> Vain:
        """Return what is known after a search at the highest level that found nothing."""
        state = self._state
        return Vain(
            entry=self._entry,
            rank=self.rank,
            order_version=state.order_version,
            version=state.nodes.version,
            node_ids=frozenset(self._seen),
            able=frozenset(self._able),
            lacks=self._lacks,
        )

    def may_gain(self, vain: Vain | None) -> bool:
        """Whether a search could find something, or more than `vain` did; a look costs little."""
        state, pool = self._state, self._entry.view.pool
        has_changed, needed = vain is None, 1 << 30
        groups = state.nodes.find_groups(pool, self._shape)
        for group in find_homes(self._shape, groups):
            per_node = count_per_node(self._shape, group.capacity)
            whole, rest = split(self._shape, per_node)
            needed = min(needed, whole + (rest > 0))
            nodes = self._find_worth_a_look(group)
            if vain is not None:
                nodes = self._recall(nodes, vain)
            for node in nodes:
                if self._may_yield(node, per_node if whole else rest):
                    has_changed = True
                    if vain is None and len(self._able) >= needed:
                        return True
                else:
                    has_changed |= node.view.node_id in self._lacks
        if not has_changed and (self._lacks or self._able) and vain is not None:
            # Somebody could move, if there is a home that was not there before.
            has_changed = any(
                state.nodes.by_id[node_id].version > vain.version
                for group in state.nodes.groups.get(pool, {}).values()
                for node_id in group.iter_fullest(1)
            )
        return has_changed and len(self._able) + self._count_movable() >= needed

    def _recall(self, nodes: list[Node], vain: Vain) -> list[Node]:
        """Take over what is known, and return the nodes of which it is not."""
        changed = [node for node in nodes if node.version > vain.version]
        stale = {node.view.node_id for node in changed}
        known = (self._seen & vain.node_ids) - stale
        self._able |= vain.able & known
        for node_id in vain.lacks.keys() & known:
            self._lacks[node_id] = vain.lacks[node_id]
        if len(known) + len(changed) == len(self._seen):
            return changed
        return [node for node in nodes if node.view.node_id not in known]

    def _count_movable(self) -> int:
        """On how many nodes more there were enough if as many could move as there are homes."""
        homes, count = self._num_free, 0
        for lacking in sorted(self._lacks.values()):
            homes -= lacking
            if homes < 0:
                break
            count += 1
        return count

    def _candidates(self, group: Group, num_workers: int) -> list[Node]:
        """Nodes worth a look that have enough to give."""
        return [
            node for node in self._find_worth_a_look(group) if self._may_yield(node, num_workers)
        ]

    def _find_worth_a_look(self, group: Group) -> list[Node]:
        """Return where the worst-ranked run, and the emptiest nodes."""
        nodes, allowed = self._state.nodes, self._allowed
        if group.looked_changes != nodes.num_changes:
            group.looked_changes = nodes.num_changes
            group.looked = self._look_anew(group)
        self._seen.update(node.view.node_id for node in group.looked)
        if allowed is None:
            return group.looked
        return [node for node in group.looked if allowed(node.view.node_id)]

    def _look_anew(self, group: Group) -> list[Node]:
        state, policy, pool = self._state, self._state.policy, self._entry.view.pool
        seen: dict[str, None] = {}
        if group.num_open > policy.nodes_max:
            for worst in state.running.get(pool, ())[: policy.victims_max]:
                placement = state.jobs[worst[3]].view.placement
                for share in () if placement is None else placement.shares:
                    seen[share.node_id] = None
        for node_id in islice(group.iter_emptiest(), policy.nodes_max):
            seen[node_id] = None
        found = []
        for node_id in seen:
            node = state.nodes.by_id.get(node_id)
            if node is None or node.num_claims or node.kind != group.kind:
                continue
            if node.view.is_schedulable and node.view.pool == pool:
                found.append(node)
        return found

    def _may_yield(self, node: Node, num_workers: int) -> bool:
        """Whether a node has the GPUs, of those who could be asked to go or to move."""
        wanted = num_workers * self._shape.per_worker.num_gpus
        going, moving = self._count_yielding(node)
        homes = self._num_free - node.free_gpus
        is_enough = node.free_gpus + going + min(moving, homes) >= wanted
        if is_enough:
            self._able.add(node.view.node_id)
        elif node.free_gpus + going + moving >= wanted:
            self._lacks[node.view.node_id] = wanted - going - node.free_gpus
        return is_enough

    def _count_yielding(self, node: Node) -> tuple[int, int]:
        """GPUs of those who could be asked to go, and of the others who could move; at most."""
        jobs, now_ms, mine = self._state.jobs, self._now_ms, self._entry.size
        floor, priority = self.rank[2] + self._margin, self.rank[1]
        level, retry = self.level, self._too_dear
        going = moving = 0
        is_plain = not self._state.tenants.has_guarantees
        for job_id, num_gpus in node.residents.items():
            entry = jobs[job_id]
            if entry.is_fixed:
                continue
            if entry.stale_ms <= now_ms:
                self._state.look_at(entry, now_ms)
            if is_plain and entry.place[0] == priority:
                is_outranked, is_above = entry.key + entry.price > floor, False
            else:
                is_outranked = self._is_outranked(entry)
                is_above = is_outranked and self._is_of_a_class_above(entry)
            if is_outranked:
                if is_above or entry.view.evictions < level:
                    going += num_gpus
                    continue
                retry.add(entry.view.evictions)
            if entry.size < mine:
                moving += num_gpus
        return going, moving

    def _find_on_one(self, group: Group, num_workers: int) -> Eviction | None:
        best: tuple[int, str, list[str], list[tuple[str, Placement]]] | None = None
        for node in self._candidates(group, num_workers):
            found = self._empty(node, num_workers, self._close({node.view.node_id}))
            if found is not None and self._are_outranked_together(found[1]):
                cost, victims, moves = found
                key = (cost, node.view.node_id)
                if best is None or key < best[:2]:
                    best = (cost, node.view.node_id, victims, moves)
        if best is None:
            return None
        cost, node_id, victims, moves = best
        return self._assemble(cost, [(node_id, num_workers)], victims, moves)

    def _find_on_many(self, group: Group, per_node: int, whole: int, rest: int) -> Eviction | None:
        priced: list[tuple[int, str]] = []
        for node in self._candidates(group, per_node):
            cost = self._price_whole(node)
            if cost is not None:
                priced.append((cost, node.view.node_id))
        needed = whole + (rest > 0)
        if len(priced) < needed:
            return None
        priced.sort()
        elsewhere: dict[str, int] = {}
        victims: list[str] = []
        moves: list[tuple[str, Placement]] = []
        cost = 0
        wants: list[tuple[str, int]] = []
        for _, node_id in priced:
            if len(wants) == needed:
                break
            if elsewhere.get(node_id):
                continue  # somebody is to move there
            wanted = per_node if len(wants) < whole else rest
            gone = {*victims, *(moved for moved, _ in moves)}
            closed = {**elsewhere, **self._close({node_id})}
            found = self._empty(self._state.nodes.by_id[node_id], wanted, closed, gone)
            if found is None:
                continue
            elsewhere = closed
            cost += found[0]
            victims += found[1]
            moves += found[2]
            wants.append((node_id, wanted))
        if len(wants) < needed or not self._are_outranked_together(victims):
            return None
        return self._assemble(cost, wants, victims, moves)

    def _price_whole(self, node: Node) -> int | None:
        cost = 0
        for job_id in node.residents:
            may_evict, may_move = self._judge(job_id)
            if not (may_evict or may_move):
                return None
            cost += self._price(job_id)
        return cost

    def _empty(
        self,
        node: Node,
        num_workers: int,
        elsewhere: dict[str, int],
        gone: set[str] | None = None,
    ) -> tuple[int, list[str], list[tuple[str, Placement]]] | None:
        """Return what it costs to make room for `num_workers` on `node`, and who goes where."""
        per_worker = self._shape.per_worker
        gone = gone or set()
        free = [node.free_gpus, *_free(node)]
        wanted = per_worker.times(num_workers)
        need = [wanted.num_gpus, wanted.cpu_milli, wanted.memory_mib]
        for job_id in gone & node.residents.keys():
            _add(free, self._held(job_id, node))
        candidates = []
        total = list(free)
        for job_id in node.residents:
            if job_id in gone:
                continue
            may_evict, may_move = self._judge(job_id)
            if may_evict or may_move:
                held = self._held(job_id, node)
                _add(total, held)
                candidates.append((job_id, may_evict, may_move, held))
        if not _covers(total, need):
            return None
        if _covers(free, need):
            return 0, [], []
        chosen = self._choose(candidates, free, need, elsewhere, sorted(gone))
        return self._trim(chosen, free, need) if _covers(free, need) else None

    def _choose(
        self,
        candidates: list[tuple[str, bool, bool, list[int]]],
        free: list[int],
        need: list[int],
        elsewhere: dict[str, int],
        going: list[str],
    ) -> list[tuple[str, list[int], Placement | None]]:
        """Let the worst ranked move where there is a place for them, then go, until it is enough.

        Args:
            free: is raised by what they leave.
            going: those who go from other nodes.
        """
        jobs = self._state.jobs
        candidates.sort(key=lambda one: (-jobs[one[0]].key, one[0]))
        chosen: list[tuple[str, list[int], Placement | None]] = []
        for job_id, _, may_move, held in candidates:
            if _covers(free, need):
                return chosen
            place = self._find_home(job_id, elsewhere) if may_move else None
            if place is not None:
                _add(free, held)
                chosen.append((job_id, held, place))
        moving = {one[0] for one in chosen}
        for job_id, may_evict, _, held in candidates:
            if _covers(free, need):
                break
            if may_evict and job_id not in moving and self._may_go_too(job_id, going):
                _add(free, held)
                going.append(job_id)
                chosen.append((job_id, held, None))
        return chosen

    def _trim(
        self,
        chosen: list[tuple[str, list[int], Placement | None]],
        free: list[int],
        need: list[int],
    ) -> tuple[int, list[str], list[tuple[str, Placement]]]:
        """Spare whoever need not go, from the last chosen on."""
        kept = []
        for one in reversed(chosen):
            left = [have - less for have, less in zip(free, one[1], strict=True)]
            if _covers(left, need):
                free = left
            else:
                kept.append(one)
        kept.reverse()
        cost = sum(self._price(one[0]) for one in kept)
        victims = [one[0] for one in kept if one[2] is None]
        moves = [(one[0], one[2]) for one in kept if one[2] is not None]
        return cost, victims, moves

    def _judge(self, job_id: str) -> tuple[bool, bool]:
        """Whether a job may be evicted, and whether it may be moved."""
        known = self._judged.get(job_id)
        if known is None:
            known = self._judged[job_id] = self._judge_anew(self._state.jobs[job_id])
        return known

    def _judge_anew(self, victim: Entry) -> tuple[bool, bool]:
        state, view, policy = self._state, victim.view, self._state.policy
        evictions = view.evictions
        if victim.is_fixed:
            return _NEITHER
        if policy.exempt_ms and self._now_ms < view.started_ms + policy.exempt_ms:
            self._wait_until(view.started_ms + policy.exempt_ms)
            return _NEITHER
        if victim.stale_ms <= self._now_ms:
            state.look_at(victim, self._now_ms)
        may_evict = self._is_outranked(victim)
        if may_evict and evictions >= self.level and not self._is_of_a_class_above(victim):
            self._wait_until(self._price_until(evictions))
            may_evict = False
        may_move = (
            victim.size < self._entry.size
            and view.claim is None
            and view.placement is not None
            and len(view.placement.shares) == 1
            and not self._fills(view.placement.shares[0])
        )
        return may_evict, may_move

    def _may_find_a_class_below(self) -> bool:
        """Whether somebody may run here whom quota or priority, not the key, puts below."""
        running = self._state.running.get(self._entry.view.pool)
        if not running:
            return False
        return self._state.tenants.has_guarantees or running[0][0] < -self.rank[1]

    def _is_of_a_class_above(self, victim: Entry) -> bool:
        """Whether quota or priority decide: then nobody has to wait for it to pay."""
        rank, entry = self.rank, self._entry
        if victim.tenant is not entry.tenant and self._state.tenants.has_guarantees:
            is_borrowed = would_be_borrowed(victim.tenant, victim.num_gpus)
            if rank[0] != is_borrowed:
                return rank[0] < is_borrowed
        return rank[1] < limit_priority(victim.place, victim.tenant)

    def _fills(self, share: NodeShare) -> bool:
        """Whether a job has a node to itself: to move it would empty one node and fill another."""
        node = self._state.nodes.by_id.get(share.node_id)
        return node is None or len(share.gpu_indices) == len(node.view.gpu_indices)

    def _are_outranked_together(self, victims: list[str]) -> bool:
        """Whether each is outranked when all go: together they may cut into what is guaranteed.

        Else the first of them to come back would stand above the job, and take its places.
        """
        tenants, jobs = self._state.tenants, self._state.jobs
        if not tenants.has_guarantees:
            return True
        sums: dict[str, int] = {}
        for job_id in victims:
            view = jobs[job_id].view
            sums[view.project] = sums.get(view.project, 0) + view.shape.num_gpus
        return all(
            self._is_outranked(jobs[job_id], sums[jobs[job_id].view.project]) for job_id in victims
        )

    def _may_go_too(self, job_id: str, going: list[str]) -> bool:
        if not self._state.tenants.has_guarantees:
            return True
        jobs = self._state.jobs
        victim = jobs[job_id]
        views = [victim.view, *(jobs[one].view for one in going)]
        together = sum(view.shape.num_gpus for view in views if view.project == victim.view.project)
        return self._is_outranked(victim, together)

    def _is_outranked(self, victim: Entry, num_going: int | None = None) -> bool:
        """What `outranks` says of the job and `victim`, without a rank for each victim."""
        rank, entry = self.rank, self._entry
        if victim.tenant is not entry.tenant and self._state.tenants.has_guarantees:
            num_gpus = victim.num_gpus if num_going is None else num_going
            is_borrowed = would_be_borrowed(victim.tenant, num_gpus)
            if rank[0] != is_borrowed:
                return rank[0] < is_borrowed
        priority = limit_priority(victim.place, victim.tenant)
        if rank[1] != priority:
            return rank[1] < priority
        return rank[2] + self._margin < victim.key + victim.price

    def _price(self, job_id: str) -> int:
        """What is lost if it goes: thousandths of a GPU times ms, more for each earlier eviction.

        The further below the job it stands the less that counts: half for every two octaves.
        """
        victim = self._state.jobs[job_id]
        view = victim.view
        saved_ms = max(view.started_ms, view.saved_ms or 0)
        lost_ms = max(0, self._now_ms - saved_ms) + self._state.policy.restart_ms
        lost = victim.size * lost_ms * (1 + view.evictions)
        gap = victim.key + victim.price - self.rank[2]
        return scale(lost << _GAP_BITS, -max(0, min(gap, _GAP_MAX)) // 2)

    def _price_until(self, evictions: int) -> int:
        price_ms = price_wait(self._entry, evictions, self._state.policy)
        return self._entry.view.waiting_since_ms + price_ms

    def _wait_until(self, at_ms: int) -> None:
        if self._retry_ms is None or at_ms < self._retry_ms:
            self._retry_ms = at_ms

    def _held(self, job_id: str, node: Node) -> list[int]:
        view = self._state.jobs[job_id].view
        per_worker = view.shape.per_worker
        count = _workers_on(view.placement, node.view.node_id)
        return [
            node.residents[job_id],
            per_worker.cpu_milli * count,
            per_worker.memory_mib * count,
        ]

    def _close(self, emptied: set[str]) -> dict[str, int]:
        """GPUs that moves have taken so far, by node; emptied nodes are closed to them."""
        return dict.fromkeys(emptied, 1 << 30)

    def _find_home(self, job_id: str, elsewhere: dict[str, int]) -> Placement | None:
        """Return a free place on another node, and note that it is taken."""
        view = self._state.jobs[job_id].view
        per_worker, count = view.shape.per_worker, view.shape.num_workers
        num_gpus = per_worker.num_gpus * count
        if not num_gpus:
            return None
        for group in self._state.nodes.find_groups(view.pool, view.shape):
            for node_id in group.iter_fullest(num_gpus):
                taken = elsewhere.get(node_id, 0)
                if taken and (per_worker.cpu_milli or per_worker.memory_mib):
                    continue  # what the first one takes beside its GPUs is not counted here
                node = self._state.nodes.by_id[node_id]
                if node.free_gpus - taken < num_gpus or node.count_room(per_worker) < count:
                    continue
                elsewhere[node_id] = taken + num_gpus
                free = node.pick_gpus(taken + num_gpus)
                share = NodeShare(
                    node_id=node_id, num_workers=count, gpu_indices=free[taken : taken + num_gpus]
                )
                return Placement(shares=(share,))
        return None

    def _assemble(
        self,
        cost: int,
        wants: list[tuple[str, int]],
        victims: list[str],
        moves: list[tuple[str, Placement]],
    ) -> Eviction:
        """Name the GPUs: those that are free, then those that come free."""
        going = [*victims, *(moved for moved, _ in moves)]
        per_worker = self._shape.per_worker
        shares = []
        for node_id, num_workers in wants:
            node = self._state.nodes.by_id[node_id]
            count = num_workers * per_worker.num_gpus
            indices = list(node.pick_gpus(count))
            for job_id in going:
                placement = self._state.jobs[job_id].view.placement
                for share in () if placement is None else placement.shares:
                    if share.node_id == node_id:
                        indices += share.gpu_indices
            shares.append(
                NodeShare(
                    node_id=node_id, num_workers=num_workers, gpu_indices=tuple(indices[:count])
                )
            )
        return Eviction(
            placement=Placement(shares=tuple(shares)),
            victims=tuple(victims),
            moves=tuple(moves),
            cost=cost,
        )


def _free(node: Node) -> tuple[int, int]:
    """CPUs and memory that nobody holds or keeps."""
    return (
        node.free_cpu_milli + min(0, node.leaving[0] - node.claimed[0]),
        node.free_memory_mib + min(0, node.leaving[1] - node.claimed[1]),
    )


def _workers_on(placement: Placement | None, node_id: str) -> int:
    shares = () if placement is None else placement.shares
    return sum(share.num_workers for share in shares if share.node_id == node_id)


def _add(free: list[int], held: list[int]) -> None:
    for at in range(3):
        free[at] += held[at]


def _covers(free: list[int], need: list[int]) -> bool:
    return free[0] >= need[0] and free[1] >= need[1] and free[2] >= need[2]
