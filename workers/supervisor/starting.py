"""Start an attempt's ranks: where they are forked from, how they meet, what they are told."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.supervisor import preloading
from workers.supervisor.assignment import Assignment
from workers.supervisor.cgroup import Cgroup
from workers.supervisor.environment import (
    Gang,
    RankPlace,
    build_environment,
    find_read_at_start,
)
from workers.supervisor.failures import CannotStart
from workers.supervisor.files import open_regular
from workers.supervisor.interpreter import SYSTEM_PATH, Interpreters
from workers.supervisor.layout import Handover, NodeFolder, RunFolder
from workers.supervisor.lease import Lease
from workers.supervisor.link import GivenUp
from workers.supervisor.ranks import NurseryFailed, Ranks, open_nursery
from workers.supervisor.replacing import may_be_replaced

_LOOPBACK = "127.0.0.1"
# Packages that are preloaded and cannot be imported twice in one process.
_NEVER_TWICE = frozenset({"torch", "numpy", "trainmaster", "sklearn", "scipy", "safetensors"})
_RENDEZVOUS_LOOK_S = 0.2
# A preloader holds 300 MB. The daemon keeps the default project's alive for longer.
_PRELOADER_IDLE_S = 900.0


@dataclass
class Starter:
    """Starts the ranks of one run on this node."""

    assignment: Assignment
    run: RunFolder
    handover: Handover
    lease: Lease
    cgroup: Cgroup | None
    pause: Callable[[float], bool]
    _orders: dict[int, dict[str, Any]] = field(default_factory=dict)

    def start(self) -> Ranks:
        """Start them all and return them.

        Raises:
            CannotStart: the job asks for what cannot be started.
            GivenUp: `pause` said so while another node was waited for.
        """
        self._check_command()
        python = self._find_python()
        ranks, in_place = self._open_nursery(python)
        listener = self._listen() if in_place and self._wants_store(ranks) else None
        try:
            self._start_ranks(ranks, python, in_place, listener)
        except BaseException:
            ranks.end_everything()
            raise
        finally:
            if listener is not None:
                listener.close()
        return ranks

    def start_again(self, ranks: Ranks, rank: int) -> None:
        """Start a rank once more, as before; none that serves the gang's store."""
        self._start_rank(ranks, self._orders[rank], rank, [])

    def _check_command(self) -> None:
        command = self.assignment.command
        if command.kind == "script" and not (self.run.code / command.target).is_file():
            raise CannotStart(
                "SetupFailed",
                f"the code has no file {command.target}: name one of its files as entrypoint",
            )

    def _find_python(self) -> Path:
        first = min(place.rank for place in self.assignment.places)
        interpreters = Interpreters(
            default=self.handover.job_python,
            environments=NodeFolder(self.handover.node_dir).environments,
            log=self.run.log(first, "stderr"),
            run_file=self.run.run_file,
            cgroup=self.cgroup,
            pause=self.pause,
        )
        if self.assignment.requirements:
            self.lease.say(now=True, message="preparing the environment")
        python = interpreters.find(self.assignment.python, self.assignment.requirements)
        self.lease.say(message=None)
        return python

    def _open_nursery(self, python: Path) -> tuple[Ranks, bool]:
        """Return a nursery, and whether it runs programs in place."""
        servers: list[tuple[Path | None, bool]] = [
            (self.handover.zygote, False),
            (None, False),
        ]
        if python == self.handover.job_python and self._may_fork():
            preloader = self.handover.preloader_socket(self.assignment.project)
            preloading.ensure(self.handover, self.assignment.project, idle_s=_PRELOADER_IDLE_S)
            servers.insert(0, (preloader, True))
        for server, in_place in servers:
            try:
                ranks = open_nursery(
                    server,
                    self.handover.library,
                    run_file=self.run.run_file,
                    cgroup=self.cgroup,
                    fence_at_s=self.lease.fence_at_s,
                )
            except NurseryFailed as error:
                sys.stderr.write(f"no nursery: {error}\n")
            else:
                ranks.move_fence(self.lease.fence_at_s)  # getting there may have taken long
                return ranks, in_place
        raise CannotStart("NodeFailure", "no process to hold the ranks could be started")

    def _may_fork(self) -> bool:
        """Whether a forked rank is the same to the user's program as an executed one."""
        if find_read_at_start(self.assignment.env) is not None:
            return False
        names = {entry.name.partition(".")[0] for entry in self.run.code.iterdir()}
        return not names & _NEVER_TWICE

    def _wants_store(self, ranks: Ranks) -> bool:
        """Whether rank 0 serves the gang's store; other frameworks may want the port themselves.

        Where rank 0 may be started again, it must not go with it: a server keeps it.
        """
        if may_be_replaced(self.assignment):
            return False
        is_torch = self.assignment.spec.get("framework") in (None, "torch")
        is_gang = self.assignment.world_size > 1 and self.assignment.num_nodes == 1
        return ranks.has_store and is_torch and is_gang

    def _listen(self) -> socket.socket:
        return socket.create_server((_LOOPBACK, 0), backlog=1024)

    def _start_ranks(
        self, ranks: Ranks, python: Path, in_place: bool, listener: socket.socket | None
    ) -> None:
        gang = self._meet(listener)
        threads = self._count_threads()
        store = {"host": gang.address, "port": gang.port} if listener is not None else None
        for place in self.assignment.places:
            environment = build_environment(
                place,
                gang,
                path=f"{python.parent}:{SYSTEM_PATH}",
                home=str(self.run.home),
                tmp=str(self.run.tmp),
                run_file=str(self.run.run_file),
                threads=threads,
                extra=self.assignment.env,
            )
            serves = listener is not None and place.rank == 0
            order = {
                **self._order(place, python, environment, threads),
                "store": store if serves else None,
            }
            self._orders[place.rank] = order
            extra = [listener.fileno()] if serves and listener is not None else []
            self._start_rank(ranks, order, place.rank, extra)

    def _start_rank(
        self, ranks: Ranks, order: Mapping[str, Any], rank: int, extra: list[int]
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        stdout = open_regular(self.run.log(rank, "stdout"), flags)
        stderr = open_regular(self.run.log(rank, "stderr"), flags)
        try:
            ranks.start(order, [stdout, stderr, *extra])
        finally:
            os.close(stdout)
            os.close(stderr)

    def _order(
        self, place: RankPlace, python: Path, environment: Mapping[str, str], threads: int
    ) -> dict[str, Any]:
        command = self.assignment.command
        how = [command.target] if command.kind == "script" else ["-m", command.target]
        return {
            "rank": place.rank,
            "kind": command.kind,
            "target": command.target,
            "args": list(command.args),
            "argv": [str(python), *how, *command.args],
            "environment": dict(environment),
            "folder": str(self.run.code),
            "cgroup": str(self.cgroup.path) if self.cgroup else None,
            "threads": threads,
            "stacks": str(self.run.stacks / str(place.rank)),
        }

    def _count_threads(self) -> int:
        cpus = (self.assignment.spec.get("resources") or {}).get("cpus")
        return max(1, int(cpus)) if isinstance(cpus, (int, float)) else 1

    def _meet(self, listener: socket.socket | None) -> Gang:
        """Settle where the ranks meet, with the other nodes if there are any."""
        assignment = self.assignment
        is_alone = assignment.num_nodes == 1
        address, port = _LOOPBACK, 0
        workers: list[str] = []
        if listener is not None:
            port = int(listener.getsockname()[1])
        elif is_alone or assignment.node_rank == 0:
            address = _LOOPBACK if is_alone else assignment.cluster[0][0]
            port = _find_free_ports(address, 1)[0]
        if is_alone:
            free = _find_free_ports(_LOOPBACK, assignment.world_size)
            workers = [f"{_LOOPBACK}:{free_port}" for free_port in free]
        else:
            address, port = self._agree(address, port)
            workers = [
                f"{node}:{port + 1 + rank}" for node, ranks in assignment.cluster for rank in ranks
            ]
        return Gang(
            world_size=assignment.world_size,
            node_rank=assignment.node_rank,
            num_nodes=assignment.num_nodes,
            local_world_size=len(assignment.places),
            address=address,
            port=port,
            worker_addresses=tuple(workers),
            is_store_served=listener is not None,
        )

    def _agree(self, address: str, port: int) -> tuple[str, int]:
        """Tell the other nodes where to meet, or wait until node 0 has told."""
        if self.assignment.node_rank == 0:
            self.lease.say(now=True, rendezvous={"address": address, "port": port})
            return address, port
        while True:
            met = self.lease.rendezvous or self.assignment.rendezvous
            if met is not None:
                return str(met["address"]), int(met["port"])
            self.lease.renew_now()
            if self.pause(_RENDEZVOUS_LOOK_S):
                raise GivenUp("node 0 has not said where to meet")


def _find_free_ports(address: str, count: int) -> list[int]:
    """Return ports that are free now; nothing keeps them so until they are used."""
    sockets = [socket.create_server((address, 0)) for _ in range(count)]
    try:
        return [int(server.getsockname()[1]) for server in sockets]
    finally:
        for server in sockets:
            server.close()
