"""Where the ranks of a gang meet, on one node and on several."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from workers.supervisor.assignment import parse_assignment
from workers.supervisor.environment import Gang
from workers.supervisor.layout import Handover, RunFolder
from workers.supervisor.lease import Lease
from workers.supervisor.link import GivenUp
from workers.supervisor.starting import Starter


class FakeLease:
    """Hears what is said; the service's answer is set by the test."""

    def __init__(self, rendezvous: dict[str, Any] | None = None) -> None:
        self.rendezvous = rendezvous
        self.said: list[dict[str, Any]] = []

    def say(self, **changes: Any) -> None:
        self.said.append(changes)

    def renew_now(self) -> None:
        self.said.append({})


def meet(lease: FakeLease, *, node_rank: int, num_nodes: int) -> Gang:
    cluster = [
        {"node_rank": node, "address": f"127.0.0.{node + 1}", "ranks": [2 * node, 2 * node + 1]}
        for node in range(num_nodes)
    ]
    assignment = parse_assignment(
        {
            "job_id": "job_1", "job_name": "j", "project": "default", "number": 1, "spec": {},
            "world_size": 2 * num_nodes, "node_rank": node_rank, "num_nodes": num_nodes,
            "ranks": [
                {"rank": 2 * node_rank + local, "local_rank": local, "gpu_indices": []}
                for local in (0, 1)
            ],
            "cluster": cluster, "rendezvous": None, "code": None, "inputs": [],
            "command": {"kind": "module", "module": "m", "args": []},
            "environment": {"python": None, "requirements": []}, "env": {}, "secrets": {},
            "resume": None,
            "timers": {"heartbeat_seconds": 5, "fence_seconds": 50, "grace_seconds": 30},
        }
    )  # fmt: skip
    starter = Starter(
        assignment, RunFolder(Path("/run")), cast("Handover", None), cast("Lease", lease), None,
        pause=lambda _seconds: len(lease.said) > 3,
    )  # fmt: skip
    return starter._meet(None)


def test_one_node_meets_on_loopback_and_each_rank_has_a_port_of_its_own() -> None:
    gang = meet(FakeLease(), node_rank=0, num_nodes=1)

    assert (gang.address, gang.world_size, gang.local_world_size) == ("127.0.0.1", 2, 2)
    ports = {gang.port, *(int(address.split(":")[1]) for address in gang.worker_addresses)}
    assert len(ports) == 3


def test_the_first_of_several_nodes_says_where_to_meet() -> None:
    lease = FakeLease()

    gang = meet(lease, node_rank=0, num_nodes=2)

    assert lease.said == [{"now": True, "rendezvous": {"address": "127.0.0.1", "port": gang.port}}]
    assert [address.split(":")[0] for address in gang.worker_addresses] == [
        "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2",
    ]  # fmt: skip


def test_the_other_nodes_are_told() -> None:
    lease = FakeLease({"address": "127.0.0.1", "port": 4321})

    gang = meet(lease, node_rank=1, num_nodes=2)

    assert (gang.address, gang.port, gang.node_rank) == ("127.0.0.1", 4321, 1)
    assert lease.said == []


def test_waiting_for_the_first_node_ends_when_it_is_pointless() -> None:
    with pytest.raises(GivenUp):
        meet(FakeLease(), node_rank=1, num_nodes=2)
