"""The client: one connection pool, and the tree of resources on it.

    from trainmaster import Client

    with Client() as client:
        job = client.jobs.submit(recipe="image-classifier", workers=2, config={"epochs": 3})
        job = client.jobs.wait(job)

Safe to share between threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import httpx

from trainmaster._errors import APIError
from trainmaster._settings import load_settings
from trainmaster._transport import Transport
from trainmaster.resources.checkpoints import Checkpoints
from trainmaster.resources.cluster import Keys, Nodes, Pools, Projects, Recipes
from trainmaster.resources.files import Files
from trainmaster.resources.jobs import Jobs
from trainmaster.resources.quotas import Queues, Quotas, UsageRecords
from trainmaster.resources.verifications import Verifications


class Client:
    """Talks to one Trainmaster service.

    Args:
        url: the service's address; else TRAINMASTER_URL, the stored login, http://127.0.0.1:8700.
        api_key: the key; else TRAINMASTER_API_KEY, the stored login, or for a service on this
            machine its admin key. It is sent to this address and to no other, redirects included.
        timeout_seconds: for each wait within one try, and for reading a whole answer.
        retry_seconds: how long one call goes on trying while the service is away or busy.
        on_retry: told the error and the delay in seconds before each new try.
        http, clock, sleep, jitter: replace the network, time and chance, for tests.

    Raises:
        ConfigurationError: the address or the key cannot be right.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        on_retry: Callable[[APIError, float], None] | None = None,
        http: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._transport = Transport(
            load_settings(url, api_key),
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            on_retry=on_retry,
            http=http,
            clock=clock,
            sleep=sleep,
            jitter=jitter,
        )
        self.files = Files(self._transport)
        self.jobs = Jobs(self._transport, self.files)
        self.checkpoints = Checkpoints(self._transport)
        self.verifications = Verifications(self._transport)
        self.nodes = Nodes(self._transport)
        self.pools = Pools(self._transport)
        self.queues = Queues(self._transport)
        self.quotas = Quotas(self._transport)
        self.usage = UsageRecords(self._transport)
        self.recipes = Recipes(self._transport)
        self.projects = Projects(self._transport)
        self.keys = Keys(self._transport)

    @property
    def url(self) -> str:
        """The address in use."""
        return self._transport.settings.url

    @property
    def api_key(self) -> str | None:
        """The key in use, None without one."""
        return self._transport.settings.api_key

    def version(self) -> Mapping[str, Any]:
        """Return the version of the service; needs no key."""
        document: Mapping[str, Any] = self._transport.get("/version")
        return document

    def is_ready(self) -> bool:
        """Whether the service can do its work now; one try, raises nothing."""
        try:
            self._transport.get("/readyz", retry_seconds=0)
        except APIError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"
