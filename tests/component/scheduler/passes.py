"""A pass that somebody makes who has just come: the whole view, an empty state."""

from __future__ import annotations

from scheduler.core.cluster import ClusterView, JobView
from scheduler.core.decisions import Plan
from scheduler.core.deltas import Observed
from scheduler.core.state import State
from scheduler.core.step import step
from scheduler.shell.snapshot import hold_still, read_cluster
from tests.worlds import SIGHT, World


def read_view(world: World) -> ClusterView:
    """Return all that a scheduler would see now."""
    with world.database.read() as session:
        hold_still(session)
        return read_cluster(session, now=world.now, sight=SIGHT)


def view_of(world: World, job_id: str) -> JobView:
    """Return a job as a pass sees it."""
    return next(job for job in read_view(world).jobs if job.job_id == job_id)


def decide_anew(world: World) -> Plan:
    """Return what a scheduler that starts now would do."""
    now_ms = round(world.now.timestamp() * 1000)
    _, plan = step(State(), [Observed(view=read_view(world))], now_ms)
    return plan
