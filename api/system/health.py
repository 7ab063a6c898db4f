"""Is the process there, can it work, which one is it. Open to everybody, and tiny."""

from __future__ import annotations

import os

from fastapi import APIRouter, Depends
from sqlalchemy import text

from api.deps import ConfigDep, DatabaseDep, public
from api.errors import problem_responses
from api.strict import StrictRoute
from api.system import schemas
from scheduler.core.errors import Unavailable

router = APIRouter(tags=["system"], route_class=StrictRoute, dependencies=[Depends(public)])


@router.get("/healthz", operation_id="system_health")
async def health() -> schemas.Liveness:
    """Say that the process answers."""
    return schemas.Liveness()


@router.get("/readyz", operation_id="system_readiness", responses=problem_responses(503))
def readiness(database: DatabaseDep, config: ConfigDep) -> schemas.Readiness:
    """Say whether requests can be served: database and storage answer."""
    with database.read() as session:
        session.execute(text("SELECT 1"))
    if not os.access(config.storage_dir, os.W_OK):
        raise Unavailable("the storage folder cannot be written: see the disk of the service")
    return schemas.Readiness()


@router.get("/version", operation_id="system_version")
async def version(config: ConfigDep) -> schemas.Version:
    """Say which version this is."""
    return schemas.Version(version=config.version)
