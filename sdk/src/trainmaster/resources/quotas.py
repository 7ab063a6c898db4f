"""Who may use how much, and has: queues, quotas, usage."""

from __future__ import annotations

from typing import Any

from trainmaster._calls import Call, body_of
from trainmaster._pages import Page, fetch_page
from trainmaster._transport import Transport
from trainmaster.documents import Queue, Quota, Usage
from trainmaster.resources.addresses import Ref, path_to
from trainmaster.resources.cluster import Collection

_PATCH = {"Content-Type": "application/merge-patch+json"}


class Queues(Collection[Queue]):
    """Lines in front of pools. `client.queues`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "queues", Queue.parse)

    def create(self, name: str, *, pool: str, open: bool = True) -> Queue:
        """Make a queue in front of a pool; needs an admin key."""
        document = {"name": name, "pool": pool, "open": open}
        return Queue.parse(self._transport.post("/v1/queues", document).json())

    def close(self, name: str) -> Queue:
        """Start no more of its jobs; what runs goes on. Needs an admin key."""
        return self._set_open(name, is_open=False)

    def open(self, name: str) -> Queue:
        """Start its jobs again; needs an admin key."""
        return self._set_open(name, is_open=True)

    def _set_open(self, name: str, *, is_open: bool) -> Queue:
        body = body_of({"open": is_open})
        call = Call(method="PATCH", path=path_to("queues", name), headers=_PATCH, body=body)
        return Queue.parse(self._transport.send(call).json())


class Quotas(Collection[Quota]):
    """What projects and their users may use. `client.quotas`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "quotas", Quota.parse)

    def create(self, project: str, *, user: str | None = None, **fields: Any) -> Quota:
        """Set the quota of a project, or of one user of it (a key's id); needs an admin key."""
        document = {"project": project, "user": user, **fields}
        return Quota.parse(self._transport.post("/v1/quotas", document).json())

    def update(self, quota: Ref, *, if_match: str | None = None, **changes: Any) -> Quota:
        """Change fields of a quota; needs an admin key.

        A `Quota` is changed only if it is still as it was read; an id, or `if_match="*"`, is
        changed whatever it is now.

        Raises:
            PreconditionFailedError: it changed in between; read it again.
        """
        tag = if_match or (quota.etag if isinstance(quota, Quota) else None)
        headers = _PATCH if tag is None else {**_PATCH, "If-Match": tag}
        path = path_to("quotas", quota)
        call = Call(method="PATCH", path=path, headers=headers, body=body_of(changes))
        return Quota.parse(self._transport.send(call).json())

    def delete(self, quota: Ref) -> None:
        """Take a quota away: neither guarantee nor limit from now on. Needs an admin key."""
        self._transport.send(Call(method="DELETE", path=path_to("quotas", quota)))


class UsageRecords:
    """What projects and their users have used. `client.usage`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        month: str | None = None,
        project: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Usage]:
        """Return a page of one month's use, the present month's unless given (`2031-05`)."""
        query = {"month": month, "project": project, "limit": limit, "after": after}
        return fetch_page(self._transport, "/v1/usage", query, Usage.parse)
