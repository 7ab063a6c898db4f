"""What the service takes a recipe's model for is what the recipe builds."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge
from trainmaster.recipes import default_config
from trainmaster.recipes._sizes import find_size

pytestmark = pytest.mark.torch

CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "image-classifier": [{}, {"hidden": 7}, {"model": "mlp"}, {"model": "mlp", "hidden": 300}],
    "lm": [
        {"model": "tiny"},
        {"model": "tiny", "layers": 3, "heads": 3, "width": 192, "context": 64},
        {"model": "small", "tokens": "bpe", "vocabulary": 1000},
    ],
}


@pytest.mark.parametrize("recipe", CONFIGURATIONS)
def test_a_recipe_trains_as_many_parameters_as_it_is_taken_for(
    forge: Forge, tmp_path: Path, recipe: str
) -> None:
    configurations = CONFIGURATIONS[recipe]
    gang = forge.run(SCRIPTS / "sizes.py", tmp_path, recipe, json.dumps(configurations))

    taken_for = [
        find_size(recipe, {**default_config(recipe), **each}, ()).num_parameters
        for each in configurations
    ]

    assert taken_for == json.loads(gang.said("said"))
