"""What has changed since the last look, as deltas for the core. Reads rows, decides nothing.

Every change of a job has an event row; ids of events say where to go on. Whatever slips through
(an id that was committed late, a row that somebody changed by hand) is found by the whole look
that comes every minute or so, so it costs latency at most.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.job import Event, JobDependency
from scheduler.core.cluster import ClusterView, JobView, NodeView, QueueView, QuotaView
from scheduler.core.deltas import (
    Delta,
    JobGone,
    JobSeen,
    NodeGone,
    NodeSeen,
    Observed,
    RulesSeen,
)
from scheduler.shell.history import History
from scheduler.shell.job_rows import JobReader, chunks
from scheduler.shell.node_rows import read_nodes
from scheduler.shell.rules import read_rules
from scheduler.shell.snapshot import Sight, list_gpu_pools, read_cluster

WHOLE_EVERY = timedelta(seconds=60)
# A whole look costs 30 µs a job or so: with more jobs it comes less often, not at a higher price.
_WHOLE_JOBS = 10_000
RUNNING_EVERY = timedelta(seconds=10)
USAGE_EVERY = timedelta(seconds=10)
# Ids are handed out before the commit, so on PostgreSQL a smaller one may appear later.
_LOOK_BACK = timedelta(seconds=10)
_LOOK_BACK_IDS = 200


class Observer:
    """Remembers what the core was told.

    Args:
        whole_every: how long to trust in changes alone.
    """

    def __init__(self, sight: Sight, *, whole_every: timedelta = WHOLE_EVERY) -> None:
        self._sight, self._whole_every = sight, whole_every
        self._whole_at: datetime | None = None
        self._whole_for = whole_every
        self._running_at: datetime | None = None
        self._doubted: set[str] = set()
        self._history: History | None = None
        self._nodes: dict[str, NodeView] = {}
        self._running: dict[str, JobView] = {}
        self._gpu_pools: frozenset[str] = frozenset()
        self._rules = _Rules()
        self._events = _Events()

    def forget(self) -> None:
        """Let the next look be a whole one: nobody knows what the core knows."""
        self._whole_at = None

    def doubt(self, job_ids: Iterable[str]) -> None:
        """Let the next look tell the truth about these jobs, whatever was told before."""
        self._doubted.update(job_ids)

    def look(self, session: Session, *, now: datetime) -> list[Delta]:
        """Return what is new since the last look; all there is where that is not known."""
        if self._whole_at is None or not self._whole_at <= now < self._whole_at + self._whole_for:
            return self._look_whole(session, now)
        nodes = read_nodes(session, now=now, silence_max=self._sight.silence_max)
        changed = self._events.read_changed(session, now)
        if changed is None or list_gpu_pools(nodes) != self._gpu_pools:
            return self._look_whole(session, now)
        deltas = self._compare_nodes(nodes)
        deltas.extend(self._look_at_jobs(session, changed, now))
        if (rules := self._rules.find_news(session, now=now)) is not None:
            deltas.append(rules)
        return deltas

    def _look_whole(self, session: Session, now: datetime) -> list[Delta]:
        self._events.restart(session, now)
        self._history = History(as_of=now)
        view = read_cluster(session, now=now, sight=self._sight, history=self._history)
        self._gpu_pools = list_gpu_pools(view.nodes)
        self._nodes = {node.node_id: node for node in view.nodes}
        self._running = {job.job_id: job for job in view.jobs if not job.is_waiting}
        self._rules.note(view, now=now)
        self._doubted.clear()
        self._whole_at = self._running_at = now
        self._whole_for = self._whole_every * max(1, len(view.jobs) // _WHOLE_JOBS)
        return [Observed(view=view)]

    def _compare_nodes(self, nodes: Iterable[NodeView]) -> list[Delta]:
        known, self._nodes = self._nodes, {node.node_id: node for node in nodes}
        deltas: list[Delta] = [
            NodeSeen(node=node) for node in nodes if known.get(node.node_id) != node
        ]
        deltas.extend(
            NodeGone(node_id=node_id) for node_id in sorted(known.keys() - self._nodes.keys())
        )
        return deltas

    def _look_at_jobs(self, session: Session, changed: set[str], now: datetime) -> list[Delta]:
        is_due = self._running_at is None or now >= self._running_at + RUNNING_EVERY
        changed |= self._doubted
        if not changed and not is_due:
            return []
        assert self._history is not None, "a whole look comes first"
        reader = JobReader(
            session,
            lease=self._sight.lease,
            history=self._history,
            gpu_pools=self._gpu_pools,
        )
        found = reader.read_some(changed)
        gone = {delta.job_id for delta in found if isinstance(delta, JobGone)}
        # Who waited for one that has ended may wait no longer.
        found.extend(reader.read_some(_list_dependents(session, gone) - changed))
        for delta in found:
            self._note(delta)
        self._doubted.clear()
        if is_due:
            self._running_at = now
            found.extend(self._look_at_progress(reader))
        return list(found)

    def _look_at_progress(self, reader: JobReader) -> list[JobSeen]:
        """Return the running jobs that have come forward; their progress makes no events."""
        news = [
            JobSeen(job=job)
            for job in reader.read_holding()
            if self._running.get(job.job_id) != job
        ]
        for delta in news:
            self._note(delta)
        return news

    def _note(self, delta: JobSeen | JobGone) -> None:
        if isinstance(delta, JobSeen) and not delta.job.is_waiting:
            self._running[delta.job.job_id] = delta.job
        else:
            job_id = delta.job.job_id if isinstance(delta, JobSeen) else delta.job_id
            self._running.pop(job_id, None)


def _list_dependents(session: Session, job_ids: set[str]) -> set[str]:
    found: set[str] = set()
    for ids in chunks(job_ids):
        found.update(
            session.scalars(
                select(JobDependency.job_id).where(JobDependency.depends_on_job_id.in_(ids))
            )
        )
    return found


class _Events:
    """Where reading the events goes on."""

    def __init__(self) -> None:
        self._last_id = 0
        self._seen: set[tuple[int, str]] = set()
        self._trail: deque[tuple[datetime, int]] = deque()

    def restart(self, session: Session, now: datetime) -> None:
        """Take all that is there as seen."""
        self._last_id = session.scalar(select(func.max(Event.id))) or 0
        self._trail = deque([(now, self._last_id)])
        rows = session.execute(
            select(Event.id, Event.job_id).where(Event.id > self._last_id - _LOOK_BACK_IDS)
        )
        self._seen = {(event_id, job_id) for event_id, job_id in rows}

    def read_changed(self, session: Session, now: datetime) -> set[str] | None:
        """Return the jobs with new events; None when events have vanished, so nobody knows."""
        while len(self._trail) > 1 and self._trail[1][0] <= now - _LOOK_BACK:
            self._trail.popleft()
        floor = min(self._trail[0][1], self._last_id) - _LOOK_BACK_IDS
        rows = session.execute(
            select(Event.id, Event.job_id).where(Event.id > floor).order_by(Event.id)
        )
        found = {(event_id, job_id) for event_id, job_id in rows}
        last_id = max((event_id for event_id, _ in found), default=0)
        if last_id < self._last_id:
            return None  # SQLite gives ids of rows that were removed a second time
        changed = {job_id for _, job_id in found - self._seen}
        self._seen, self._last_id = found, last_id
        self._trail.append((now, last_id))
        return changed


class _Rules:
    """Which rules were told, and when."""

    def __init__(self) -> None:
        self._told = RulesSeen()
        self._told_at: datetime | None = None

    def note(self, view: ClusterView, *, now: datetime) -> None:
        """Remember that the rules in `view` were told."""
        self._told = RulesSeen(quotas=view.quotas, usage=view.usage, queues=view.queues)
        self._told_at = now

    def find_news(self, session: Session, *, now: datetime) -> RulesSeen | None:
        """Return the rules if they are others; usage, which always changes, not every time."""
        rules = read_rules(session, now=now)
        is_due = self._told_at is None or now >= self._told_at + USAGE_EVERY
        if rules == self._told or (not is_due and _ruling(rules) == _ruling(self._told)):
            return None
        self._told, self._told_at = rules, now
        return rules


def _ruling(rules: RulesSeen) -> tuple[tuple[QuotaView, ...], tuple[QueueView, ...]]:
    """What somebody has set, without what was used."""
    quotas = tuple(dataclasses.replace(quota, spent_gpu_ms=0) for quota in rules.quotas)
    return quotas, rules.queues
