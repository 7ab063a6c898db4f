"""A node and its supervisor as the service sees them: the HTTP worker protocol, without processes.

With it a benchmark holds a real attempt, with its token and its epoch, and nothing runs.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 60.0


class Caller:
    """One connection that is kept, with one credential."""

    def __init__(self, port: int, credential: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        self._headers = {
            "Authorization": f"Bearer {credential}",
            "Content-Type": "application/json",
        }

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer.

        Raises:
            RuntimeError: the answer is no success.
        """
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if not 200 <= response.status < 300:
            raise RuntimeError(f"{method} {path} answered {response.status}: {answer[:500]!r}")
        return answer

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """Return the document of the answer."""
        return json.loads(self.send("POST", path, json.dumps(document).encode()))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True)
class HeldAttempt:
    """An attempt that runs as far as the service knows."""

    id: str
    token: str


class PretendedNode:
    """A node of one's own in a pool of its own."""

    def __init__(self, port: int, admin_key: str, *, pool: str) -> None:
        joining = Caller(port, admin_key)
        joined = joining.post("/v1/nodes", {"name": f"{pool}-node", "pool": pool})
        joining.close()
        self._port = port
        self._caller = Caller(port, joined["credential"])
        self._path = f"/v1/nodes/{joined['id']}/heartbeat"
        self._supervisors: list[dict[str, Any]] = []
        self.beat()

    def beat(self, *, wait_s: float = 0.0) -> Any:
        """Say that the node and its supervisors are well; return what is wanted of it."""
        return self._caller.post(
            f"{self._path}?wait={wait_s:g}",
            {
                "boot_id": "bench",
                "version": "bench",
                "address": "127.0.0.1",
                "capacity": {"cpu_milli": 64_000, "memory_mib": 64_000, "gpus": []},
                "supervisors": self._supervisors,
                "ended": [],
                "health": {},
            },
        )

    def take_attempt(self, *, within_s: float = 30.0) -> HeldAttempt:
        """Return the next attempt that the service wants here, as running."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for wanted in self.beat(wait_s=1.0)["assignments"]:
                self._supervisors.append(
                    {"attempt_id": wanted["attempt_id"], "epoch": wanted["epoch"]}
                )
                attempt = HeldAttempt(wanted["attempt_id"], wanted["token"])
                self.renew(attempt)
                return attempt
        raise RuntimeError(f"no attempt came within {within_s:g} s")

    def renew(self, attempt: HeldAttempt) -> None:
        """Renew the lease of an attempt whose one rank runs."""
        caller = Caller(self._port, attempt.token)
        caller.post(
            f"/v1/attempts/{attempt.id}/lease",
            {
                "phase": "running",
                "message": None,
                "progress": None,
                "ranks": [{"rank": 0, "pid": 1, "state": "running"}],
                "rendezvous": None,
            },
        )
        caller.close()
