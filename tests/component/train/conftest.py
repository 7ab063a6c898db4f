"""One forge for all tests here; what a test starts does not outlive it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import Forge, running_forge


@pytest.fixture(scope="session")
def _session_forge() -> Iterator[Forge]:
    with running_forge() as forge:
        yield forge


@pytest.fixture
def forge(_session_forge: Forge) -> Iterator[Forge]:
    """Something that starts ranks."""
    yield _session_forge
    _session_forge.end_gangs()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    """A supervisor that the test plays."""
    playing = FakeSupervisor(tmp_path / "run")
    yield playing
    playing.close()
