"""A resumed run leaves the bits that an uninterrupted one would have left."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.component.train.ranks import SCRIPTS, Forge, Gang

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "bits.py"
STEPS = 30
RESUMED = {"resume": "trainmaster-runs/1"}
Hashes = tuple[str, str]


def read_hashes(gang: Gang) -> Hashes:
    """Return what a run says it has left: weights, and everything else."""
    hashes = gang.said("model.safetensors"), gang.said("state.pt")
    assert all(hashes), gang.output()
    return hashes


@pytest.fixture(scope="module")
def uninterrupted(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Hashes]:
    """What a run leaves that nobody disturbs, by number of ranks."""

    @functools.cache
    def train(ranks: int) -> Hashes:
        folder = tmp_path_factory.mktemp("uninterrupted")
        return read_hashes(_session_forge.run(SCRIPT, folder, "none", "0", "0", ranks=ranks))

    return train


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_repeats_itself(
    forge: Forge, tmp_path: Path, uninterrupted: Callable[[int], Hashes], ranks: int
) -> None:
    again = forge.run(SCRIPT, tmp_path, "none", "0", "0", ranks=ranks)

    assert read_hashes(again) == uninterrupted(ranks)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(1, id="after the first step"),
        pytest.param(13, id="within an epoch"),
        pytest.param(19, id="before the last batch of an epoch"),
        pytest.param(20, id="at the end of the first loop"),
        pytest.param(24, id="within the second loop"),
        pytest.param(29, id="before the last step"),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    forge: Forge,
    tmp_path: Path,
    uninterrupted: Callable[[int], Hashes],
    ranks: int,
    stop: int,
) -> None:
    forge.run(SCRIPT, tmp_path, "none", str(stop), "0", ranks=ranks)

    resumed = forge.run(SCRIPT, tmp_path, "none", "0", "0", ranks=ranks, description=RESUMED)

    assert read_hashes(resumed) == uninterrupted(ranks)


@pytest.mark.parametrize(
    ("mutation", "ranks"),
    [
        ("generators start anew", 1),
        ("the optimizer starts anew", 1),
        ("the scheduler starts anew", 1),
        ("the weights start anew", 1),
        ("the data starts anew", 1),
        ("generators start anew", 2),
        ("torch lays out its buckets when it likes", 3),
    ],
)
def test_the_comparison_would_see_what_a_resume_forgets(
    forge: Forge, tmp_path: Path, mutation: str, ranks: int
) -> None:
    whole = forge.run(SCRIPT, tmp_path / "whole", mutation, "0", "0", ranks=ranks)
    forge.run(SCRIPT, tmp_path, mutation, "12", "0", ranks=ranks)

    resumed = forge.run(SCRIPT, tmp_path, mutation, "0", "0", ranks=ranks, description=RESUMED)

    assert read_hashes(resumed)[0] != read_hashes(whole)[0]


def test_a_run_that_is_done_does_nothing_more(
    forge: Forge, tmp_path: Path, uninterrupted: Callable[[int], Hashes]
) -> None:
    forge.run(SCRIPT, tmp_path, "none", "0", "0")

    again = forge.run(SCRIPT, tmp_path, "none", "0", "0", description=RESUMED)

    assert read_hashes(again) == uninterrupted(1)
    assert not (tmp_path / "trainmaster-runs" / "2").exists()
