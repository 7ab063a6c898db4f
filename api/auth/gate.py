"""The gate in front of all routes: who is asking, and may a request look like this at all.

Default deny: a path that is not in the allow-list below needs a good credential, whatever routes
or mounts exist. What a caller may do is said at each route (see `api.deps`).
"""

from __future__ import annotations

from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from api.auth.callers import Caller, Principal
from api.auth.credentials import Credentials
from api.auth.tokens import SESSION_PREFIX
from api.errors import BadRequest, HostNotAllowed
from scheduler.core.errors import Forbidden, NotFound, Unauthenticated

SESSION_COOKIE = "trainmaster_session"
PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/version", "/openapi.json", "/docs"})
PUBLIC_FOLDERS = ("/docs/assets/",)
PUBLIC_CALLS = frozenset({("POST", "/v1/sessions")})

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE = frozenset(
    {
        b"authorization", b"content-length", b"content-type", b"cookie", b"host",
        b"idempotency-key", b"if-match", b"if-none-match", b"if-range", b"last-event-id",
        b"origin", b"range", b"x-api-key", b"x-request-id",
    }
)  # fmt: skip
_SECRET_LENGTH_MAX = 1024
_UNKNOWN = "the credential is unknown, expired or revoked: ask for a new one"

Headers = dict[bytes, bytes]


class Gate:
    """Lets requests in, or says why not."""

    def __init__(self, credentials: Credentials, allowed_hosts: Iterable[str]) -> None:
        self._credentials = credentials
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def admit(self, scope: Scope) -> Principal | None:
        """Return who is asking, None on a public path.

        Raises:
            BadRequest, HostNotAllowed, NotFound: the request looks wrong.
            Unauthenticated: a credential is needed, and there is no good one.
            Forbidden: a browser sends it from another site.
        """
        headers = _read_headers(scope)
        self._check_host(headers)
        path: str = scope["path"]
        if not path.isprintable():
            raise NotFound("this path")
        if path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDERS):
            return None
        method: str = scope["method"]
        if (method, path) in PUBLIC_CALLS:
            _check_origin(scope, headers, is_needed=False)
            return None
        secret = _find_secret(headers)
        principal = self._credentials.recall(secret)
        if principal is None:
            principal = await run_in_threadpool(self._credentials.look_up, secret)
        if principal is None:
            raise Unauthenticated(_UNKNOWN)
        is_browser = isinstance(principal, Caller) and principal.session_id is not None
        if is_browser and method not in SAFE_METHODS:
            _check_origin(scope, headers, is_needed=True)
        return principal

    def _check_host(self, headers: Headers) -> None:
        if "*" in self._allowed_hosts:
            return
        host = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._allowed_hosts:
            raise HostNotAllowed(
                "this service does not go by that host name: the operator allows names with "
                "ALLOWED_HOSTS"
            )


def _read_headers(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        if name in headers and name in _ONCE:
            raise BadRequest(f"the header {name.decode('latin-1')} is given twice: give it once")
        headers[name] = value
    return headers


def _find_secret(headers: Headers) -> str:
    """Return the one credential of the request."""
    found = []
    authorization = headers.get(b"authorization")
    if authorization is not None:
        kind, _, secret = authorization.partition(b" ")
        if kind.lower() != b"bearer":
            raise Unauthenticated("send the key as authorization: Bearer <key>")
        found.append(secret.strip())
    if b"x-api-key" in headers:
        found.append(headers[b"x-api-key"].strip())
    if len(found) > 1:
        raise Unauthenticated("there are two credentials: send one of them")
    if not found:
        found.append(_find_cookie(headers))
    secret = found[0]
    if not secret:
        raise Unauthenticated("a credential is needed: send authorization: Bearer <key>")
    is_cookie = secret.startswith(SESSION_PREFIX.encode())
    came_as_cookie = b"authorization" not in headers and b"x-api-key" not in headers
    # A cookie's value in a header would pass without the check of the origin, and the other
    # way round a page could be made to send a key.
    if len(secret) > _SECRET_LENGTH_MAX or not secret.isascii() or is_cookie is not came_as_cookie:
        raise Unauthenticated(_UNKNOWN)
    return secret.decode("ascii")


def _find_cookie(headers: Headers) -> bytes:
    raw = headers.get(b"cookie")
    if raw is None:
        return b""
    try:
        morsel = SimpleCookie(raw.decode("latin-1")).get(SESSION_COOKIE)
    except CookieError:
        return b""
    return morsel.value.encode() if morsel is not None else b""


def _check_origin(scope: Scope, headers: Headers, *, is_needed: bool) -> None:
    """Refuse what another site makes a browser send."""
    origin = headers.get(b"origin")
    if origin is None:
        same = headers.get(b"sec-fetch-site", b"") == b"same-origin"
        if is_needed and not same:
            raise Forbidden("a browser session needs the header origin on this method")
        return
    host = headers.get(b"host", b"").decode("latin-1").lower()
    parts = origin.decode("latin-1").lower().partition("://")
    # Behind a proxy with TLS the scheme seen here is not the browser's; the host is.
    if parts[2] != host or parts[0] not in {"http", "https"}:
        raise Forbidden("the request comes from a page of another site")


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
