"""Verifications of resume: `client.verifications`, and `client.jobs.verify_resume`."""

from __future__ import annotations

from collections.abc import Callable

from trainmaster._calls import Call, Query
from trainmaster._errors import WaitTimeout
from trainmaster._pages import Page, fetch_page
from trainmaster._transport import Transport
from trainmaster.documents import Verification
from trainmaster.resources.addresses import Ref, path_to

_LONG_POLL_SECONDS = 30.0
_LONG_POLL_SLACK_SECONDS = 15.0
_SHORTEST_POLL_SECONDS = 0.5


class Verifications:
    """What was found out about how well jobs resume."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, verification: Ref) -> Verification:
        """Return a verification as it is now."""
        return Verification.parse(self._transport.get(path_to("verifications", verification)))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Verification]:
        """Return a page of verifications, newest first; iterate over it for all of them."""
        query: Query = {"limit": limit, "after": after}
        return fetch_page(self._transport, "/v1/verifications", query, Verification.parse)

    def cancel(self, verification: Ref) -> Verification:
        """Cancel the job that it waits for, which ends it."""
        path = path_to("verifications", verification, "cancel")
        return Verification.parse(self._transport.post(path).json())

    def wait(
        self,
        verification: Ref,
        *,
        timeout_seconds: float | None = None,
        outage_seconds: float = 600.0,
        on_change: Callable[[Verification], None] | None = None,
    ) -> Verification:
        """Wait until the verdict is there, and return the verification.

        Args:
            verification: the verification, or its id.
            timeout_seconds: how long to wait; None: as long as it takes.
            outage_seconds: how long the service may be away at a stretch.
            on_change: told each new version, the first one included.

        Raises:
            WaitTimeout: the time is over; the jobs go on.
        """
        clock = self._transport.clock
        expires_at = None if timeout_seconds is None else clock() + timeout_seconds
        known_version = -1
        query: Query = {}
        seconds = 0.0
        while True:
            asked_at = clock()
            call = Call(
                method="GET",
                path=path_to("verifications", verification),
                query=query,
                timeout_seconds=seconds + _LONG_POLL_SLACK_SECONDS,
            )
            reply = self._transport.send(call, retry_seconds=outage_seconds)
            current = Verification.parse(reply.json())
            if current.version != known_version and on_change is not None:
                on_change(current)
            if current.is_finished:
                return current
            if current.version == known_version:
                # A server that does not hold the request must not be asked in a busy loop.
                pause = min(seconds, _SHORTEST_POLL_SECONDS) - (clock() - asked_at)
                if pause > 0:
                    self._transport.sleep(pause)
            known_version = current.version
            left = _LONG_POLL_SECONDS if expires_at is None else expires_at - clock()
            if left <= 0:
                raise WaitTimeout(
                    f"{current.id} has no verdict after {timeout_seconds:g} s; its jobs go on"
                )
            seconds = min(_LONG_POLL_SECONDS, left)
            query = {"wait": max(1, int(seconds)), "after_version": known_version}
