"""CPU time of the ranks per step under the service, beside the same script under `torchrun`.

The script uses `trainmaster.train` and logs each step. The ranks measure their own CPU time, all
threads included, from the end of step 5 to the end of the last step; the supervisor's own work is
none of it, but whatever it costs the ranks is.

What watching over a rank costs it (where its time goes, how far it is, whether its loss is a
number) is too little to be seen in that, so it is measured by itself as well.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bench import JOB_BIN, SCRIPTS, Bench, finish, upload_script, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.torchrun import run_torchrun
from trainmaster import Client

NAME = "step_overhead"
_SCRIPT = "steps.py"
_WORKERS = 2
_STEP_MIN_S = 0.020
_STEP_AIM_S = 0.027
_WATCHING_SHARE = 0.01
_FIRST_BATCH = 512


@dataclass(frozen=True)
class _Cost:
    """Of one run: CPU time of all ranks, and wall time, per step and in seconds."""

    cpu_s: float
    wall_s: float


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; 15 s a pair."""
    folder = bench.make_folder("step-overhead-results")
    steps = bench.count(130, 60)
    ours: list[_Cost] = []
    theirs: list[_Cost] = []
    with bench.service("step-overhead") as service, service.client() as client:
        code = upload_script(client, _SCRIPT)
        batch = _find_batch(bench, folder)
        _under_service(client, code, folder / "warm", steps=steps, batch=batch)
        for number in range(bench.count(20, 3)):
            runs = [
                lambda n=number: ours.append(
                    _under_service(client, code, folder / f"s{n}", steps=steps, batch=batch)
                ),
                lambda n=number: theirs.append(
                    _under_torchrun(folder / f"t{n}", steps=steps, batch=batch)
                ),
            ]
            # Who comes first changes, so that a drift of the machine favours neither.
            for run in runs if number % 2 == 0 else reversed(runs):
                wait_for_quiet()
                run()
            ratio = ours[-1].cpu_s / theirs[-1].cpu_s
            bench.say(
                f"{1e3 * ours[-1].cpu_s:.2f} ms beside {1e3 * theirs[-1].cpu_s:.2f} ms of CPU, "
                f"{ratio:.4f}"
            )
    return [
        Figure(
            name=f"CPU per step, {_WORKERS} ranks",
            unit="ms",
            values=Series(tuple(1e3 * cost.cpu_s for cost in ours)),
            baseline=Series(tuple(1e3 * cost.cpu_s for cost in theirs)),
            baseline_name="torchrun",
            target=Target(of="ratio", bound="at most", limit=1.02),
            interval=True,
            details={
                "steps": steps,
                "batch": batch,
                "service_step_ms": [round(1e3 * cost.wall_s, 3) for cost in ours],
                "torchrun_step_ms": [round(1e3 * cost.wall_s, 3) for cost in theirs],
            },
        ),
        measure_watching(bench),
    ]


def measure_watching(bench: Bench) -> Figure:
    """Return what it costs a rank at each step to be watched over; 2 s."""
    command = [str(JOB_BIN / "python"), str(SCRIPTS / "health_cost.py"), str(bench.count(20, 3))]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    costs = Series(tuple(float(line) for line in done.stdout.split()))
    return Figure(
        name="watching over a rank, per step",
        unit="us",
        values=costs,
        target=Target(of="figure", bound="at most", limit=_WATCHING_SHARE * 1e6 * _STEP_MIN_S),
        details={"share_of_a_step_of_20_ms": round(costs.median / (1e6 * _STEP_MIN_S), 6)},
    )


def _find_batch(bench: Bench, folder: Path) -> int:
    """Return the batch size with which a step takes what it should on this machine.

    Judged by the CPU time of a rank, which a busy machine stretches less than the wall time; on an
    idle one a rank computes nearly all the time.
    """
    batch = _FIRST_BATCH
    for attempt in range(4):
        cost = _under_torchrun(folder / f"size-{attempt}", steps=25, batch=batch)
        step_s = cost.cpu_s / _WORKERS
        bench.say(f"a step of {batch} samples takes {1e3 * step_s:.1f} ms of CPU in each rank")
        if step_s >= 1.2 * _STEP_MIN_S:
            return batch
        batch = 64 * math.ceil(batch * _STEP_AIM_S / step_s / 64)
    return batch


def _under_service(client: Client, code: str, result: Path, *, steps: int, batch: int) -> _Cost:
    arguments = [str(result), str(steps), str(batch)]
    finish(
        client,
        client.jobs.submit(code=code, entrypoint=_SCRIPT, args=arguments, workers=_WORKERS),
    )
    return _read(result)


def _under_torchrun(result: Path, *, steps: int, batch: int) -> _Cost:
    # The script leaves its local records where it runs.
    folder = result.with_name(f"{result.name}-folder")
    folder.mkdir()
    arguments = [str(result), str(steps), str(batch)]
    run_torchrun(SCRIPTS / _SCRIPT, arguments, workers=_WORKERS, folder=folder)
    return _read(result)


def _read(result: Path) -> _Cost:
    ranks = [
        json.loads(result.with_name(f"{result.name}.{rank}").read_text())
        for rank in range(_WORKERS)
    ]
    steps = ranks[0]["steps"]
    return _Cost(
        cpu_s=sum(rank["cpu_s"] for rank in ranks) / steps,
        wall_s=max(rank["wall_s"] for rank in ranks) / steps,
    )
