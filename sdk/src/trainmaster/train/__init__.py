"""Training mechanisms for torch; the loop stays yours.

    from trainmaster import train

    with train.start() as run:
        model = run.model(Net())
        optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=run.config["lr"]))
        for step, (x, y) in run.steps(dataset, batch_size=64):
            loss = F.cross_entropy(model(x), y)
            run.backward(loss)
            optimizer.step()
            run.log(loss=loss)

Importing this loads all of torch that a training step needs, and computes nothing and starts no
thread: a process that did only this may be forked into ranks.
"""

from __future__ import annotations

try:
    import torch._dynamo  # noqa: F401  the first optimizer would import it, for two seconds
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "trainmaster.train needs torch: pip install 'trainmaster[torch]'", name=error.name
    ) from error

from trainmaster.train.inner import CannotSplit, Plan, plan
from trainmaster.train.session import TrainRun, start
from trainmaster.train.synchronization import UnsupportedMode

__all__ = ["CannotSplit", "Plan", "TrainRun", "UnsupportedMode", "plan", "start"]
