"""An attempt's calls to the service: token, staleness, patience."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.supervisor.files import find_json, write_json
from workers.supervisor.http import Backoff, Body, Client, Refused, Unreachable


class Stale(Exception):
    """The attempt has ended, or this node no longer has it: stop, and report nothing more."""


class GivenUp(Exception):
    """The caller stopped waiting for the service."""


class Link:
    """One attempt's way to the service. Safe to share between threads."""

    def __init__(
        self, url: str, token: str, attempt_id: str, handover: Path, on_stale: Callable[[], None]
    ) -> None:
        """`on_stale` is called, from any thread, when the service has disowned the attempt."""
        self.client = Client(url, token)
        self.attempt_id = attempt_id
        self.is_stale = threading.Event()
        self.is_unauthorized = False
        self._handover = handover
        self._on_stale = on_stale

    def call(self, method: str, route: str, value: Any = None, **options: Any) -> Any:
        """Call `/v1/attempts/<id>/<route>` once.

        Raises:
            Unreachable: no usable answer.
            Refused: a 4xx answer other than the next.
            Stale: the service has disowned the attempt.
        """
        if self.is_stale.is_set():
            raise Stale(self.attempt_id)
        path = f"/v1/attempts/{self.attempt_id}/{route}"
        try:
            return self.client.call(method, path, value, **options)
        except Refused as error:
            self._notice(error)
            raise

    def download(self, url: str, write: Callable[[bytes], object]) -> None:
        """Fetch what an assignment names. Raises as `call`."""
        try:
            self.client.download(url, write)
        except Refused as error:
            self._notice(error)
            raise

    def call_patiently(
        self,
        method: str,
        route: str,
        value: Any = None,
        *,
        wait: Callable[[float], bool],
        body: Body = None,
        size_bytes: int = 0,
        timeout_s: float = 10.0,
    ) -> Any:
        """Call until there is an answer. `wait(seconds)` pauses and says True to give up.

        Raises:
            Refused, Stale: as `call`.
            GivenUp: `wait` said so.
        """
        options: dict[str, Any] = {"timeout_s": timeout_s}
        if body is not None:
            options.update(body=body, size_bytes=size_bytes)
        return patiently(lambda: self.call(method, route, value, **options), wait)

    def renew_token(self, token: str) -> None:
        """Use a new token from now on, and leave it where a salvage finds it."""
        if token == self.client.token:
            return
        self.client.token = token
        handover = find_json(self._handover)
        if handover is not None:
            with contextlib.suppress(OSError):  # a full disk must not cost the lease
                write_json(self._handover, {**handover, "token": token})

    def _notice(self, error: Refused) -> None:
        if error.is_stale or error.is_unauthorized:
            self.is_unauthorized = error.is_unauthorized
            self.is_stale.set()
            self._on_stale()
            raise Stale(str(error)) from error


def patiently(call: Callable[[], Any], wait: Callable[[float], bool]) -> Any:
    """Repeat the call while the service is away; `wait` pauses and says True to give up."""
    backoff = Backoff()
    failures = 0
    while True:
        try:
            return call()
        except Unreachable as error:
            failures += 1
            if wait(backoff.pause_s(failures, error.retry_after_s)):
                raise GivenUp(str(error)) from error
