"""A replica that is killed stops nobody, and the one that replaces it goes on with the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.lives import Replica
from tests.component.train.outer.runs import distance
from tests.component.train.ranks import Forge, common_environment, until

pytestmark = pytest.mark.torch

LOCAL = {"mode": "diloco", "every": 5, "compression": "int8"}
SYNCHRONOUS = {"mode": "parameter_server", "staleness": 0, "servers": 2}
BOUNDED = {"mode": "parameter_server", "staleness": 3}
ASYNCHRONOUS = {"mode": "parameter_server", "staleness": None}


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "sync",
    [
        pytest.param(LOCAL, id="DiLoCo"),
        pytest.param(SYNCHRONOUS, id="a synchronous parameter server, of two"),
        pytest.param(BOUNDED, id="bounded staleness"),
        pytest.param(ASYNCHRONOUS, id="an asynchronous parameter server"),
    ],
)
def test_survivors_go_on_and_a_replacement_joins_them(
    forge: Forge, tmp_path: Path, sync: dict[str, Any], victim: int
) -> None:
    environment = common_environment(tmp_path, 3, None)
    settings = {"sync": sync, "steps": 240, "step_s": 0.02}
    replicas = [
        Replica(forge, tmp_path, environment, ("surviving.py", rank, settings)) for rank in range(3)
    ]
    survivors = [replica for rank, replica in enumerate(replicas) if rank != victim]
    replicas[victim].until_step(20)
    replicas[victim].kill()
    alone_from = max(each.step for each in survivors)
    survivors[0].until_step(alone_from + 20)

    again = Replica(forge, tmp_path, environment, ("surviving.py", victim, settings))
    results = [each.result for each in [*survivors, again]]

    assert results[-1]["joined_at"] >= 20
    assert f"joins them at step {results[-1]['joined_at']}\n" in again.text
    assert len(results[-1]["used"]) > 0
    assert max(distance(results[0], each) for each in results) == 0


def test_an_early_death_leaves_a_place_for_the_next(forge: Forge, tmp_path: Path) -> None:
    environment = common_environment(tmp_path, 2, None)
    settings = {"sync": LOCAL, "steps": 20, "step_s": 0.0}
    first = Replica(forge, tmp_path, environment, ("surviving.py", 0, settings))
    until(lambda: server_pids(tmp_path), "its server is there")
    first.kill()

    both = [
        Replica(forge, tmp_path, environment, ("surviving.py", rank, settings)) for rank in (0, 1)
    ]
    results = [each.result for each in both]

    assert distance(results[0], results[1]) == 0


def test_servers_end_with_the_job(forge: Forge, tmp_path: Path) -> None:
    environment = common_environment(tmp_path, 2, None)
    settings = {"sync": SYNCHRONOUS, "steps": 5, "step_s": 0.0}
    both = [
        Replica(forge, tmp_path, environment, ("surviving.py", rank, settings)) for rank in (0, 1)
    ]
    assert all(each.result for each in both)

    until(lambda: not server_pids(tmp_path), "no server is left", 10)


def test_servers_of_ranks_that_are_all_dead_do_not_wait_for_the_next_run(
    forge: Forge, tmp_path: Path
) -> None:
    environment = common_environment(tmp_path, 2, None)
    settings = {"sync": LOCAL, "steps": 2000, "step_s": 0.02, "outer": {}}
    both = [
        Replica(forge, tmp_path, environment, ("surviving.py", rank, settings)) for rank in (0, 1)
    ]
    both[1].until_step(10)
    assert server_pids(tmp_path)

    for each in both:
        each.kill()

    until(lambda: not server_pids(tmp_path), "no server is left", 15)


def test_a_server_whose_starter_dies_before_its_first_call_is_not_left_behind(
    forge: Forge, tmp_path: Path
) -> None:
    environment = common_environment(tmp_path, 2, None)
    settings = {"sync": SYNCHRONOUS, "steps": 5, "step_s": 0.0, "outer": {}}
    first = Replica(forge, tmp_path, environment, ("surviving.py", 0, settings))
    until(lambda: server_pids(tmp_path), "its server is there")  # and waits for that of rank 1

    first.kill()

    until(lambda: not server_pids(tmp_path), "no server is left", 15)


def server_pids(folder: Path) -> list[int]:
    """Return the processes in a folder that lead a session of their own, as servers do."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            number = int(process.name)
            if (process / "cwd").readlink() == folder and os.getsid(number) == number:
                found.append(number)
        except (ValueError, OSError):
            continue  # no process, or one that has just ended
    return found
