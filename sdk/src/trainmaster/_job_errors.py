"""What can go wrong between a rank and whatever keeps its records. Knows no framework."""


class RunError(RuntimeError):
    """The run cannot do what was asked of it; the message says why and what to do instead."""


class CheckpointNotCommitted(RunError):
    """The files are written, but nobody has taken them over: this checkpoint does not exist."""


class NonFiniteLoss(RunError):
    """A loss was NaN or infinite, and the job is not to train on through that.

    The supervisor knows this by its name and gives the job the same reason.
    """
