"""Trainings that are killed again and again leave the bits of one that nobody disturbed.

    python -m tests.modes.kill_points --points 100 [--seed 0] [mode ...]

Each training is killed at a few steps drawn from the seed, at a spot within the step or within a
save drawn as well, and goes on each time from the newest checkpoint that is whole. The SHA-256 of
what it leaves must be that of the undisturbed one: weights, optimizer, schedule, generators of
every rank, cursor, and what the mode keeps, such as residuals, anchor and outer momentum.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scheduler.core.spec import Parallel
from tests.component.train.ranks import SCRIPTS, Forge, Gang, running_forge, until

SCRIPT = SCRIPTS / "bits.py"
STEPS = 30
SAVE_EVERY = 4
IN_A_STEP = ("drawn", "forward", "backward", "stepped", "logged")
IN_A_SAVE = ("half written", "not committed", "committed")


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to train that repeats itself bit for bit."""

    parallel: Mapping[str, int]
    sync: Mapping[str, Any] = field(default_factory=dict)
    in_one_call: bool = False

    @property
    def num_ranks(self) -> int:
        """Ranks of such a training."""
        return Parallel(**self.parallel).num_workers

    @property
    def spots(self) -> tuple[str, ...]:
        """Where it can be killed."""
        is_between = self.in_one_call
        return tuple(each for each in IN_A_STEP if each != "forward" or not is_between) + IN_A_SAVE

    def describe(self, resume: Path | None = None) -> dict[str, Any]:
        """Return what its ranks are told."""
        return {
            "config": {"in_one_call": self.in_one_call},
            "parallel": dict(self.parallel),
            "sync": dict(self.sync),
            "checkpoint": {"every_steps": SAVE_EVERY},
            "resume": None if resume is None else str(resume),
        }


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "one rank": Mode(parallel={"data": 1}),
        "allreduce": Mode(parallel={"data": 2}),
        "allreduce, sharded": Mode(parallel={"shard": 2}),
        "allreduce, sharded replicas": Mode(parallel={"data": 2, "shard": 2}),
        "allreduce, tensor": Mode(parallel={"tensor": 2}),
        "allreduce, pipeline": Mode(parallel={"pipeline": 2}, in_one_call=True),
        "local_sgd, int8": Mode(
            parallel={"data": 2}, sync={"mode": "local_sgd", "every": 4, "compression": "int8"}
        ),
        "local_sgd, sharded replicas": Mode(
            parallel={"data": 2, "shard": 2}, sync={"mode": "local_sgd", "every": 4}
        ),
        "diloco": Mode(parallel={"data": 2}, sync={"mode": "diloco", "every": 3}),
        "diloco, one replica": Mode(parallel={"data": 1}, sync={"mode": "diloco", "every": 4}),
        "diloco, int8, fragments": Mode(
            parallel={"data": 2},
            sync={"mode": "diloco", "every": 4, "fragments": 2, "compression": "int8"},
        ),
        "parameter_server, staleness 0": Mode(
            parallel={"data": 2}, sync={"mode": "parameter_server", "staleness": 0, "servers": 2}
        ),
        "parameter_server, staleness 0, int8": Mode(
            parallel={"data": 2},
            sync={"mode": "parameter_server", "staleness": 0, "compression": "int8"},
        ),
    }
)


@dataclass(frozen=True)
class Kill:
    """A death: in or after which step, where in it, and of whom: a rank, or all at the spot."""

    step: int
    spot: str
    victim: str


@dataclass
class Chain:
    """What became of a training that was killed several times.

    Attributes:
        kills: those that happened.
        resumed_at: the steps it went on from.
        hashes: of what it has left.
    """

    kills: list[Kill] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    hashes: tuple[str, str] = ("", "")


def plan_kills(name: str, seed: int) -> Iterator[Kill]:
    """Yield the deaths of one training, each so far from the one before that it is reached."""
    mode, draw = MODES[name], random.Random(f"{name}/{seed}")
    step = draw.randint(1, 8)
    while step <= STEPS:
        spot = draw.choice(mode.spots)
        # In a collective every rank is needed, so one that dies alone takes the others with it.
        # A replica that dies alone does not, and what the others make of it is another training.
        is_alone = spot in IN_A_STEP and not mode.sync and draw.random() < 0.5
        yield Kill(step, spot, str(draw.randrange(mode.num_ranks)) if is_alone else "all")
        step += draw.randint(SAVE_EVERY, 2 * SAVE_EVERY)


