"""From rows to quotas as the API shows them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.quotas import schemas
from models import Project, Quota
from models.queries.budgets import Key, list_gpu_holders, read_month_use
from scheduler.core.usage import HOUR_MS


def represent_quotas(
    session: Session, quotas: Sequence[Quota], *, now: datetime
) -> list[schemas.Quota]:
    """Return `quotas` as the API shows them, with what is used now."""
    if not quotas:
        return []
    ids = {quota.project_id for quota in quotas}
    rows = session.execute(select(Project.id, Project.name).where(Project.id.in_(ids)))
    names = {row.id: row.name for row in rows}
    holders = list_gpu_holders(session)
    num_gpus: dict[Key, int] = {}
    for holder in holders:
        for key in holder.keys:
            num_gpus[key] = num_gpus.get(key, 0) + holder.num_gpus
    used_ms = read_month_use(session, holders, now=now)
    return [_represent(quota, names[quota.project_id], num_gpus, used_ms) for quota in quotas]


def render_quota(quota: schemas.Quota) -> tuple[bytes, str]:
    """Return the JSON of a quota and its ETag.

    The ETag begins with the version, which is all that `If-Match` compares: what is in use is part
    of the body and changes it, but nobody edits that.
    """
    body = quota.model_dump_json().encode()
    return body, f'"{quota.version}.{hashlib.sha256(body).hexdigest()[:12]}"'


def _represent(
    quota: Quota, project: str, num_gpus: Mapping[Key, int], used_ms: Mapping[Key, int]
) -> schemas.Quota:
    key = (quota.project_id, quota.user_id)
    return schemas.Quota(
        id=quota.id,
        project=project,
        user=quota.user_id,
        weight=quota.weight,
        guaranteed_gpus=quota.guaranteed_gpus,
        limit_gpus=quota.limit_gpus,
        may_borrow=quota.may_borrow,
        gpu_hours_per_month=quota.gpu_hours_per_month,
        priority_max=quota.priority_max,
        in_use=schemas.QuotaUse(
            gpus=num_gpus.get(key, 0),
            gpu_hours_this_month=round(used_ms.get(key, 0) / HOUR_MS, 4),
        ),
        version=quota.version,
        created_at=quota.created_at,
        updated_at=quota.updated_at,
    )
