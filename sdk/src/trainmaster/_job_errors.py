"""What can go wrong between a rank and whatever keeps its records. Knows no framework."""


class RunError(RuntimeError):
    """The run cannot do what was asked of it; the message says why and what to do instead."""


class CheckpointNotCommitted(RunError):
    """The files are written, but nobody has taken them over: this checkpoint does not exist."""
