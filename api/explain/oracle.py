"""Who knows the scheduler's view: handed in where the service is put together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Protocol

from fastapi import Depends, Request

from scheduler.core.explain import Running, Waiting
from scheduler.core.spec import JobSpec


class Oracle(Protocol):
    """Says why jobs wait and when they start or end."""

    def explain(self, job_id: str, *, version: int, now: datetime) -> Waiting | Running | None:
        """Return what is known of a job that waits or holds places, None for any other.

        Args:
            version: of its row, as the caller has read it.
        """

    def simulate(
        self,
        spec: JobSpec,
        *,
        project_id: str,
        project: str,
        user: str,
        waits_for: tuple[str, ...],
        now: datetime,
    ) -> Waiting:
        """Return the same for a job that would be submitted now; `spec` has its name."""


async def _oracle(request: Request) -> Oracle | None:
    oracle: Oracle | None = request.app.state.oracle
    return oracle


OracleDep = Annotated[Oracle | None, Depends(_oracle)]
"""None where the app was made without one: answers then lack what only it knows."""
