"""What the outer group costs: bytes by phase, and seconds waited by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Snapshot:
    """Counts since the beginning, of this replica.

    Attributes:
        sent: bytes of tensors as they travelled, by phase: begin, round, push, pull, talk, data.
        received: likewise.
        framed_sent: bytes given to the sockets: the same with heads and padding.
        framed_received: likewise.
        transfer_s: waited for bytes to come and go, and for a server to compute.
        straggler_s: waited for other replicas, in rounds and talk, or for a piece of the data.
        gate_s: waited because this replica was too far ahead.
        rounds: rounds, or pushes, that this replica took part in.
        staleness: how many gradients of others came between a read and its push, how often.
        gaps: how many pushes ahead of the slowest a read was, how often.
    """

    sent: dict[str, int]
    received: dict[str, int]
    framed_sent: int
    framed_received: int
    transfer_s: float
    straggler_s: float
    gate_s: float
    rounds: int
    staleness: dict[int, int]
    gaps: dict[int, int]


@dataclass
class Counters:
    """The counts, as they grow."""

    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    framed_sent: int = 0
    framed_received: int = 0
    transfer_s: float = 0.0
    straggler_s: float = 0.0
    gate_s: float = 0.0
    rounds: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    gaps: Counter[int] = field(default_factory=Counter)

    def snapshot(self) -> Snapshot:
        """Return a copy that does not change."""
        return Snapshot(
            dict(self.sent),
            dict(self.received),
            self.framed_sent,
            self.framed_received,
            self.transfer_s,
            self.straggler_s,
            self.gate_s,
            self.rounds,
            dict(self.staleness),
            dict(self.gaps),
        )
