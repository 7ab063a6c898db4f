"""The metrics of communication, checked in one process of the job environment."""

import re

import pytest

from tests.component.train.ranks import SCRIPTS, Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "metering.py"
CHECKS = [
    name
    for name in re.findall(r"^def (\w+)\(\) -> None:", SCRIPT.read_text(), re.MULTILINE)
    if "_" in name
]


@pytest.fixture(scope="module")
def checked(_session_forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """The script, after its end."""
    return _session_forge.run(SCRIPT, tmp_path_factory.mktemp("metering"))


@pytest.mark.parametrize("check", CHECKS)
def test_in_a_job(checked: Gang, check: str) -> None:
    assert f"held {check}\n" in checked.output(), checked.output()
