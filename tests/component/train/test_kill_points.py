"""A training that is killed, wherever that is, ends with the bits of one that was not.

Few deaths here; `python -m tests.modes.kill_points` goes through a hundred in each mode.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.component.train.ranks import Forge
from tests.modes.kill_points import MODES, train_killed, train_undisturbed

pytestmark = pytest.mark.torch

Hashes = tuple[str, str]


@pytest.fixture(scope="module")
def undisturbed(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Hashes]:
    """What a training leaves that nobody kills, by mode."""

    @functools.cache
    def train(name: str) -> Hashes:
        return train_undisturbed(_session_forge, tmp_path_factory.mktemp("undisturbed"), name)

    return train


@pytest.mark.parametrize("name", MODES)
def test_a_training_that_is_killed_twice_ends_with_the_same_bits(
    forge: Forge, tmp_path: Path, undisturbed: Callable[[str], Hashes], name: str
) -> None:
    chain = train_killed(forge, tmp_path, name, seed=1, most=2)

    assert len(chain.kills) == 2
    assert chain.resumed_at[-1] > 0
    assert chain.hashes == undisturbed(name)


@pytest.mark.parametrize(
    ("mutation", "name"),
    [
        ("the loader skips a batch", "one rank"),
        ("the scheduler starts anew", "one rank"),
        ("the optimizer starts anew", "allreduce, sharded"),
        ("generators start anew", "diloco"),
        ("residuals are lost", "local_sgd, int8"),
        ("residuals are lost", "parameter_server, staleness 0, int8"),
    ],
)
def test_what_a_resume_forgets_would_be_seen(
    forge: Forge,
    tmp_path: Path,
    undisturbed: Callable[[str], Hashes],
    mutation: str,
    name: str,
) -> None:
    chain = train_killed(forge, tmp_path, name, seed=1, most=2, mutation=mutation)

    assert chain.resumed_at[-1] > 0
    assert chain.hashes[0] != undisturbed(name)[0]
