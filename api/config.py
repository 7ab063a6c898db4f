"""What the HTTP side needs to know, as values. Knows no environment and no file format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """The clocks of the worker protocol, in seconds."""

    heartbeat_seconds: float = 5.0
    lease_seconds: float = 60.0
    fence_seconds: float = 50.0
    grace_seconds: float = 30.0
    attempt_token_seconds: float = 600.0

    @property
    def silence_max(self) -> timedelta:
        """How long a node that works may be silent: two heartbeats may be lost on the way."""
        return timedelta(seconds=3 * self.heartbeat_seconds + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """Everything that `create_app` takes beside the database.

    Attributes:
        storage_dir: folder of uploaded files and checkpoints.
        recipes_dir: folder of the recipes' descriptions, one JSON file each.
        signing_key: secret that signs cursors and attempt tokens, at least 32 bytes.
        input_roots: directories that `dir:` inputs may name.
        allowed_hosts: host names that requests may name, without ports; `*` allows any.
    """

    storage_dir: Path
    recipes_dir: Path
    signing_key: bytes
    timers: Timers = Timers()
    input_roots: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "::1", "localhost")
    version: str = "0.0.0"

    def __post_init__(self) -> None:
        """Refuse a key that can be guessed."""
        if len(self.signing_key) < 32:
            raise ValueError("the signing key has fewer than 32 bytes")
