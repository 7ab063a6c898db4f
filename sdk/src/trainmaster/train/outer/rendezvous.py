"""How ranks find the servers, and which of them start one."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainmaster._job_errors import RunError
from trainmaster.train import store as stores
from trainmaster.train.outer.serve import Settings, start_server
from trainmaster.train.outer.server import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Surroundings:
    """Where this process is among all, as torchrun and the service describe it.

    Attributes:
        rank: number of this process.
        address: host of rank 0.
        port: the port there that is the job's.
        has_store: whether whoever started the ranks keeps a store at that port.
        attempt: tells one start of all ranks from another.
        token: the job's secret, in hexadecimal; None to make one up.
        grace_s: how long servers wait when nobody is there.
    """

    rank: int
    address: str
    port: int
    has_store: bool
    attempt: str
    token: str | None = None
    grace_s: float = GRACE_S

    @classmethod
    def read(cls, rank: int, description: Mapping[str, Any], places: Mapping[str, str]) -> Any:
        """Return what a run's description and the environment say.

        Raises:
            RunError: they do not say where rank 0 is.
        """
        try:
            address, port = places["MASTER_ADDR"], int(places["MASTER_PORT"])
        except (KeyError, ValueError) as error:
            raise RunError(
                "several replicas need MASTER_ADDR and MASTER_PORT in the environment: start them "
                "with torchrun, or as a job of the service"
            ) from error
        outer = description.get("outer") or {}
        return cls(
            rank,
            address,
            port,
            places.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            stores.name_start(description, places),
            outer.get("token"),
            float(outer.get("grace_s", GRACE_S)),
        )


@dataclass(frozen=True)
class Meeting:
    """What a rank must know to join.

    Attributes:
        addresses: host and port of each server.
        token: the job's secret.
        store: where ranks may agree on more, such as how the ranks of a replica meet.
    """

    addresses: list[tuple[str, int]]
    token: bytes
    store: Any


def meet(surroundings: Surroundings, num_servers: int, num_replicas: int) -> Meeting:
    """Find the servers; ranks below `num_servers` start the one beside them, if it is not there.

    A server outlives its rank: a rank that is started again finds it at work.

    Raises:
        RunError: they do not come together.
    """
    rank = surroundings.rank
    token = surroundings.token
    port: int | None = None
    if rank == 0 and not surroundings.has_store and not _answers(surroundings):
        token = token or secrets.token_hex(32)
        here = (surroundings.address, surroundings.port)
        port = _start(surroundings, num_replicas, token, here)
    prefix = f"trainmaster/outer/{surroundings.attempt}"
    store = stores.open_store(surroundings.address, surroundings.port, rank, prefix)
    if rank == 0 and not store.check(["token"]):
        store.set("token", "given" if surroundings.token else token or secrets.token_hex(32))
    said = _hear(store, "token", "the secret of the servers", 0)
    token = surroundings.token or said
    if rank < num_servers and not store.check([f"server/{rank}"]):
        if port is None:
            port = _start(surroundings, num_replicas, token, None)
        store.set(f"server/{rank}", f"{_own_address(surroundings)} {port}")
    addresses = []
    for server in range(num_servers):
        said = _hear(store, f"server/{server}", f"where server {server} listens", server)
        host, _, number = said.rpartition(" ")
        addresses.append((host, int(number)))
    return Meeting(addresses, bytes.fromhex(token), store)


def _start(
    surroundings: Surroundings, num_replicas: int, token: str, store: tuple[str, int] | None
) -> int:
    host = _own_address(surroundings)
    return start_server(
        Settings(surroundings.rank, num_replicas, token, host, store, surroundings.grace_s)
    )


def _answers(surroundings: Surroundings) -> bool:
    """Whether there is something at the job's port: then it is a server of before."""
    try:
        address = (surroundings.address, surroundings.port)
        with socket.create_connection(address, timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _hear(store: Any, key: str, what: str, speaker: int) -> str:
    """Wait for what a rank says in the store."""
    try:
        return str(store.get(key).decode())
    except RuntimeError as error:
        raise RunError(
            f"rank {speaker} has not said {what} within {stores.MEET_TIMEOUT_S:.0f} s ({error}): "
            "its log tells why; start all ranks at about the same time"
        ) from error


def _own_address(surroundings: Surroundings) -> str:
    """Return the address of this machine on the way to rank 0; sends nothing."""
    kind, _, _, _, address = socket.getaddrinfo(
        surroundings.address, surroundings.port, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
