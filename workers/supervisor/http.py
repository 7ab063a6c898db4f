"""An HTTP/1.1 client for the worker protocol: kept-alive connections, timeouts, honest retries.

Knows JSON, problem documents and bearer tokens; knows no route. Every call of the protocol may be
sent twice, so a call whose answer is lost is simply sent again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Union
from urllib.parse import urlsplit

Body = Union[bytes, IO[bytes], None]

_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_ERRORS_SHOWN = 5


class Unreachable(Exception):
    """No answer, or one that says to come again: the service is away for now."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The service has answered, and the answer is no."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", ""))
        detail = problem.get("detail") or problem.get("title") or "no detail"
        super().__init__(f"{status} {self.code}: {detail}")

    def describe(self) -> str:
        """Return the refusal with what the problem document lists, one line, bounded."""
        errors = self.problem.get("errors")
        listed = [
            f"{one.get('pointer') or 'the request'}: {one.get('message')}"
            for one in (errors if isinstance(errors, list) else [])[:_ERRORS_SHOWN]
            if isinstance(one, dict)
        ]
        return "; ".join([str(self), *listed])

    @property
    def is_stale(self) -> bool:
        """Whether the attempt has ended or belongs to another epoch."""
        return self.status == 409 and self.code == "stale_attempt"

    @property
    def is_unauthorized(self) -> bool:
        """Whether the token or credential is not, or no longer, good."""
        return self.status == 401


@dataclass(frozen=True)
class Backoff:
    """How long to wait between tries: doubling, with jitter, never over `max_s`."""

    first_s: float = 0.2
    max_s: float = 5.0

    def pause_s(self, failures: int, retry_after_s: float | None = None) -> float:
        """Return the pause after so many failures in a row (>= 1)."""
        pause = min(self.first_s * 2 ** min(failures - 1, 16), self.max_s)
        pause *= random.uniform(0.5, 1.0)
        return float(max(pause, min(retry_after_s or 0.0, 30.0)))


class Client:
    """Calls to one service. Safe to share between threads; idle connections are reused."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Take the base `url` (http or https) and the bearer token to send with each call."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http or https address")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._headers = {"Accept": "application/json", "User-Agent": "trainmaster-node"}
        self.token = token

    def call(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        body: Body = None,
        size_bytes: int | None = None,
        timeout_s: float = 10.0,
    ) -> Any:
        """Send one request and return the JSON of its answer (None if it has none).

        `value` is sent as JSON; `body` as bytes of `size_bytes`.

        Raises:
            Unreachable: no usable answer; the request may have been carried out.
            Refused: a 4xx answer.
        """
        if value is not None:
            body = json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
            size_bytes = len(body)
        kind = "application/json" if value is not None else "application/octet-stream"
        connection, response = self._send(method, path, body, size_bytes, kind, timeout_s)
        with _reading(connection, response, f"{method} {path}"):
            raw = response.read(_ANSWER_LIMIT_BYTES)
            if response.length:
                raise http.client.IncompleteRead(raw, response.length)
        self._give_back(connection, response)
        return _read_answer(method, path, response, raw)

    def download(
        self, path: str, write: Callable[[bytes], object], *, timeout_s: float = 30.0
    ) -> None:
        """Fetch the bytes at `path` and hand them to `write`, piece by piece.

        Raises:
            Unreachable: no answer, or one cut short.
            Refused: a 4xx answer.
        """
        connection, response = self._send("GET", path, None, None, "", timeout_s)
        if response.status >= 300:
            with _reading(connection, response, f"GET {path}"):
                raw = response.read(_ANSWER_LIMIT_BYTES)
            self._give_back(connection, response)
            _read_answer("GET", path, response, raw)
        while True:
            with _reading(connection, response, f"GET {path}"):
                piece = response.read(_PIECE_BYTES)
            if not piece:
                break
            try:
                write(piece)
            except BaseException:
                response.close()
                connection.close()
                raise
        self._give_back(connection, response)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Body,
        size_bytes: int | None,
        kind: str,
        timeout_s: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = dict(self._headers)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = kind
            headers["Content-Length"] = str(size_bytes)
        elif method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        while True:
            connection, is_reused = self._take(timeout_s)
            try:
                connection.request(method, self._prefix + path, body=body, headers=headers)
                return connection, connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                is_rewindable = body is None or isinstance(body, bytes)
                if is_reused and is_rewindable and not isinstance(error, socket.timeout):
                    continue  # the server had closed the idle connection
                raise Unreachable(f"{method} {path}: {error!r}") from error

    def _take(self, timeout_s: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.timeout = timeout_s
            return connection, True
        if self._tls is not None:
            return (
                http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout_s, context=self._tls
                ),
                False,
            )
        return (
            http.client.HTTPConnection(
                self._host, self._port, timeout=timeout_s, blocksize=256 * 1024
            ),
            False,
        )

    def _give_back(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        if response.will_close or not response.isclosed():
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)


@contextlib.contextmanager
def _reading(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, what: str
) -> Iterator[None]:
    """Make of every way in which an answer can break off the same error."""
    try:
        yield
        # A body that is cut short is not an error to http.client.
        if response.length and response.isclosed():
            raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException) as error:
        response.close()
        connection.close()
        raise Unreachable(f"{what}: {error!r}") from error


def _read_answer(method: str, path: str, response: http.client.HTTPResponse, raw: bytes) -> Any:
    """Return the JSON of a good answer; raise for every other."""
    value: Any = None
    try:
        value = json.loads(raw) if raw else None
    except ValueError as error:
        if response.status < 300:
            raise Unreachable(f"{method} {path}: the answer is not JSON") from error
    if response.status < 300:
        return value
    if response.status in _RETRIED_STATUSES or response.status < 400 or response.status >= 500:
        raise Unreachable(
            f"{method} {path}: status {response.status}",
            retry_after_s=_seconds(response.headers.get("Retry-After")),
        )
    raise Refused(response.status, value if isinstance(value, dict) else {})


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After of seconds; dates are left to the back-off."""
    return float(text) if text is not None and text.isdigit() else None
