"""A fake service and a real node for each test; nothing of either is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.workers.node_harness import JOB_PYTHON, Node, wait_until
from tests.component.workers.worker_service_fake import FakeService


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service that listens; at the end it must have had no reason to complain."""
    fake = FakeService()
    fake.start()
    yield fake
    fake.stop()
    assert fake.problems == []


@pytest.fixture
def idle_node(service: FakeService, tmp_path: Path) -> Iterator[Node]:
    """A node that is not started; at the end nothing of it may run."""
    node = Node(service, tmp_path / "node")
    yield node
    node.stop()
    node.kill_fork_servers()
    wait_until(lambda: not node.list_processes(), limit_s=20)


@pytest.fixture(params=["cgroup", "no-cgroup"])
def node(idle_node: Node, request: pytest.FixtureRequest) -> Node:
    """A node that runs, once with cgroups and once without."""
    if request.param == "no-cgroup":
        idle_node.options = ["--no-cgroup"]
    idle_node.start()
    return idle_node


@pytest.fixture
def any_node(idle_node: Node) -> Node:
    """A node that runs, where cgroups make no difference."""
    idle_node.start()
    return idle_node


@pytest.fixture
def torch_node(idle_node: Node) -> Node:
    """A node that runs jobs in the job environment."""
    if not JOB_PYTHON.exists():
        pytest.skip(f"{JOB_PYTHON} is missing: make it with `make job-environment`")
    idle_node.job_python = JOB_PYTHON
    idle_node.start()
    return idle_node
