"""One service per module (about three seconds), and bundles to run on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import JOB_PYTHON, Ledger, Service, make_bundle, running_service
from trainmaster import Client


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with its node, shared by the tests of a module."""
    assert JOB_PYTHON.exists(), "the job environment is missing: make job-environment"
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A client of that service."""
    with service.client() as connected:
        yield connected


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The code folder of the trainer that keeps its own books."""
    return make_bundle(tmp_path / "bundle", "ledger.py")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Those books."""
    return Ledger(tmp_path / "ledger.jsonl")
