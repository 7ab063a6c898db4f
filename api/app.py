"""The HTTP application: routes, error handlers, and the front that every request passes.

Knows no settings and no process: both come in as values (see `api.roles`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from api import deps
from api.attempts import routes as attempts
from api.attempts import worker_routes as worker_attempts
from api.auth.credentials import Credentials
from api.auth.gate import PUBLIC_CALLS, PUBLIC_FOLDERS, PUBLIC_PATHS, Gate
from api.checkpoints import routes as checkpoints
from api.checkpoints import worker_routes as worker_checkpoints
from api.config import ApiConfig
from api.errors import install_error_handlers
from api.events import routes as events
from api.explain import routes as explanations
from api.explain.oracle import Oracle
from api.files import routes as files
from api.front import Front
from api.jobs import actions as job_actions
from api.jobs import routes as jobs
from api.jobs.desk import open_desk
from api.keys import routes as keys
from api.logs import routes as logs
from api.logs import worker_routes as worker_logs
from api.metrics import routes as metrics
from api.metrics import worker_routes as worker_metrics
from api.nodes import heartbeat, join
from api.nodes import routes as nodes
from api.pools import routes as pools
from api.projects import routes as projects
from api.queues import routes as queues
from api.quotas import routes as quotas
from api.recipes import routes as recipes
from api.sessions import routes as sessions
from api.storage import LocalStorage
from api.streams import Streams
from api.system import docs, health, prometheus
from api.telemetry import ApiMetrics
from api.usage import routes as usage
from api.verification import routes as verification
from models import Database

# What supervisors call all the time stands first: routes are matched in this order.
ROUTERS: tuple[APIRouter, ...] = (
    worker_metrics.router,
    worker_logs.router,
    worker_attempts.router,
    worker_checkpoints.router,
    heartbeat.router,
    jobs.router,
    job_actions.router,
    explanations.router,
    verification.router,
    events.router,
    recipes.router,
    pools.router,
    nodes.router,
    join.router,
    attempts.router,
    logs.router,
    metrics.router,
    checkpoints.router,
    files.router,
    queues.router,
    quotas.router,
    usage.router,
    projects.router,
    keys.router,
    sessions.router,
    health.router,
    prometheus.router,
    docs.router,
)


def create_app(config: ApiConfig, database: Database, oracle: Oracle | None = None) -> FastAPI:
    """Return the application.

    Args:
        oracle: knows when jobs start and end; without one explanations say less.

    Raises:
        ValueError: a route does not say who may call it.
    """
    app = FastAPI(
        title="Trainmaster",
        version=config.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    for router in ROUTERS:
        # Taken in as they are: their paths are whole, and one flat table is matched faster.
        app.router.routes.extend(router.routes)
    _check_callers(app)
    app.state.config = config
    app.state.database = database
    app.state.oracle = oracle
    app.state.streams = Streams(database.doorbell)
    app.state.credentials = Credentials(database, config.signing_key)
    app.state.metrics = ApiMetrics()
    app.state.desk = open_desk(config, database)
    app.state.storage = LocalStorage(config.storage_dir)
    install_error_handlers(app)
    app.add_middleware(
        Front,
        gate=Gate(app.state.credentials, config.allowed_hosts),
        metrics=app.state.metrics,
        routes=app.router.routes,
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.streams.close()


def _check_callers(app: FastAPI) -> None:
    """Refuse to start with a route that anybody could call by accident."""
    for route in app.router.routes:
        callers = deps.find_callers(route.dependant) if isinstance(route, APIRoute) else set()
        if len(callers) != 1 or not isinstance(route, APIRoute):
            raise ValueError(f"{route} must name one kind of caller (see api.deps)")
        if deps.public in callers and not _is_public(route):
            raise ValueError(f"{route.path} is public, but the gate does not know it")


def _is_public(route: APIRoute) -> bool:
    if route.path in PUBLIC_PATHS or route.path.startswith(PUBLIC_FOLDERS):
        return True
    return all((method, route.path) in PUBLIC_CALLS for method in route.methods or ())
