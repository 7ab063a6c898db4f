"""The environment of a rank, built from nothing. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Read while an interpreter or a preloaded library starts: a fork would be too late for them.
_READ_AT_START = (
    "PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "OMP_", "GOMP_", "KMP_", "MKL_",
    "OPENBLAS_", "NUMPY_", "NPY_", "TORCH", "PYTORCH",
)  # fmt: skip


@dataclass(frozen=True)
class Gang:
    """How the ranks of an attempt find each other."""

    world_size: int
    node_rank: int
    num_nodes: int
    local_world_size: int
    address: str
    port: int
    worker_addresses: tuple[str, ...]
    is_store_served: bool


@dataclass(frozen=True)
class RankPlace:
    """One rank on this node."""

    rank: int
    local_rank: int
    gpu_indices: tuple[int, ...]


def build_environment(
    place: RankPlace,
    gang: Gang,
    *,
    path: str,
    home: str,
    tmp: str,
    run_file: str,
    threads: int,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return everything a rank's process has in its environment; the extra cannot override."""
    environment = {
        # First: what finds the rank's descendants looks here, and room may be short.
        "TRAINMASTER_RUN": run_file,
        "PATH": path,
        "HOME": home,
        "LANG": "C.UTF-8",
        "TMPDIR": tmp,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "RANK": str(place.rank),
        "WORLD_SIZE": str(gang.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(gang.local_world_size),
        "GROUP_RANK": str(gang.node_rank),
        "GROUP_WORLD_SIZE": str(gang.num_nodes),
        "MASTER_ADDR": gang.address,
        "MASTER_PORT": str(gang.port),
        "TF_CONFIG": build_tf_config(gang.worker_addresses, place.rank),
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in place.gpu_indices),
    }
    if gang.num_nodes == 1:
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    if gang.is_store_served:
        environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        environment["TORCHELASTIC_RESTART_COUNT"] = "0"
    return {**environment, **{key: extra[key] for key in extra if key not in environment}}


def build_tf_config(worker_addresses: Sequence[str], rank: int) -> str:
    """Return TensorFlow's description of a cluster of equal workers."""
    return json.dumps(
        {
            "cluster": {"worker": list(worker_addresses)},
            "task": {"type": "worker", "index": rank},
        }
    )


def find_read_at_start(extra: Mapping[str, str]) -> str | None:
    """Return a variable of the job's that a forked rank would read too late, if there is one."""
    for key in sorted(extra):
        if key.startswith(_READ_AT_START):
            return key
    return None
