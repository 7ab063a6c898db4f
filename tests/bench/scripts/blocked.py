"""For how long a checkpoint stands in the way of a training, and a `torch.save` beside it.

    python blocked.py CHECKPOINTS

Trains with AdamW on 250 MB of weights and optimizer state, in one process. Prints a JSON object
per checkpoint, in seconds: `blocked_s`, in which no step is done since the state is copied;
`delayed_s`, the same and what steps take longer while it is written; `torch_save_s`, for the same
state.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trainmaster import train
from trainmaster.train.saver import Saver

WIDTH, LAYERS = 1020, 20  # 20.8 million parameters, 12 bytes each with AdamW's two moments
STEPS_PER_CHECKPOINT = 60
WAIT_S = 60.0


class Watched:
    """The saver of the run, and how long each of its calls took."""

    def __init__(self) -> None:
        self.blocked_s: list[float] = []
        self.saver: Saver | None = None
        plain = Saver.save

        def save(saver: Saver, *arguments: Any) -> None:
            began_s = time.perf_counter()
            plain(saver, *arguments)
            self.blocked_s.append(time.perf_counter() - began_s)
            self.saver = saver

        setattr(Saver, "save", save)  # noqa: B010  mypy knows that it is a method

    def is_writing(self) -> bool:
        """Return whether a checkpoint is on its way to the disk."""
        return self.saver is not None and self.saver.is_writing()


def main(checkpoints: int) -> None:
    """Train, save in turns, and say what it cost."""
    torch.set_num_threads(1)
    watched = Watched()
    x_all = torch.randn(64, WIDTH)
    delays_s: list[float] = []
    steps_s: list[float] = []
    torch_save_s: list[float] = []
    with train.start() as run:
        network = torch.nn.Sequential(
            *(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)),
        )
        model = run.model(network)
        optimizer = run.optimizer(torch.optim.AdamW(model.parameters()))
        steps_total = (checkpoints + 1) * STEPS_PER_CHECKPOINT
        began_s = time.perf_counter()
        for step, (x,) in run.steps((x_all,), batch_size=8, steps=steps_total):
            run.backward(model(x).square().mean())
            optimizer.step()
            number = len(watched.blocked_s)
            took_s = time.perf_counter() - began_s
            if watched.is_writing() or number > len(delays_s):
                # The save itself is between two steps, and so in the first one after it.
                delays_s += [0.0] * (number - len(delays_s))
                delays_s[number - 1] += took_s - statistics.median(steps_s)
            elif step % STEPS_PER_CHECKPOINT > STEPS_PER_CHECKPOINT // 2:
                steps_s.append(took_s)
            if step % STEPS_PER_CHECKPOINT == STEPS_PER_CHECKPOINT - 2 and number:
                deadline_s = time.perf_counter() + WAIT_S
                while watched.is_writing() and time.perf_counter() < deadline_s:
                    time.sleep(0.05)
                began_s = time.perf_counter()
                state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, Path("state.pt"))
                torch_save_s.append(time.perf_counter() - began_s)
            began_s = time.perf_counter()
    for number, torch_save in enumerate(torch_save_s):
        costs = {
            "blocked_s": watched.blocked_s[number],
            "delayed_s": delays_s[number],
            "torch_save_s": torch_save,
        }
        print("cost", json.dumps(costs), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
