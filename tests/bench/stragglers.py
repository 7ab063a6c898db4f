"""Four workers whose step is a timed wait, one of them four times slower: samples a second.

The baseline is the synchronous mode of the same servers. The ideal is (3 + 1/4) / (4 x 1/4) = 3.25:
in step all go as slowly as the slowest, out of step each at its own pace.
"""

from __future__ import annotations

import json

from tests.bench.bench import SCRIPTS, Bench, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.gangs import run_gang
from tests.bench.networks import find_obstacle, running_network

NAME = "stragglers"
_WORKERS, _SLOWER, _STEP_S = 4, 4, 0.25
_LIMIT_S = 300.0


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; 2 minutes. Nothing without root."""
    obstacle = find_obstacle()
    if obstacle is not None:
        bench.say(f"left out: {obstacle}")
        return []
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(bench.count(3, 1)):
        for name, staleness, rates in (("async", None, ours), ("sync", 0, theirs)):
            wait_for_quiet()
            rates.append(_run(bench, f"{name}-{number}", staleness))
        bench.say(f"{ours[-1]:.1f} samples a second beside {theirs[-1]:.1f}")
    return [
        Figure(
            name="one of 4 workers 4 times slower, asynchronous",
            unit="samples/s",
            values=Series(tuple(ours)),
            baseline=Series(tuple(theirs)),
            baseline_name="synchronous",
            target=Target(of="ratio", bound="at least", limit=2.9),
        )
    ]


def _run(bench: Bench, name: str, staleness: int | None) -> float:
    """Return the samples a second of all workers together."""
    samples = bench.count(30, 12) * _WORKERS * 8
    folder = bench.folder / f"{NAME}-{name}"
    command = [
        str(SCRIPTS / "timed_waits.py"),
        str(folder / "result"),
        *map(str, (samples, _STEP_S, _SLOWER)),
    ]
    description = {
        "parallel": {"data": _WORKERS},
        "sync": {"mode": "parameter_server", "staleness": staleness},
    }
    with running_network(_WORKERS) as hosts:
        run_gang(hosts, command, description, folder, limit_s=_LIMIT_S)
    said = [json.loads((folder / f"result.{rank}").read_text()) for rank in range(_WORKERS)]
    began_s = max(rank["began_s"] for rank in said)
    # Until the first has nothing left to do: what then remains is not a matter of pace.
    ended_s = min(rank["steps"][-1][0] for rank in said)
    num_samples: int = sum(
        count for rank in said for at_s, count in rank["steps"] if began_s < at_s <= ended_s
    )
    return float(num_samples / (ended_s - began_s))
