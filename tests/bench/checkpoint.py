"""For how long a checkpoint of 250 MB of state blocks a training, beside what `torch.save` takes.

One process trains with `trainmaster.train` on a CPU, off the service, so nothing but the saving is
measured; `torch.save` of the same state, in the same process and onto the same disk, in turns.
"""

from __future__ import annotations

import json
import os
import subprocess

from tests.bench.bench import JOB_BIN, SCRIPTS, Bench, wait_for_quiet
from tests.bench.figures import Figure, Series, Target

NAME = "checkpoint"
_STEPS_PER_CHECKPOINT = 60
_LIMIT_S = 1200.0


def measure(bench: Bench) -> list[Figure]:
    """Return the figures; about 5 s a checkpoint."""
    folder = bench.make_folder("checkpoint")
    description = folder / "run.json"
    description.write_text(json.dumps({"checkpoint": {"every_steps": _STEPS_PER_CHECKPOINT}}))
    wait_for_quiet()
    done = subprocess.run(
        [str(JOB_BIN / "python"), str(SCRIPTS / "blocked.py"), str(bench.count(15, 3))],
        env={
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "TRAINMASTER_RUN": str(description),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=_LIMIT_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("cost ")]
    costs = [json.loads(line.removeprefix("cost ")) for line in lines]
    series = {
        name: Series(tuple(cost[name] for cost in costs))
        for name in ("blocked_s", "delayed_s", "torch_save_s")
    }
    return [
        Figure(
            name="a checkpoint of 250 MB: training stands still",
            unit="s",
            values=series["blocked_s"],
            baseline=series["torch_save_s"],
            baseline_name="torch.save",
            target=Target(of="ratio", bound="at most", limit=0.5),
        ),
        Figure(
            name="the same, and what steps take longer while it is written",
            unit="s",
            values=series["delayed_s"],
            baseline=series["torch_save_s"],
            baseline_name="torch.save",
        ),
    ]