def train_undisturbed(forge: Forge, folder: Path, name: str) -> tuple[str, str]:
    """Return the hashes of what a training leaves that nobody kills."""
    mode = MODES[name]
    gang = forge.run(
        SCRIPT, folder, "none", "0", "0", ranks=mode.num_ranks, description=mode.describe()
    )
    return read_hashes(gang)


def train_killed(
    forge: Forge,
    folder: Path,
    name: str,
    seed: int,
    *,
    most: int = STEPS,
    mutation: str = "none",
) -> Chain:
    """Kill a training at its planned deaths, the first `most`, and let it go on to its end."""
    chain = Chain()
    for kill in itertools.islice(plan_kills(name, seed), most):
        gang = _start(forge, folder, name, mutation, str(kill.step), kill.spot, kill.victim)
        codes = _wait_for_death(gang, all_end=not MODES[name].sync)
        said = "".join(gang.output(rank) for rank in range(len(codes)))
        assert gang.said("resumed"), f"{kill}: {codes}\n{said}"
        chain.resumed_at.append(int(gang.said("resumed")))
        if set(codes) == {0}:  # its last save is over already
            chain.hashes = read_hashes(gang)
            return chain
        assert -signal.SIGKILL in codes, f"{kill}: {codes}\n{said}"
        chain.kills.append(kill)
    gang = _start(forge, folder, name, mutation, "0").succeed()
    chain.resumed_at.append(int(gang.said("resumed")))
    chain.hashes = read_hashes(gang)
    return chain


def read_hashes(gang: Gang) -> tuple[str, str]:
    """Return what a run says it has left: weights, and everything else."""
    hashes = gang.said("model.safetensors"), gang.said("state.pt")
    assert all(hashes), gang.output()
    return hashes


def _start(forge: Forge, folder: Path, name: str, mutation: str, *kill: str) -> Gang:
    mode = MODES[name]
    runs = sorted(folder.glob("trainmaster-runs/*"), key=lambda each: int(each.name))
    saved = [each for each in runs if any(each.glob("checkpoints/ready-*"))]
    description = mode.describe(saved[-1] if saved else None)
    return forge.start(
        SCRIPT, folder, mutation, "0", *kill, ranks=mode.num_ranks, description=description
    )


def _wait_for_death(gang: Gang, *, all_end: bool) -> list[int]:
    """Wait until all have ended.

    Where a death does not end the others by itself (`all_end`), they are killed once one has died.
    """
    if not all_end:
        until(gang.any_has_ended, "one of the ranks ends")
        if any(gang.codes):
            gang.signal(signal.SIGKILL, *(n for n, code in enumerate(gang.codes) if code is None))
    return gang.wait()


def main(arguments: list[str]) -> int:
    """Kill, compare, print a line per mode, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modes", nargs="*", help=f"of: {'; '.join(MODES)}")
    parser.add_argument("--points", type=int, default=100, help="deaths per mode")
    parser.add_argument("--seed", type=int, default=0, help="of the first training")
    chosen = parser.parse_args(arguments)
    num_different = 0
    with running_forge() as forge, tempfile.TemporaryDirectory() as folder:
        for name in chosen.modes or MODES:
            began_s, spots = time.monotonic(), collections.Counter[str]()
            whole = train_undisturbed(forge, Path(folder) / name / "whole", name)
            seed, wrong, resumed_at = chosen.seed, list[int](), set[int]()
            while spots.total() < chosen.points:
                chain = train_killed(forge, Path(folder) / name / str(seed), name, seed)
                spots.update(kill.spot for kill in chain.kills)
                resumed_at.update(chain.resumed_at)
                wrong += [seed] if chain.hashes != whole else []
                seed += 1
            num_different += len(wrong)
            print(
                f"{name}: {spots.total()} deaths in {seed - chosen.seed} trainings, resumed at "
                f"{len(resumed_at)} different steps, {len(wrong)} different {wrong or ''} "
                f"({time.monotonic() - began_s:.0f} s; "
                + ", ".join(f"{spot} {count}" for spot, count in sorted(spots.items()))
                + ")",
                flush=True,
            )
    return 0 if num_different == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
