"""Replicas that are killed, one every 30 seconds: what is left of the samples a second.

A real job on a real service: the ranks' steps are timed waits, so that four of them fit on two
cores, and it is processes that are killed. What a killed replica has computed since its last round
does not count. The baseline is the same job left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.bench import Bench, finish, upload_script
from tests.bench.figures import Figure, Series, Target
from tests.services import wait_for

NAME = "survivors"
_WORKERS, _STEP_S, _EVERY = 4, 0.1, 16
_BETWEEN_KILLS_S = 30.0
_MODES: Mapping[str, Mapping[str, Any]] = {
    "local_sgd": {"mode": "local_sgd", "every": _EVERY},
    "asynchronous": {"mode": "parameter_server", "staleness": None},
}


@dataclass(frozen=True, slots=True)
class _Life:
    """One process of a rank, and the steps that it wrote down: when, which, how many samples."""

    rank: int
    pid: int
    steps: Sequence[tuple[float, int, int]]


def measure(bench: Bench) -> list[Figure]:
    """Return a figure for each mode; 10 minutes."""
    figures = []
    with bench.service(NAME, NODE_CPUS=_WORKERS) as service, service.client() as client:
        code = upload_script(client, "survived_steps.py")
        for name, sync in _MODES.items():
            rates = [
                _run(bench, client, code, name, sync, is_killing=each) for each in (True, False)
            ]
            bench.say(f"{name}: {rates[0]:.1f} samples a second beside {rates[1]:.1f}")
            figures.append(
                Figure(
                    name=f"a replica killed every {_BETWEEN_KILLS_S:.0f} s, {name}",
                    unit="samples/s",
                    values=Series((rates[0],)),
                    baseline=Series((rates[1],)),
                    baseline_name="none killed",
                    target=Target(of="ratio", bound="at least", limit=0.9),
                )
            )
    return figures


def _run(
    bench: Bench, client: Any, code: str, name: str, sync: Mapping[str, Any], *, is_killing: bool
) -> float:
    """Return the samples a second that count, of all replicas together.

    Raises:
        RuntimeError: a replica was started again that nobody had killed.
    """
    folder = bench.make_folder(f"{NAME}-{name}-{is_killing}")
    seconds = bench.count(135, 45)
    job = client.jobs.submit(
        code=code,
        entrypoint="survived_steps.py",
        workers=_WORKERS,
        sync=dict(sync),
        config={"folder": str(folder), "steps": round(seconds / _STEP_S), "step_s": _STEP_S},
    )
    killed: list[int] = []
    wait_for("all workers", lambda: len(_read_lives(folder)) == _WORKERS, within_s=60)
    ends_at = time.monotonic() + seconds - 10
    while is_killing and time.monotonic() + _BETWEEN_KILLS_S < ends_at:
        time.sleep(_BETWEEN_KILLS_S)
        victim = [each for each in _read_lives(folder) if each.rank == len(killed) % _WORKERS][-1]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)
    finish(client, job, within_s=4 * seconds)
    lives = _read_lives(folder)
    if len(lives) != _WORKERS + len(killed):
        raise RuntimeError(f"{len(killed)} were killed, and {len(lives)} lives: {folder}")
    return _rate(lives, killed, sync)


def _rate(lives: Sequence[_Life], killed: Sequence[int], sync: Mapping[str, Any]) -> float:
    every = sync.get("every") or 1
    samples = 0
    for life in lives:
        last = life.steps[-1][1] if life.steps else 0
        counts_until = last // every * every if life.pid in killed else last
        samples += sum(count for _, step, count in life.steps if step <= counts_until)
    times = [at_s for life in lives for at_s, _, _ in life.steps]
    return samples / (max(times) - min(times))


def _read_lives(folder: Path) -> list[_Life]:
    lives = []
    for path in sorted(folder.iterdir()):
        rank, _, pid = path.name.split(".")
        lines = path.read_text().splitlines()
        steps = [(float(at), int(step), int(count)) for at, step, count in map(str.split, lines)]
        lives.append(_Life(int(rank), int(pid), steps))
    return lives
