"""Who this node is at the service: register once, keep the credential."""

from __future__ import annotations

import logging

from workers.node.config import NodeConfig
from workers.supervisor.files import find_json, write_json
from workers.supervisor.http import Client
from workers.supervisor.layout import NodeFolder

_log = logging.getLogger("trainmaster.node")


class CannotRegister(Exception):
    """There is neither a credential nor a key to get one with."""


def find_credential(config: NodeConfig) -> tuple[str, str] | None:
    """Return node id and credential from an earlier registration under this name, if any."""
    value = find_json(NodeFolder(config.node_dir).credential)
    if value is None or value.get("name") != config.name:
        return None
    return str(value["node_id"]), str(value["credential"])


def register(config: NodeConfig) -> tuple[str, str]:
    """Register under the configured name; return node id and credential.

    A node that is known gets a new credential, and its old one dies.

    Raises:
        CannotRegister: no admin key was given.
        Refused, Unreachable: the service said no, or nothing.
    """
    if config.admin_key is None:
        raise CannotRegister(
            f"node {config.name} has no credential for {config.url}: start it with an admin key"
        )
    client = Client(config.url, config.admin_key)
    answer = client.call("POST", "/v1/nodes", {"name": config.name, "pool": config.pool})
    client.close()
    node_id, credential = str(answer["id"]), str(answer["credential"])
    write_json(
        NodeFolder(config.node_dir).credential,
        {
            "node_id": node_id,
            "name": config.name,
            "credential": credential,
            "url": config.url,
        },
    )
    _log.info("registered: %s as %s", config.name, node_id)
    return node_id, credential
