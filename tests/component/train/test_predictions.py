"""How far off the prediction was, where the ranks of a replica divide its layers."""

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import SCRIPTS, Forge, read_values

pytestmark = pytest.mark.torch

# As in `make bench ARGS=communication`, which counts on the interfaces too.
OFF_MAX = 0.02


@pytest.mark.parametrize("parallel", [{"tensor": 2}, {"pipeline": 2}], ids=["tensor", "pipeline"])
def test_a_language_model_says_how_far_off_its_prediction_was(
    forge: Forge, supervisor: FakeSupervisor, parallel: dict[str, int]
) -> None:
    config = {
        "layers": 2, "heads": 2, "width": 64, "context": 32, "batch_size": 8, "steps": 12,
        "validate_every": 100,
    }  # fmt: skip
    description = supervisor.describe_run(config=config, parallel=parallel)

    forge.run(
        SCRIPTS / "recipe.py",
        supervisor.folder,
        "trainmaster.recipes.lm",
        ranks=2,
        description=description,
    )

    spool = supervisor.folder / "spool" / "0.jsonl"
    off = [value for _, value in read_values(spool, "comm/prediction_error")]
    assert off
    assert all(abs(value) <= OFF_MAX for value in off), off
    assert not read_values(spool, "comm/reduction_vs_ddp")
