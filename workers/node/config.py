"""What a node daemon is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NodeConfig:
    """Everything a daemon needs to know. `python -m workers.node` and api/roles.py make one."""

    url: str
    node_dir: Path
    name: str
    job_python: Path
    pool: str = "default"
    admin_key: str | None = None
    """Needed once, to register; with it a node whose credential has died registers again."""
    cpus: float | None = None
    """CPUs that jobs may take; those of the machine when left out."""
    address: str | None = None
    """Where other nodes reach this one; found out when left out."""
    heartbeat_s: float = 5.0
    fence_s: float = 50.0
    orphan_s: float = 60.0
    """Fork servers leave when no daemon has run for so long."""
    is_embedded: bool = False
    """Whether a service has started this daemon for itself, to end with it."""
    forsaken_s: float = 600.0
    """An embedded daemon without runs leaves when the service has been away for so long."""
    uses_cgroups: bool = True
    preloads_default: bool = True
    """Warm the default project's preloader at start."""
    kept_failed_runs: int = 0
    """How many folders of failed runs are kept for a look."""
    cache_limit_bytes: int = 20 * 1024**3
