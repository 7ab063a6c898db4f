"""Usage over HTTP: who has used how much in a month, and whose share is more than fair."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api import shapes
from api.deps import ConfigDep, CurrentCaller, Now, PageDep, ReadSession
from api.pages import cut_page, read_after
from api.strict import StrictRoute
from api.usage import schemas
from api.usage.accounts import list_usage
from scheduler.core.usage import name_month

router = APIRouter(prefix="/v1/usage", tags=["usage"], route_class=StrictRoute)


@router.get("", operation_id="usage_list")
def list_(
    caller: CurrentCaller,
    page: PageDep,
    session: ReadSession,
    config: ConfigDep,
    now: Now,
    month: Annotated[
        str | None,
        Query(pattern=shapes.MONTH, description="Of UTC; the present one unless given."),
    ] = None,
    project: Annotated[str | None, Query(max_length=128, description="Name of a project.")] = None,
) -> schemas.UsageList:
    """List what each user of your project has used; an admin's key lists all projects."""
    rows = [
        row
        for row in list_usage(session, month=month or name_month(now), now=now)
        if (caller.is_admin or row.project == caller.project) and project in {None, row.project}
    ]
    keys = [f"{row.project}\n{row.user or ''}" for row in rows]
    list_name = f"usage/{month}/{project}"
    after = read_after(config.signing_key, list_name, page)
    first = 0 if after is None else sum(key <= str(after) for key in keys)
    last = first + page.limit + 1
    shown, has_more, cursor = cut_page(
        config.signing_key, list_name, rows[first:last], keys[first:last], page.limit
    )
    return schemas.UsageList(data=list(shown), has_more=has_more, next_cursor=cursor)
