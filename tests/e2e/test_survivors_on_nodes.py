"""A replica that is killed on one of several nodes is started again there, and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lives import SCRIPT, Told
from tests.services import JOB_PYTHON, ROOT, Service, make_bundle, running_service, wait_for
from trainmaster import Client

pytestmark = pytest.mark.torch

WORKERS = 4


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a node of two CPUs, and another node beside it."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, NODE_CPUS=2) as service, service.client() as client:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(service.folder),
            "TRAINMASTER_URL": service.url,
            "TRAINMASTER_API_KEY": (service.folder / "admin.key").read_text().strip(),
            "TRAINMASTER_JOB_PYTHON": str(JOB_PYTHON),
        }
        arguments = ["--name", "other", "--node-dir", str(service.folder / "other-node")]
        # Its cgroup would be the same as the first node's: that is named after the attempt.
        options = ["--heartbeat", "1", "--fence", "4", "--no-cgroup"]
        with (service.folder / "other.log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "workers.node", *arguments, *options],
                cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for("two nodes", lambda: _count_ready(client) == 2, within_s=60)
            yield service
        finally:
            node.terminate()
            node.wait(15)


def _count_ready(client: Client) -> int:
    return sum(node.state == "ready" for node in client.nodes.list())


@pytest.mark.parametrize("victim", [0, 3], ids=["beside the first server", "on the other node"])
def test_a_killed_replica_comes_back_on_its_node(
    two_nodes: Service, tmp_path: Path, victim: int
) -> None:
    told = Told(tmp_path / "told")
    code = make_bundle(tmp_path / "code", SCRIPT)
    sync = {"mode": "local_sgd", "every": 5}

    with two_nodes.client() as client:
        job = client.jobs.submit(
            code=code, entrypoint=SCRIPT, workers=WORKERS, sync=sync,
            config={"folder": str(tmp_path / "told"), "steps": 400}, resources={"cpus": 1},
        )  # fmt: skip
        before = wait_for("everybody's place", lambda: _places(client, job), within_s=60)
        told.kill(victim, at_step=20)
        after = wait_for("its new place", lambda: _moved(client, job, before))
        done = client.jobs.wait(job, timeout_seconds=120, raise_on_failure=False)
        events = list(client.jobs.events.list(job))

    assert done.state == "succeeded", done.message
    assert done.attempt is not None
    assert done.attempt.number == 1, [(each.type, each.message) for each in events]
    lives = {rank: len(told.pids(rank)) for rank in range(WORKERS)}
    assert lives == {rank: 2 if rank == victim else 1 for rank in range(WORKERS)}
    assert len({node for node, _ in before.values()}) == 2
    assert after[victim][0] == before[victim][0]
    replaced = [each.data for each in events if each.type == "attempt.rank_replaced"]
    assert [(each["rank"], each["restarts"]) for each in replaced] == [(victim, 1)]
    finals = {told.read(rank, told.pids(rank)[-1])["final"] for rank in range(WORKERS)}
    assert len(finals) == 1


def _places(client: Client, job: Any) -> dict[int, tuple[str, int]]:
    """Return node and restarts of each rank; nothing while not all have been told."""
    told = client.jobs.explain(job).ranks
    places = {each.rank: (each.node, each.restarts) for each in (told.ranks if told else ())}
    return places if len(places) == WORKERS else {}


def _moved(
    client: Client, job: Any, before: dict[int, tuple[str, int]]
) -> dict[int, tuple[str, int]] | None:
    now = _places(client, job)
    return now if now != before else None
