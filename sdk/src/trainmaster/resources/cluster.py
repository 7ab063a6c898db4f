"""What the service runs on and offers: nodes, pools, recipes, projects, keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

from trainmaster._calls import Call, body_of
from trainmaster._pages import Page, fetch_page
from trainmaster._transport import Transport
from trainmaster.documents import Key, Node, Pool, Project, Recipe
from trainmaster.resources.addresses import Ref, path_to

T = TypeVar("T")


class Collection(Generic[T]):
    """A list of things that can be read one by one."""

    def __init__(self, transport: Transport, name: str, parse: Callable[[Any], T]) -> None:
        self._transport = transport
        self._name = name
        self._parse = parse

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[T]:
        """Return a page; iterate over it for all."""
        query = {"limit": limit, "after": after}
        return fetch_page(self._transport, f"/v1/{self._name}", query, self._parse)

    def get(self, thing: Ref) -> T:
        """Return one of them."""
        return self._parse(self._transport.get(path_to(self._name, thing)))


class Nodes(Collection[Node]):
    """The machines. `client.nodes`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "nodes", Node.parse)

    def cordon(self, node: Ref) -> Node:
        """Place nothing new on a node."""
        return self._act(node, "cordon")

    def uncordon(self, node: Ref) -> Node:
        """Use a node again; its failures so far are forgotten."""
        return self._act(node, "uncordon")

    def drain(self, node: Ref) -> Node:
        """Place nothing new on a node, and move what runs there away after saving it."""
        return self._act(node, "drain")

    def set_rack(self, node: Ref, rack: str | None) -> Node:
        """Say in which rack a node stands, so that gangs keep together; needs an admin key."""
        headers = {"Content-Type": "application/merge-patch+json"}
        body = body_of({"rack": rack})
        call = Call(method="PATCH", path=path_to("nodes", node), headers=headers, body=body)
        return Node.parse(self._transport.send(call).json())

    def _act(self, node: Ref, action: str) -> Node:
        return Node.parse(self._transport.post(path_to("nodes", node, action)).json())


class Pools(Collection[Pool]):
    """The sets of machines. `client.pools`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "pools", Pool.parse)


class Recipes(Collection[Recipe]):
    """The built-in trainers. `client.recipes`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "recipes", Recipe.parse)


class Projects(Collection[Project]):
    """What jobs and keys belong to. `client.projects`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "projects", Project.parse)

    def create(self, name: str) -> Project:
        """Make a project; needs an admin key."""
        return Project.parse(self._transport.post("/v1/projects", {"name": name}).json())


class Keys(Collection[Key]):
    """API keys; needs an admin key. `client.keys`."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "keys", Key.parse)

    def create(
        self,
        name: str,
        *,
        role: str,
        project: str | None = None,
        expires_at: datetime | None = None,
    ) -> Key:
        """Make a key for a role: `viewer`, `member` or `admin`. Its secret is shown only here.

        Raises:
            APIConnectionError: no answer came; a key may have been made all the same, so look at
                the list and revoke it.
        """
        document: dict[str, Any] = {"name": name, "role": role}
        if project is not None:
            document["project"] = project
        if expires_at is not None:
            document["expires_at"] = expires_at.isoformat()
        # Sent once: of two keys made by two tries, one would open doors and be known to nobody.
        headers = {"Content-Type": "application/json"}
        call = Call(method="POST", path="/v1/keys", headers=headers, body=body_of(document))
        return Key.parse(self._transport.send(call).json())

    def delete(self, key: Ref) -> None:
        """Revoke a key; it opens nothing from now on."""
        self._transport.send(Call(method="DELETE", path=path_to("keys", key)))
