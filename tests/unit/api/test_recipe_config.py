"""Recipes and the settings that they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.recipes.catalogue import list_modules, list_recipes
from api.recipes.config_rules import check_config

FOLDER = Path(__file__).parents[3] / "sdk" / "src" / "trainmaster" / "recipes"
# What `check_config` knows, and what only describes.
KNOWN = {
    "type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
    "maxLength", "minItems", "maxItems", "items", "properties", "required", "additionalProperties",
    "$schema", "title", "description", "default", "examples",
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["epochs"],
    "properties": {
        "epochs": {"type": "integer", "minimum": 1, "maximum": 9},
        "lr": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "model": {"type": "string", "enum": ["cnn", "mlp"]},
        "name": {"type": ["string", "null"], "minLength": 2, "maxLength": 3},
        "layers": {"type": "array", "maxItems": 2, "items": {"type": "integer", "minimum": 1}},
        "shuffle": {"type": "boolean"},
    },
}


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({"epochs": 1}, {}),
        ({"epochs": 9, "lr": 0.5, "model": "mlp", "name": None, "layers": [1, 2]}, {}),
        ({}, {"/config/epochs": "missing"}),
        ({"epochs": 0}, {"/config/epochs": "out_of_range"}),
        ({"epochs": 10}, {"/config/epochs": "out_of_range"}),
        ({"epochs": 1.0}, {"/config/epochs": "wrong_type"}),
        ({"epochs": True}, {"/config/epochs": "wrong_type"}),
        ({"epochs": "1"}, {"/config/epochs": "wrong_type"}),
        ({"epochs": None}, {"/config/epochs": "wrong_type"}),
        ({"epochs": 1, "lr": 0}, {"/config/lr": "out_of_range"}),
        ({"epochs": 1, "lr": 1}, {"/config/lr": "out_of_range"}),
        ({"epochs": 1, "model": "gpt"}, {"/config/model": "not_one_of"}),
        ({"epochs": 1, "name": "x"}, {"/config/name": "out_of_range"}),
        ({"epochs": 1, "name": "xxxx"}, {"/config/name": "out_of_range"}),
        ({"epochs": 1, "layers": [1, 0, "x"]},
         {"/config/layers": "out_of_range", "/config/layers/1": "out_of_range",
          "/config/layers/2": "wrong_type"}),
        ({"epochs": 1, "shuffle": 1}, {"/config/shuffle": "wrong_type"}),
        ({"epochs": 1, "epoch/s": 1}, {"/config/epoch~1s": "unknown_field"}),
    ],
)  # fmt: skip
def test_a_config_is_checked_whole(config: dict[str, Any], problems: dict[str, str]) -> None:
    found = check_config(config, SCHEMA)

    assert {problem.pointer: problem.code for problem in found} == problems


def _keywords(schema: Any) -> Iterator[str]:
    yield from schema
    for part in schema.get("properties", {}).values():
        yield from _keywords(part)
    if "items" in schema:
        yield from _keywords(schema["items"])


@pytest.mark.parametrize("name", sorted(list_recipes(FOLDER)))
def test_recipes_use_only_what_is_checked_and_default_to_what_is_allowed(name: str) -> None:
    recipe = list_recipes(FOLDER)[name]

    assert set(_keywords(recipe.config)) <= KNOWN
    defaults = {
        key: part["default"]
        for key, part in recipe.config["properties"].items()
        if "default" in part
    }
    assert check_config(defaults, recipe.config) == []
    assert recipe.config["additionalProperties"] is False
    assert list_modules(FOLDER)[name] == recipe.module


@pytest.mark.parametrize("document", [{}, {"name": "x"}, {"name": "x", "colour": "red"}])
def test_a_description_that_is_none_is_told(tmp_path: Path, document: dict[str, str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(document))

    with pytest.raises(ValueError, match=r"x\.json"):
        list_recipes(tmp_path)
