"""CPU time that watching over a rank costs it at each step, in microseconds: printed, a line each.

    health_cost.py <repetitions>

What a session does at each step beyond training, without the training: the borders between phases
(with the waits read from where collectives are counted), the step in the rank's page, a look at the
loss. The dispatch of a tensor's `item` is the largest part.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from trainmaster._pulse import Pulse
from trainmaster.run import Run
from trainmaster.train.accounting.groups import count_collectives
from trainmaster.train.losses import LossWatch
from trainmaster.train.timing import CHECKPOINT, COMMUNICATION, COMPUTE, DATA_WAIT, PhaseClock

STEPS = 5000


def main(repetitions: int) -> None:
    """Go through the steps of several trainings that do nothing else."""
    folder = Path(tempfile.mkdtemp())
    for name in ("spool", "checkpoints", "pulses"):
        (folder / name).mkdir()
    run = Run(
        {
            "socket": str(folder / "s.sock"),
            "spool_dir": str(folder / "spool"),
            "checkpoints_dir": str(folder / "checkpoints"),
            "pulses_dir": str(folder / "pulses"),
            "health": {"on_nan": "fail"},
        },
        {"RANK": "0", "WORLD_SIZE": "2"},
    )
    pulse: Pulse = run._pulse
    count_collectives().add("gradients", "all_reduce", 4096, 4096)
    loss = torch.zeros((), requires_grad=True) + 1.0
    for _ in range(repetitions):
        losses = LossWatch(run)
        clock = PhaseClock(pulse, lambda shares: None, is_on_gpu=False)
        clock.enter(DATA_WAIT)
        began_s = time.thread_time()
        for step in range(1, STEPS + 1):
            clock.enter(COMPUTE)
            losses.see(step, loss)
            clock.enter(COMMUNICATION)
            pulse.note_step(step)
            if step % 100 == 0:
                clock.enter(CHECKPOINT)
                losses.settle()
            clock.report()
            clock.enter(DATA_WAIT)
        print(1e6 * (time.thread_time() - began_s) / STEPS, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
