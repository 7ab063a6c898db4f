"""One model spread over ranks that step together: sharded, by layers and by parts of layers."""

from trainmaster.train.inner.group import InnerGroup
from trainmaster.train.inner.plan import CannotSplit, Plan, plan
from trainmaster.train.inner.spread import StateMismatch

__all__ = ["CannotSplit", "InnerGroup", "Plan", "StateMismatch", "plan"]
