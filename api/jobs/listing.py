"""Lists of jobs: what they may be narrowed to, newest first unless asked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.auth.callers import Caller
from api.errors import BadParameter
from models import Job, Project
from scheduler.core.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What jobs of a list have in common; None and empty mean: any."""

    states: tuple[JobState, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    project: str | None = None
    name: str | None = None


def read_filter(
    state: str | None, labels: Sequence[str], project: str | None, name: str | None
) -> JobFilter:
    """Return the filter that the query parameters say.

    Raises:
        BadParameter: a state is not known, or a label is not `key:value`.
    """
    states = []
    for text in state.split(",") if state is not None else []:
        try:
            states.append(JobState(text.strip()))
        except ValueError:
            known = ", ".join(JobState)
            message = f"is a list, by comma, of: {known}"
            raise BadParameter("state", message) from None
    pairs = []
    for label in labels:
        key, colon, value = label.partition(":")
        if not colon or not key or '"' in key or "\\" in key:
            raise BadParameter(
                "label", "is a key and a value with a colon between, such as team:vision"
            )
        pairs.append((key, value))
    return JobFilter(states=tuple(states), labels=tuple(pairs), project=project, name=name)


def list_jobs(
    session: Session,
    caller: Caller,
    wanted: JobFilter,
    *,
    after_id: str | None,
    limit: int,
    is_ascending: bool,
) -> Sequence[Job]:
    """Return up to `limit` jobs that the caller may see, in the order of their ids."""
    statement = _narrow(select(Job), caller, wanted)
    if after_id is not None:
        statement = statement.where(Job.id > after_id if is_ascending else Job.id < after_id)
    statement = statement.order_by(Job.id if is_ascending else Job.id.desc()).limit(limit)
    return session.scalars(statement).all()


def _narrow(statement: Select[Job], caller: Caller, wanted: JobFilter) -> Select[Job]:
    if not caller.is_admin:
        statement = statement.where(Job.project_id == caller.project_id)
    if wanted.project is not None:
        project_id = select(Project.id).where(Project.name == wanted.project).scalar_subquery()
        statement = statement.where(Job.project_id == project_id)
    if wanted.states:
        statement = statement.where(Job.state.in_(wanted.states))
    if wanted.name is not None:
        statement = statement.where(Job.name == wanted.name)
    for key, value in wanted.labels:
        statement = statement.where(Job.labels[key].as_string() == value)
    return statement
