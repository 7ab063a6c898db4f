"""`/openapi.json`, and `/docs` to read it in a browser, without asking anything of other servers.

Swagger UI is bundled (see `swagger_ui/VERSION`). The page has no inline script, so its policy can
be strict.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from api.deps import public
from api.strict import StrictRoute
from api.system.openapi import render
from scheduler.core.errors import NotFound

router = APIRouter(
    tags=["system"],
    route_class=StrictRoute,
    dependencies=[Depends(public)],
    include_in_schema=False,
)

_HERE = Path(__file__).parent
_ASSETS = {
    "swagger-ui.css": (_HERE / "swagger_ui" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (_HERE / "swagger_ui" / "swagger-ui-bundle.js", "text/javascript"),
    "docs_start.js": (_HERE / "docs_start.js", "text/javascript"),
}
# Swagger UI draws its icons as data: images. Styles come from its one style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """Return the OpenAPI document."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = await run_in_threadpool(render, request.app)
    return Response(state.openapi, media_type="application/json")


@router.get("/docs")
async def page() -> Response:
    """Return the page that shows the document."""
    headers = {"content-security-policy": _POLICY}
    return FileResponse(_HERE / "docs_page.html", headers=headers, media_type="text/html")


@router.get("/docs/assets/{name}")
async def asset(name: str) -> Response:
    """Return a script or style sheet of the page."""
    if name not in _ASSETS:
        raise NotFound("this asset")
    path, media_type = _ASSETS[name]
    headers = {"cache-control": "public, max-age=3600"}
    return FileResponse(path, headers=headers, media_type=media_type)
