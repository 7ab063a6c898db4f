"""A spread model can be called to evaluate it, and draws its random numbers as one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.inner.oracle import SCRIPTS, TOLERANCE
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch


def evaluate(forge: Forge, folder: Path, layout: dict[str, int], **order: Any) -> list[Any]:
    """Return what each rank has found."""
    script, ranks = SCRIPTS / "evaluates.py", math.prod(layout.values())
    gang = forge.run(script, folder, json.dumps({"layout": layout, **order}), ranks=ranks)
    return [json.loads(gang.said("result", rank)) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("layout", "order"),
    [
        ({"shard": 2}, {}),
        ({"tensor": 2}, {}),
        ({"pipeline": 2}, {"network": "tied"}),
        ({"pipeline": 2, "shard": 2}, {}),
        ({"pipeline": 2}, {"network": "deep", "stages_per_rank": 2}),
    ],
)
def test_every_rank_gets_the_output_of_one_process_between_steps(
    forge: Forge, tmp_path: Path, layout: dict[str, int], order: dict[str, Any]
) -> None:
    for result in evaluate(forge, tmp_path, layout, **order):
        assert len(result["distances"]) >= 3
        assert max(result["distances"]) <= TOLERANCE


def test_a_pipeline_called_for_training_says_what_to_call_instead(
    forge: Forge, tmp_path: Path
) -> None:
    for result in evaluate(forge, tmp_path, {"pipeline": 2}):
        assert "run.forward_backward(model, x, y, loss_fn)" in result["refusal"]


def test_dropout_is_the_same_on_ranks_that_divide_layers(forge: Forge, tmp_path: Path) -> None:
    results = evaluate(forge, tmp_path, {"shard": 2, "tensor": 2}, network="dropout")

    digests = [result["digest"] for result in results]
    assert digests[0] == digests[1] != digests[2] == digests[3]
