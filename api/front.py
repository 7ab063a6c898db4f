"""The outermost layer: every request gets an id, a place to fail safely, a log line and a count.

Plain ASGI, because a layer that reads bodies or makes tasks would cost more than most routes.
"""

from __future__ import annotations

import re
import secrets
import time
from http import HTTPStatus

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.callers import AttemptCaller, Caller, NodeCaller, Principal
from api.auth.gate import Gate
from api.errors import InternalError, database_error, render_problem
from api.telemetry import ApiMetrics
from scheduler.core.errors import ServiceError

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Set unless the route says otherwise. No answer of ours is a page that may be framed or sniffed.
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class Front:
    """Wraps the app: gate, request id, headers, HEAD, log line, metrics, last resort."""

    def __init__(
        self, app: ASGIApp, *, gate: Gate, metrics: ApiMetrics, routes: list[BaseRoute]
    ) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request_id = _read_request_id(scope)
        method: str = scope["method"]
        answer = _Answer(send, request_id, is_head=method == "HEAD")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        principal: Principal | None = None
        self._metrics.active.inc()
        try:
            principal = state["principal"] = await self._gate.admit(scope)
            if method == "HEAD" and not self._has_own_head(scope):
                # A copy: the server looks at its own to see that no body may follow.
                scope = {**scope, "method": "GET"}
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            pass  # nobody is left to hear of it
        except ServiceError as error:
            await self._tell(error, scope, receive, answer)
        except (DBAPIError, PoolTimeout) as error:
            log.warning("database error", error=type(error).__name__, request_id=request_id)
            await self._tell(database_error(error), scope, receive, answer)
        except Exception:
            self._metrics.errors.inc()
            log.exception("unexpected error", request_id=request_id)
            problem = InternalError("something went wrong here: tell the operator the request_id")
            await self._tell(problem, scope, receive, answer)
        finally:
            self._metrics.active.dec()
            self._note(scope, method, answer, principal, time.perf_counter() - began)

    async def _tell(
        self, error: ServiceError, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        if not answer.has_begun:
            await render_problem(error, answer.request_id)(scope, receive, answer.send)

    def _has_own_head(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)

    def _note(
        self,
        scope: Scope,
        method: str,
        answer: _Answer,
        principal: Principal | None,
        seconds: float,
    ) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        status = answer.status or 499  # the client left before there was an answer
        known = method if method in _METHODS else "other"
        self._metrics.requests.labels(known, route, status).observe(seconds)
        log.info(
            "request",
            method=known,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            request_id=answer.request_id,
            **_who(principal),
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Answer:
    """The answer on its way out: adds headers, drops the body of a HEAD, notes the status."""

    def __init__(self, send: Send, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self._is_complete = False
        self.request_id = request_id
        self.status: int | None = None

    @property
    def has_begun(self) -> bool:
        return self.status is not None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self.status == HTTPStatus.NOT_MODIFIED:
                del headers["content-length"]
        elif self._is_head:
            await self._drop(more_body=message.get("more_body", False))
            return
        await self._send(message)

    async def _drop(self, *, more_body: bool) -> None:
        if not self._is_complete:
            self._is_complete = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if more_body:
            raise ClientDisconnect  # ends a stream: nobody will read it


def _read_request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return f"req-{secrets.token_hex(8)}"


def _who(principal: Principal | None) -> dict[str, str]:
    match principal:
        case Caller():
            return {"key_id": principal.key_id}
        case NodeCaller():
            return {"node_id": principal.node_id}
        case AttemptCaller():
            return {"attempt_id": principal.attempt_id, "epoch": str(principal.epoch)}
        case None:
            return {}
