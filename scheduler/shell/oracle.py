"""Answers questions about jobs that the scheduler sees, from a view of its own of the same rows.

It decides nothing and writes nothing, so it works in any process beside any scheduler. The view is
kept up when somebody asks; the first question after a start reads everything.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.attempt import Attempt
from models.database import Database
from models.job import Job
from models.project import Project
from scheduler.core.calibration import Calibration
from scheduler.core.cluster import JobView, Shape
from scheduler.core.decisions import Start
from scheduler.core.deltas import Delta, JobSeen, Observed
from scheduler.core.explain import Running, Waiting, explain_running, explain_waiting
from scheduler.core.following import follow
from scheduler.core.forecast import Budget
from scheduler.core.forecaster import Forecaster
from scheduler.core.options import Freedom
from scheduler.core.reasons import Reason
from scheduler.core.resources import gib_to_mib, resolve_request
from scheduler.core.spec import JobSpec, read_spec
from scheduler.core.state import State
from scheduler.core.states import TERMINAL_STATES, JobState
from scheduler.shell.history import History
from scheduler.shell.job_rows import floor_ms
from scheduler.shell.observer import Observer
from scheduler.shell.snapshot import Sight, hold_still, list_gpu_pools

_FRESH = timedelta(seconds=1)
_WHOLE_EVERY = timedelta(minutes=10)
_ENDED_MAX = 400  # of each terminal state, the last ones
_DRAFT_ID = "job_draft"

# What an answer may cost. With so many jobs ahead making the copy takes 50 ms; then it runs forward
# until the time is over. The rest of the 300 ms that an answer has is for everything else.
_AHEAD_MAX = 600
_BUDGET = Budget(ends_max=2_000, passes_max=6_000)
_PATIENCE_S = 0.2


class Oracle:
    """Says why jobs wait and when they start or end; safe to use from any thread.

    Args:
        patience_s: how long it looks for an instant and for options, at most.
    """

    def __init__(
        self, database: Database, sight: Sight, *, patience_s: float = _PATIENCE_S
    ) -> None:
        self._database, self._patience_s = database, patience_s
        self._lock = threading.Lock()
        self._observer = Observer(sight, whole_every=_WHOLE_EVERY)
        self._state = State(explains=False)
        self._forecaster = Forecaster(budget=_BUDGET, ahead_max=_AHEAD_MAX)
        self._looked_at: datetime | None = None
        self._gpu_pools: frozenset[str] = frozenset()

    @property
    def calibration(self) -> Calibration:
        """How well what was said has come true."""
        return self._forecaster.calibration

    def explain(self, job_id: str, *, version: int, now: datetime) -> Waiting | Running | None:
        """Return what is known of a job that waits or holds places, None for any other.

        Args:
            version: of its row, as the caller has read it; an older view is brought up to date.
        """
        with self._lock:
            entry = self._state.jobs.get(job_id)
            is_known = entry is not None and entry.view.version >= version
            self._look(now, is_urgent=not is_known)
            entry = self._state.jobs.get(job_id)
            if entry is None:
                return None
            row = self._read_row(job_id)
            if row is None:
                return None
            spec, deadline_ms = row
            now_ms = floor_ms(now)
            if not entry.view.is_waiting:
                return explain_running(self._state, entry.view, now_ms, latest_end_ms=deadline_ms)
            return self._explain_waiting(entry.view, spec, now_ms)

    def simulate(
        self,
        spec: JobSpec,
        *,
        project_id: str,
        project: str,
        user: str,
        waits_for: tuple[str, ...],
        now: datetime,
    ) -> Waiting:
        """Return the same for a job that would be submitted now; `spec` has its name."""
        with self._lock:
            self._look(now, is_urgent=False)
            with self._database.read() as session:
                key = (project_id, spec.name or "", spec.recipe, user or None)
                history_ms = History(as_of=now).look_up(session, [key])[key]
            view = self._draft(spec, project, user, waits_for, history_ms, now)
            return self._explain_waiting(view, spec, floor_ms(now))

    def _explain_waiting(self, view: JobView, spec: JobSpec, now_ms: int) -> Waiting:
        tenants = self._state.tenants
        quotas = [tenants.get(view.project, user).quota for user in {"", view.user}]
        freedom = Freedom(
            worker_counts=_list_worker_counts(spec),
            priority_max=min(quota.priority_max for quota in quotas),
        )
        until_s = time.monotonic() + self._patience_s
        return explain_waiting(
            self._state,
            view,
            self._forecaster,
            now_ms,
            freedom=freedom,
            is_over=lambda: time.monotonic() > until_s,
        )

    def _look(self, now: datetime, *, is_urgent: bool) -> None:
        last = self._looked_at
        if not is_urgent and last is not None and last <= now < last + _FRESH:
            return
        state = self._state
        try:
            with self._database.read() as session:
                hold_still(session)
                deltas = self._observer.look(session, now=now)
                if any(isinstance(delta, Observed) for delta in deltas):
                    # What a pass would forget by itself grows here: a whole look begins anew.
                    state = State(explains=False)
                    _read_durations(session, state)
            follow(state, deltas, floor_ms(now))
        except Exception:
            self._observer.forget()  # nobody knows how much of it was taken in
            raise
        self._state, self._looked_at = state, now
        self._gpu_pools = list_gpu_pools(node.view for node in state.nodes.by_id.values())
        self._learn(deltas)

    def _learn(self, deltas: list[Delta]) -> None:
        """Compare what was said with the starts that have come."""
        for delta in deltas:
            views: tuple[JobView, ...] = ()
            if isinstance(delta, Observed):
                views = delta.view.jobs
            elif isinstance(delta, JobSeen):
                views = (delta.job,)
            for view in views:
                if view.placement is not None:
                    start = Start(
                        job_id=view.job_id, version=view.version, placement=view.placement
                    )
                    self._forecaster.learn([start], view.started_ms)

    def _read_row(self, job_id: str) -> tuple[JobSpec, int | None] | None:
        """Return the spec of a job, and when its limit ends it."""
        with self._database.read() as session:
            row = session.execute(
                select(Job.spec, Job.deadline_served_ms, Attempt.started_at)
                .outerjoin(Attempt, (Attempt.job_id == Job.id) & Attempt.ended_at.is_(None))
                .where(Job.id == job_id)
            ).first()
        if row is None:
            return None
        spec = read_spec(row.spec)
        deadline_ms = None
        if spec.limits.wall_seconds is not None and row.started_at is not None:
            left_ms = spec.limits.wall_seconds * 1000 - row.deadline_served_ms
            deadline_ms = floor_ms(row.started_at) + max(0, left_ms)
        return spec, deadline_ms

    def _draft(
        self,
        spec: JobSpec,
        project: str,
        user: str,
        waits_for: tuple[str, ...],
        history_ms: int | None,
        now: datetime,
    ) -> JobView:
        now_ms = floor_ms(now)
        begin_ms = 0 if spec.begin_at is None else floor_ms(datetime.fromisoformat(spec.begin_at))
        limit_s = spec.limits.wall_seconds
        return JobView(
            job_id=_DRAFT_ID,
            version=0,
            state=JobState.PENDING,
            sequence=now_ms * 1000,
            submit_ms=now_ms,
            project=project,
            user=user,
            name=spec.name or "",
            queue=spec.queue,
            priority=spec.priority,
            pool=spec.pool,
            shape=self._make_shape(spec),
            is_preemptible=spec.preemptible,
            is_held=spec.hold,
            not_before_ms=begin_ms if begin_ms > now_ms else 0,
            not_before_reason=Reason.BEGIN_TIME_NOT_REACHED,
            waits_for=waits_for,
            limit_ms=None if limit_s is None else limit_s * 1000,
            history_ms=history_ms,
            waiting_since_ms=now_ms,
            message="" if spec.begin_at is None else f"starts no earlier than {spec.begin_at}",
            grace_ms=spec.limits.grace_seconds * 1000,
        )

    def _make_shape(self, spec: JobSpec) -> Shape:
        request = spec.resources
        return Shape(
            num_workers=spec.num_workers,
            per_worker=resolve_request(request, pool_has_gpus=spec.pool in self._gpu_pools),
            gpu_models=tuple(request.gpu_models),
            gpu_memory_mib=gib_to_mib(request.gpu_memory_gib) or 0,
            may_spread=request.spread,
        )


def _list_worker_counts(spec: JobSpec) -> tuple[int, ...]:
    """Return the halvings of the gang that its layout allows, the largest first."""
    layout = spec.parallel
    inner = 1 if layout is None else layout.replica_size
    replicas = spec.num_workers // inner
    if layout is not None and inner == 1 and spec.workers is None:
        replicas = layout.data
    least = 1 if spec.elastic is None else spec.elastic.min_workers
    found = []
    while replicas > 1:
        replicas //= 2
        if replicas * inner >= least:
            found.append(replicas * inner)
    return tuple(found)


def _read_durations(session: Session, state: State) -> None:
    """Let a new state know how long the last jobs took."""
    limit_s = Job.spec[("limits", "wall_seconds")].as_integer().label("limit_s")
    for terminal in sorted(TERMINAL_STATES):
        rows = session.execute(
            select(Project.name, Job.served_ms, limit_s)
            .join(Project, Project.id == Job.project_id)
            .where(Job.state == terminal, Job.served_ms > 0)
            .order_by(Job.id.desc())
            .limit(_ENDED_MAX)
        )
        for project, served_ms, limit in rows:
            state.durations.add(project, None if limit is None else limit * 1000, served_ms)
