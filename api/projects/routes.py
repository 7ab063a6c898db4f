"""Projects over HTTP: an admin makes them, everybody sees their own."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response
from sqlalchemy import select

from api.deps import AdminCaller, ConfigDep, CurrentCaller, Now, PageDep, ReadSession, WriteSession
from api.errors import NameTaken, problem_responses
from api.pages import cut_page, read_after
from api.projects import schemas
from api.strict import StrictRoute
from models import Project
from scheduler.core.errors import NotFound

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=StrictRoute)


@router.post(
    "",
    operation_id="projects_create",
    status_code=HTTPStatus.CREATED,
    responses=problem_responses(409),
)
def create(
    wanted: schemas.ProjectRequest,
    caller: AdminCaller,
    session: WriteSession,
    now: Now,
    response: Response,
) -> schemas.Project:
    """Make a project."""
    if session.scalar(select(Project.id).where(Project.name == wanted.name)) is not None:
        raise NameTaken("there is a project of that name: choose another one")
    project = Project(name=wanted.name, created_at=now)
    session.add(project)
    session.flush()
    response.headers["location"] = f"/v1/projects/{project.id}"
    return _represent(project)


@router.get("", operation_id="projects_list")
def list_(
    caller: CurrentCaller, page: PageDep, session: ReadSession, config: ConfigDep
) -> schemas.ProjectList:
    """List your project; an admin's key lists all."""
    statement = select(Project).order_by(Project.id).limit(page.limit + 1)
    if not caller.is_admin:
        statement = statement.where(Project.id == caller.project_id)
    after = read_after(config.signing_key, "projects", page)
    if after is not None:
        statement = statement.where(Project.id > str(after))
    rows = session.scalars(statement).all()
    keys = [project.id for project in rows]
    shown, has_more, cursor = cut_page(config.signing_key, "projects", rows, keys, page.limit)
    data = [_represent(project) for project in shown]
    return schemas.ProjectList(data=data, has_more=has_more, next_cursor=cursor)


@router.get("/{project_id}", operation_id="projects_get")
def get(project_id: str, caller: CurrentCaller, session: ReadSession) -> schemas.Project:
    """Read a project."""
    project = session.get(Project, project_id)
    if project is None or not caller.may_see(project.id):
        raise NotFound("this project")
    return _represent(project)


def _represent(project: Project) -> schemas.Project:
    return schemas.Project(id=project.id, name=project.name, created_at=project.created_at)
