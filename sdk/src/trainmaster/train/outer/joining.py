"""From a job's `sync` to a replica joined in that mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainmaster._communication import EVERY
from trainmaster._job_errors import RunError
from trainmaster.train.outer.anchor import OUTER_LR, OUTER_MOMENTUM
from trainmaster.train.outer.joined import Joined, Seat
from trainmaster.train.outer.link import Alone, Link, Wires
from trainmaster.train.outer.local_rounds import LocalRounds
from trainmaster.train.outer.parameter_server import ParameterServer
from trainmaster.train.outer.rendezvous import Surroundings, meet

if TYPE_CHECKING:
    from collections.abc import Mapping

MODES = ("local_sgd", "diloco", "parameter_server")


def join_outer(
    description: Mapping[str, Any],
    places: Mapping[str, str],
    *,
    replica: int,
    num_replicas: int,
    slot: int = 0,
    num_slots: int = 1,
) -> Joined:
    """Join the other replicas in the mode that a run's description asks for.

    Returns when the servers are found; the replicas wait for each other before the first batch.
    One replica alone computes the same, in its own process and without a socket.

    Args:
        description: the run's: `sync`, and in `outer` what the service adds: `token`, `attempt`.
        places: the environment, for MASTER_ADDR, MASTER_PORT and torchrun's own.
        replica: number of this replica.
        num_replicas: how many begin.
        slot: number of this rank within its replica.
        num_slots: ranks of a replica.

    Raises:
        RunError: the servers are not found, or `sync` asks for what is not there.
    """
    sync = description.get("sync") or {}
    mode = sync.get("mode")
    num_servers = int(sync.get("servers") or 1) if mode == "parameter_server" else 1
    num_ranks = num_replicas * num_slots
    if num_servers > num_ranks:
        raise RunError(
            f"sync.servers = {num_servers} with {num_ranks} ranks: there is a server beside a "
            "rank, so at most as many"
        )
    link: Link = Alone(num_servers)
    if num_replicas > 1:
        surroundings = Surroundings.read(replica * num_slots + slot, description, places)
        meeting = meet(surroundings, num_servers, num_replicas)
        link = Wires(meeting.addresses, meeting.token, replica, slot)
    try:
        return make_joined(sync, link, Seat(replica, num_replicas))
    except ValueError as error:
        link.close()
        raise RunError(f"sync: {error}") from error


def make_joined(sync: Mapping[str, Any], link: Link, seat: Seat) -> Joined:
    """Return the mode that a job's `sync` names, on a link.

    Raises:
        ValueError: there is no such mode, or it has no such settings.
    """
    mode, compression = sync.get("mode"), sync.get("compression")
    if mode in ("local_sgd", "diloco"):
        is_diloco = mode == "diloco"
        return LocalRounds(
            link,
            seat,
            every=sync.get("every") or EVERY,
            outer_lr=_given(sync, "outer_lr", OUTER_LR if is_diloco else 1.0),
            outer_momentum=_given(sync, "outer_momentum", OUTER_MOMENTUM if is_diloco else 0.0),
            fragments=sync.get("fragments") or 1,
            compression=compression,
        )
    if mode == "parameter_server":
        return ParameterServer(
            link,
            seat,
            staleness=sync.get("staleness"),
            compensation=_given(sync, "compensation", 0.0),
            guard=_given(sync, "guard", True),
            compression=compression,
        )
    raise ValueError(
        f"mode {mode!r} is none of {', '.join(MODES)}: name one of these, or leave sync out "
        "to average the gradients of each step (allreduce)"
    )


def _given(sync: Mapping[str, Any], name: str, default: Any) -> Any:
    value = sync.get(name)
    return default if value is None else value
