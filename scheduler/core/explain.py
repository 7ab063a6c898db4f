"""Why a job waits, who goes first, and when it will start or end; from the state alone. Pure.

Nothing is invented: where an instant cannot be told, the answer says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.core.ahead import Ahead, Lineup
from scheduler.core.calibration import Interval
from scheduler.core.cluster import JobView
from scheduler.core.durations import ENOUGH
from scheduler.core.eligibility import find_cap, find_hold
from scheduler.core.forecast import Unknown
from scheduler.core.forecaster import Forecaster
from scheduler.core.options import Freedom, Option, find_options
from scheduler.core.placement import place
from scheduler.core.reasons import Reason
from scheduler.core.state import State
from scheduler.core.states import JobState
from scheduler.core.waiting import describe_no_room

_NEVER = frozenset(
    {
        Reason.HELD_BY_USER,
        Reason.DEPENDENCY_NOT_MET,
        Reason.QUEUE_CLOSED,
        Reason.BUDGET_SPENT,
        Reason.NO_NODES,
        Reason.GPU_UNAVAILABLE,
    }
)
"""What no job's end would change."""
_QUANTILES_PPM = (100_000, 500_000, 900_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a job does not run yet.

    Attributes:
        numbers: what stands against what, by name; the unit comes last in each.
        ahead: who goes first.
        start: when it starts, or why that is not told.
        latest_start_ms: the guarantee that it was given, None without one.
        options: what would start sooner.
        are_options_complete: whether there was time to try all.
    """

    job_id: str
    reason: str
    message: str
    numbers: dict[str, int] = field(default_factory=dict)
    ahead: Ahead = field(default_factory=Ahead)
    start: Interval | Unknown
    latest_start_ms: int | None = None
    options: tuple[Option, ...] = ()
    are_options_complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """When a job that holds places gives them back.

    Attributes:
        basis: what that is known from: `progress`, `history`, `durations`, `grace`.
        end: when; with one point only where nothing is known of its error.
        latest_end_ms: when its limit ends it at the latest, None without a limit.
    """

    job_id: str
    basis: str
    end: Interval | Unknown
    latest_end_ms: int | None = None


def explain_waiting(
    state: State,
    job: JobView,
    forecaster: Forecaster,
    now_ms: int,
    *,
    freedom: Freedom,
    is_over: Callable[[], bool] = lambda: False,
) -> Waiting:
    """Return why `job` waits; it need not be submitted. The lines of `state` are full.

    Args:
        freedom: what may be changed about it.
        is_over: whether whoever asks has waited long enough.
    """
    lineup = Lineup(state, job, now_ms)
    hold = find_hold(job, state.queues, now_ms)
    if hold is not None and hold[0] in _NEVER:
        reason, message = hold
        return Waiting(
            job_id=job.job_id,
            reason=reason,
            message=message,
            numbers=_count_needs(job),
            start=Unknown(why=_why_never(reason)),
        )
    reason, message, numbers = _find_blocker(state, job, now_ms, hold, lineup)
    start: Interval | Unknown = Unknown(why=_why_never(reason))
    point_ms: int | None = None
    if reason not in _NEVER:
        start, point_ms = _forecast(state, job, forecaster, now_ms, is_over)

    def find_point(changed: JobView, until_ms: int | None) -> int | None:
        if is_over():
            return None
        found = forecaster.find_point_before(state, changed, now_ms, until_ms, is_over)
        return None if isinstance(found, Unknown) else found

    options: tuple[Option, ...] = ()
    if hold is None and reason != Reason.BUDGET_SPENT:
        found = find_options(
            state, job, now_ms, point_ms=point_ms, freedom=freedom, find_point=find_point
        )
        options = tuple(found)
    return Waiting(
        job_id=job.job_id,
        reason=reason,
        message=message,
        numbers=numbers,
        ahead=lineup.describe(),
        start=start,
        latest_start_ms=None if job.reservation is None else job.reservation.start_ms,
        options=options,
        are_options_complete=not is_over(),
    )


def explain_running(
    state: State, job: JobView, now_ms: int, *, latest_end_ms: int | None = None
) -> Running:
    """Return when a job that holds places should end."""
    end: Interval | Unknown
    ran_ms = max(0, now_ms - job.started_ms)
    had_ms = job.served_ms + ran_ms
    if job.stop_reason is not None:
        basis, end = "grace", _at(now_ms + job.grace_ms)
        latest_end_ms = now_ms + job.grace_ms
    elif job.remaining_ms is not None:
        basis, end = "progress", _at(max(now_ms, job.measured_ms + job.remaining_ms))
    elif job.state is JobState.FINALIZING:
        basis, end = "", Unknown(why="its code has ended, outputs are being committed")
    elif job.history_ms is not None and had_ms < job.history_ms:
        basis, end = "history", _at(now_ms + job.history_ms - had_ms)
    elif state.durations.num_ended >= ENOUGH:
        basis = "durations"
        p10_ms, p50_ms, p90_ms = (
            now_ms + state.durations.find_remaining(job.project, job.limit_ms, had_ms, part)
            for part in _QUANTILES_PPM
        )
        end = Interval(p10_ms=p10_ms, p50_ms=p50_ms, p90_ms=p90_ms)
    else:
        why = "it reports no progress, and too few jobs have ended to compare it with"
        basis, end = "", Unknown(why=why)
    if latest_end_ms is not None and isinstance(end, Interval):
        end = Interval(
            p10_ms=min(end.p10_ms, latest_end_ms),
            p50_ms=min(end.p50_ms, latest_end_ms),
            p90_ms=min(end.p90_ms, latest_end_ms),
        )
    return Running(job_id=job.job_id, basis=basis, end=end, latest_end_ms=latest_end_ms)


def _at(instant_ms: int) -> Interval:
    return Interval(p10_ms=instant_ms, p50_ms=instant_ms, p90_ms=instant_ms)


def _forecast(
    state: State,
    job: JobView,
    forecaster: Forecaster,
    now_ms: int,
    is_over: Callable[[], bool],
) -> tuple[Interval | Unknown, int | None]:
    """Return what is said about the start, and the point around which it is said."""
    if state.durations.num_ended < ENOUGH:
        # Who may start at once needs no experience.
        at_once = forecaster.find_point_before(state, job, now_ms, now_ms, is_over)
        if at_once != now_ms:
            why = f"fewer than {ENOUGH} jobs have ended here: nobody knows how long jobs take"
            return Unknown(why=why), None
        return _at(now_ms), now_ms
    found = forecaster.find_point_before(state, job, now_ms, None, is_over)
    if isinstance(found, Unknown):
        return found, None
    return forecaster.state_interval(job.job_id, found, now_ms), found


def _find_blocker(
    state: State, job: JobView, now_ms: int, hold: tuple[str, str] | None, lineup: Lineup
) -> tuple[str, str, dict[str, int]]:
    """Return what stands in the way most, in words and in numbers."""
    numbers = _count_needs(job)
    if hold is not None:
        numbers["begins_in_seconds"] = -(-(job.not_before_ms - now_ms) // 1000)
        return *hold, numbers
    if job.claim is not None:
        numbers["kept_for_seconds"] = max(0, job.claim.until_ms - now_ms) // 1000
        message = "its places are kept for it; who holds them saves and leaves"
        return Reason.PREEMPTION_PENDING, message, numbers
    cap = find_cap(job, state.tenants)
    if cap is not None:
        numbers |= _count_quota(state, job)
        return *cap, numbers
    numbers |= _count_room(state, job)
    if place(job.shape, job.pool, state.nodes) is not None:
        closed, gap_ms = _find_kept(state, job, lineup, now_ms)
        if place(job.shape, job.pool, state.nodes, lambda node_id: node_id not in closed):
            return Reason.WAITING_FOR_PLACEMENT, "there is room: it is placed next", numbers
        numbers["gap_seconds"] = gap_ms // 1000
        message = (
            "there is room, but it is kept for a job with a guaranteed start: a job whose "
            f"limits.wall_seconds are at most {gap_ms // 1000} may use it meanwhile"
        )
        return Reason.BACKFILL_TOO_LONG, message, numbers
    reason, message = describe_no_room(job, state)
    num_ahead = lineup.count()
    if num_ahead and reason not in _NEVER:
        return Reason.HIGHER_PRIORITY_AHEAD, f"{_tell_ahead(num_ahead)}; it {message}", numbers
    if reason in {Reason.FRAGMENTED, Reason.INSUFFICIENT_RESOURCES}:
        message = f"it {message}"
    return reason, message, numbers


def _find_kept(state: State, job: JobView, lineup: Lineup, now_ms: int) -> tuple[set[str], int]:
    """Return the nodes that guarantees keep from the job, and how long it may use them."""
    if job.is_preemptible and job.evictions < state.policy.evictions_max:
        return set(), 0  # it may be asked to go when the time comes
    limit_ms = None if job.limit_ms is None else job.limit_ms + job.grace_ms
    closed: set[str] = set()
    gap_ms = 0
    for job_id, reservation in state.reservations.items():
        holder = state.jobs[job_id]
        if job_id == job.job_id or holder.view.pool != job.pool or not lineup.has(holder):
            continue
        free_ms = max(0, reservation.start_ms - now_ms)
        if limit_ms is None or limit_ms > free_ms:
            closed.update(reservation.node_ids)
            gap_ms = max(gap_ms, free_ms - job.grace_ms)
    return closed, max(0, gap_ms)


def _tell_ahead(num_ahead: int) -> str:
    return "1 job goes first" if num_ahead == 1 else f"{num_ahead} jobs go first"


def _count_needs(job: JobView) -> dict[str, int]:
    return {"needed_workers": job.shape.num_workers, "needed_gpus": job.shape.num_gpus}


def _count_room(state: State, job: JobView) -> dict[str, int]:
    nodes = [
        node
        for node in state.nodes.by_id.values()
        if node.view.pool == job.pool and node.view.is_schedulable
    ]
    rooms = [node.count_room(job.shape.per_worker) for node in nodes]
    return {
        "free_workers": sum(rooms),
        "free_workers_on_one_node": max(rooms, default=0),
        "free_gpus": sum(node.free_gpus for node in nodes),
        "pool_gpus": sum(node.view.capacity.num_gpus for node in nodes),
    }


def _count_quota(state: State, job: JobView) -> dict[str, int]:
    """Return what the tightest quota of the job's project and user allows and what is used."""
    found: dict[str, int] = {}
    for user in dict.fromkeys(("", job.user)):
        tenant = state.tenants.get(job.project, user)
        quota = tenant.quota
        if quota.budget_gpu_ms is not None and quota.spent_gpu_ms >= quota.budget_gpu_ms:
            return {
                "budget_gpu_seconds": quota.budget_gpu_ms // 1000,
                "spent_gpu_seconds": quota.spent_gpu_ms // 1000,
            }
        limit = quota.limit_gpus
        if not quota.may_borrow:
            limit = min(quota.guaranteed_gpus, quota.guaranteed_gpus if limit is None else limit)
        used = tenant.num_gpus + tenant.num_kept
        if limit is not None and used + job.shape.num_gpus > limit and not found:
            found = {"limit_gpus": limit, "used_gpus": used}
    return found


def _why_never(reason: str) -> str:
    told: dict[str, str] = {
        Reason.HELD_BY_USER: "it waits to be released",
        Reason.DEPENDENCY_NOT_MET: "it waits for other jobs to succeed",
        Reason.QUEUE_CLOSED: "its queue is closed",
        Reason.BUDGET_SPENT: "a budget is spent",
        Reason.NO_NODES: "no machine of its pool takes work",
        Reason.GPU_UNAVAILABLE: "no machine of its pool could hold it",
    }
    return told.get(reason, "nothing that is known of would let it start")
