"""The store in which the processes of a job find each other: where it is, and whose words count.

Whoever started the ranks keeps it, or a server beside rank 0. Knows nothing of what is said in it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch.distributed import PrefixStore, TCPStore

from trainmaster._job_errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

MEET_TIMEOUT_S = 600.0  # for the slowest rank to start


def name_start(description: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """Return what tells one start of all ranks from another.

    A store may outlive the ranks that spoke in it: those that are started again must not take the
    addresses of the dead for their peers'.

    Args:
        description: the run's; the service says in `outer` which attempt this is.
        places: the environment, where torchrun counts its restarts.
    """
    attempt = (description.get("outer") or {}).get("attempt", "")
    return f"{attempt}/{places.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def open_store(address: str, port: int, rank: int, prefix: str) -> PrefixStore:
    """Return the part of the job's store whose names begin with `prefix`.

    What is asked of it is waited for as long as for the store itself, MEET_TIMEOUT_S.

    Raises:
        RunError: nobody keeps a store there.
    """
    timeout = timedelta(seconds=MEET_TIMEOUT_S)
    try:
        store = TCPStore(address, port, is_master=False, timeout=timeout)
    except RuntimeError as error:  # torch's own errors are of this kind
        raise RunError(
            f"rank {rank} finds no store at {address}:{port} within {MEET_TIMEOUT_S:.0f} s "
            f"({error}): see that rank 0 runs, and that MASTER_ADDR and MASTER_PORT name its host "
            "and a port that the other machines can reach"
        ) from error
    return PrefixStore(prefix, store)
