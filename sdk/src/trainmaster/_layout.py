"""Where each rank of a job stands: which replica, stage, shard and part of a layer is its own.

Pure arithmetic on the four counts of `parallel`; knows nothing of torch. Ranks are laid out with
the replica outermost, `rank = ((data * P + pipeline) * S + shard) * T + tensor`, so that a replica
sits on neighbouring ranks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DIMENSIONS = ("data", "pipeline", "shard", "tensor")  # outermost first


class UnfitLayout(ValueError):
    """The counts of `parallel` are no layout, or not one of so many ranks."""


@dataclass(frozen=True)
class Place:
    """A rank's coordinates, each from 0."""

    data: int
    pipeline: int
    shard: int
    tensor: int


@dataclass(frozen=True)
class Layout:
    """How many ways a job is split; each count is at least 1.

    Attributes:
        data: replicas of the model.
        shard: ranks that divide each parameter, and take different samples.
        tensor: ranks that divide the layers a plan names, and take the same samples.
        pipeline: ranks that have different layers, and take the same samples.
    """

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1

    def __post_init__(self) -> None:
        for name, count in asdict(self).items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UnfitLayout(f"parallel.{name} is {count!r}: give a whole number from 1")

    @classmethod
    def from_description(cls, parallel: Mapping[str, Any] | None, world_size: int) -> Layout:
        """Return the layout that a run's description asks for.

        Args:
            parallel: counts by name; what is left out or None is 1. None or nothing is all data
                parallel.
            world_size: ranks of the job.

        Raises:
            UnfitLayout: a name or count is unknown, or the product is not `world_size`.
        """
        if not parallel:
            return cls(data=world_size)
        unknown = sorted(set(parallel) - set(DIMENSIONS))
        if unknown:
            raise UnfitLayout(
                f"parallel.{unknown[0]} is unknown: a job is split by {', '.join(DIMENSIONS)}"
            )
        layout = cls(**{name: count for name, count in parallel.items() if count is not None})
        if layout.size != world_size:
            product = " x ".join(f"{name} {count}" for name, count in layout.counts().items())
            raise UnfitLayout(
                f"parallel is {product} = {layout.size} ranks, the job has {world_size}: "
                "make `workers` their product"
            )
        return layout

    @property
    def size(self) -> int:
        """Ranks of all replicas."""
        return math.prod(self.counts().values())

    @property
    def replica_size(self) -> int:
        """Ranks of one replica."""
        return self.pipeline * self.shard * self.tensor

    @property
    def shares(self) -> int:
        """Into how many parts a batch is divided."""
        return self.data * self.shard

    @property
    def is_split(self) -> bool:
        """Whether a replica is more than one rank."""
        return self.replica_size > 1

    def counts(self) -> dict[str, int]:
        """Return the count of each dimension, outermost first."""
        return {name: getattr(self, name) for name in DIMENSIONS}

    def replica(self) -> Layout:
        """Return the layout of one replica, which is a world of its own."""
        return replace(self, data=1)

    def place(self, rank: int) -> Place:
        """Return where a rank stands."""
        if not 0 <= rank < self.size:
            raise UnfitLayout(f"there is no rank {rank} among {self.size}")
        rest, tensor = divmod(rank, self.tensor)
        rest, shard = divmod(rest, self.shard)
        data, pipeline = divmod(rest, self.pipeline)
        return Place(data, pipeline, shard, tensor)

    def rank(self, place: Place) -> int:
        """Return who stands there."""
        row = (place.data * self.pipeline + place.pipeline) * self.shard + place.shard
        return row * self.tensor + place.tensor

    def share(self, rank: int) -> int:
        """Return which of the `shares` parts of a batch a rank takes."""
        place = self.place(rank)
        return place.data * self.shard + place.shard

    def is_share_head(self, rank: int) -> bool:
        """Whether a rank is the one that speaks for its share: the first that takes it."""
        place = self.place(rank)
        return place.pipeline == 0 and place.tensor == 0

    def randomness(self, rank: int) -> int:
        """Return which random stream a rank draws from, 0 up to `size // tensor`.

        The ranks that divide a layer draw the same numbers: what they have in whole, such as what
        dropout leaves over, has to be equal. Everybody else draws others.
        """
        return rank // self.tensor
