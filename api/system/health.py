"""Is the process there, can it work, which one is it. Open to everybody, and tiny."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fastapi import APIRouter, Depends
from sqlalchemy import text

from api.deps import ConfigDep, DatabaseDep, public
from api.errors import problem_responses
from api.strict import StrictRoute
from api.system import schemas
from scheduler.core.errors import Unavailable

# What uploads may not take, what a log of the database may grow by, and some to clear up in.
_FREE_BYTES_MIN = 64 * 1024 * 1024

router = APIRouter(tags=["system"], route_class=StrictRoute, dependencies=[Depends(public)])


@router.get("/healthz", operation_id="system_health")
async def health() -> schemas.Liveness:
    """Say that the process answers."""
    return schemas.Liveness()


@router.get("/readyz", operation_id="system_readiness", responses=problem_responses(503))
def readiness(database: DatabaseDep, config: ConfigDep) -> schemas.Readiness:
    """Say whether requests can be served: database and storage answer and have room."""
    with database.read() as session:
        session.execute(text("SELECT 1"))
    if not os.access(config.storage_dir, os.W_OK):
        raise Unavailable("the storage folder cannot be written: see the disk of the service")
    _check_room("storage", config.storage_dir)
    if database.is_sqlite and database.engine.url.database:
        _check_room("database", Path(database.engine.url.database).parent)
    return schemas.Readiness()


def _check_room(name: str, folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _FREE_BYTES_MIN:
        raise Unavailable(
            f"the disk of the {name} has {free_bytes // 1024**2} MiB left, "
            f"{_FREE_BYTES_MIN // 1024**2} are needed: make room there"
        )


@router.get("/version", operation_id="system_version")
async def version(config: ConfigDep) -> schemas.Version:
    """Say which version this is."""
    return schemas.Version(version=config.version)
