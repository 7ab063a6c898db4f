"""Replicas joined by servers: the outer group of a training, in every mode but `allreduce`."""

from trainmaster.train.outer.joined import Joined
from trainmaster.train.outer.joining import MODES, join_outer

__all__ = ["MODES", "Joined", "join_outer"]
