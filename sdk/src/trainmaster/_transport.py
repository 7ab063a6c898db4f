"""One HTTP exchange with the service, with retries, deadlines and a key that never leaves home.

Knows addresses, headers and bytes; knows nothing about jobs.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from trainmaster._calls import Body, Call, Query, Reply, body_of, new_idempotency_key
from trainmaster._errors import APIError, APIResponseError, APITimeoutError
from trainmaster._failures import read_problem, translated
from trainmaster._retry import retry_delay
from trainmaster._settings import Settings, origin_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_DOCUMENT_BYTES = 256 * 1024 * 1024


class Transport:
    """Sends calls to one service.

    Args:
        settings: the address and its key.
        timeout_seconds: for each wait within one try, and for reading a whole answer.
        retry_seconds: how long one call goes on trying; 0 tries once.
        http: replaces the network, for tests and proxies of one's own.
        clock, sleep, jitter: time and chance, for tests.
        on_retry: told the error and the delay in seconds before each wait.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        http: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        on_retry: Callable[[APIError, float], None] | None = None,
    ) -> None:
        self.settings = settings
        self.retry_seconds = retry_seconds
        self.clock = clock
        self.sleep = sleep
        self.jitter = jitter
        self.on_retry = on_retry
        self._timeout_seconds = timeout_seconds
        self._http_transport = http
        self._home = self._make_http(home=True)
        self._abroad: httpx.Client | None = None

    def close(self) -> None:
        """Close all connections."""
        self._home.close()
        if self._abroad is not None:
            self._abroad.close()

    def get(self, path: str, query: Query | None = None, **options: Any) -> Any:
        """Return the document at `path`."""
        return self.send(Call(method="GET", path=path, query=query or {}), **options).json()

    def post(
        self,
        path: str,
        document: object = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Reply:
        """Send a document with an idempotency key that stays the same over all tries."""
        sent = {**(headers or {}), "Idempotency-Key": idempotency_key or new_idempotency_key()}
        body: Body | None = None
        if document is not None:
            sent["Content-Type"] = "application/json"
            body = body_of(document)
        return self.send(Call(method="POST", path=path, query=query or {}, headers=sent, body=body))

    def send(
        self,
        call: Call,
        *,
        retry_seconds: float | None = None,
        patience: Patience | None = None,
    ) -> Reply:
        """Send a call until it is answered, refused for good, or `retry_seconds` are over.

        A caller that sees progress, as in a long upload, brings its own `patience`.

        Raises:
            APIStatusError: the answer was 400 or more and trying again would not help.
            APIConnectionError: no complete answer came.
            APIResponseError: the answer is none of Trainmaster's.
        """
        seconds = self.retry_seconds if retry_seconds is None else retry_seconds
        patience = patience or Patience(self, seconds)
        while True:
            try:
                return self._send_once(call)
            except APIError as error:
                patience.wait_after(error, repeatable=call.is_repeatable)

    @contextmanager
    def open(self, call: Call, *, may_leave: bool = False) -> Iterator[httpx.Response]:
        """Open an answer below 400 for reading piece by piece. One try; the caller resumes.

        Args:
            call: the request; its timeout is for each silence, not for the whole.
            may_leave: follow a redirect to another host. The key and all other headers but
                `Range` and `Accept` stay behind.

        Raises:
            APIError: as `send`; also while the body is read.
        """
        with translated(call, self.settings):
            response = self._follow(call, may_leave=may_leave)
            try:
                if response.status_code >= 400:
                    raise read_problem(response, self.settings)
                yield response
            finally:
                response.close()

    def url_of(self, path: str) -> str:
        """Return the whole address of a path, as `curl` wants it."""
        return self.settings.url + path

    def _send_once(self, call: Call) -> Reply:
        limit_seconds = call.timeout_seconds or self._timeout_seconds
        with self.open(call) as response:
            # Each wait for the network has its own limit; this one is for an answer that drips.
            expires_at = self.clock() + limit_seconds
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if self.clock() > expires_at:
                    raise APITimeoutError(
                        f"the answer of {self.settings.url} to {call.method} {call.path} did not "
                        f"end within {limit_seconds:g} s"
                    )
                if len(content) > _MAX_DOCUMENT_BYTES:
                    raise APIResponseError(f"the answer to {call.path} is larger than 256 MiB")
            return Reply(
                status=response.status_code,
                headers=response.headers,
                content=bytes(content),
                url=str(response.url),
            )

    def _follow(self, call: Call, *, may_leave: bool) -> httpx.Response:
        url, client = self.url_of(call.target), self._home
        headers = self._headers(call)
        for _ in range(_MAX_REDIRECTS):
            request = client.build_request(
                call.method,
                url,
                headers=headers,
                content=call.body() if call.body else None,
                timeout=self._timeouts(call),
            )
            response = client.send(request, stream=True, follow_redirects=False)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            response.close()
            target = str(response.url.join(response.headers["location"]))
            if origin_of(target) != self.settings.origin:
                self._check_may_leave(call, target, may_leave=may_leave)
                client = self._client_abroad()
                kept = {"range", "if-range", "accept", "accept-encoding"}
                headers = {name: text for name, text in headers.items() if name.lower() in kept}
            elif call.method not in {"GET", "HEAD"}:
                raise APIResponseError(
                    f"{call.method} {call.path} was sent on to {target}: use that address"
                )
            url = target
        raise APIResponseError(f"{call.path} was sent on more than {_MAX_REDIRECTS} times")

    def _check_may_leave(self, call: Call, target: str, *, may_leave: bool) -> None:
        scheme = origin_of(target)[0]
        downgrade = self.settings.origin[0] == "https" and scheme != "https"
        if scheme not in {"http", "https"} or downgrade or not may_leave or call.method != "GET":
            raise APIResponseError(
                f"{self.settings.url} wants to send this request on to {_site_of(target)}; the "
                "key is not sent there: if that is the service's address, set TRAINMASTER_URL to it"
            )

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "trainmaster-python"}
        if self.settings.api_key is not None:
            headers["Authorization"] = f"Bearer {self.settings.api_key}"
        return headers | dict(call.headers)

    def _timeouts(self, call: Call) -> httpx.Timeout:
        seconds = call.timeout_seconds or self._timeout_seconds
        return httpx.Timeout(connect=min(10.0, seconds), read=seconds, write=seconds, pool=seconds)

    def _client_abroad(self) -> httpx.Client:
        if self._abroad is None:
            self._abroad = self._make_http(home=False)
        return self._abroad

    def _make_http(self, *, home: bool) -> httpx.Client:
        # Loading the certificate store takes longer than a whole command: only where TLS is spoken.
        plain = home and self.settings.origin[0] == "http"
        return httpx.Client(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
            # A proxy from the environment must never see the admin key of this machine.
            trust_env=not (home and self.settings.is_loopback),
            transport=self._http_transport,
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
        )


class Patience:
    """How long one operation goes on trying while nothing moves."""

    def __init__(self, transport: Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self.moved()

    def moved(self) -> None:
        """Start again from the shortest delay: the operation came a step further."""
        self._tries = 0
        self.answered()

    def answered(self) -> None:
        """Start the deadline again, but not the delays: the service is there."""
        self._expires_at = self._transport.clock() + self._seconds

    def wait_after(self, error: APIError, *, repeatable: bool = True) -> None:
        """Sleep before the next try, or raise `error` when there shall be none."""
        self._tries += 1
        delay = retry_delay(
            error, tries=self._tries, repeatable=repeatable, jitter=self._transport.jitter()
        )
        if delay is None or self._transport.clock() + delay > self._expires_at:
            raise error
        if self._transport.on_retry is not None:
            self._transport.on_retry(error, delay)
        self._transport.sleep(delay)


def _site_of(url: str) -> str:
    scheme, host, port = origin_of(url)
    return f"{scheme}://{host}:{port}"
