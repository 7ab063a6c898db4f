"""Descriptions of recipes, as the service reads them."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainmaster.recipes import default_config, describe, list_names

PAGE = Path(__file__).resolve().parents[3] / "docs/recipes.md"


@pytest.fixture(params=list_names())
def description(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One recipe after another."""
    return describe(request.param)


def test_a_description_says_everything(description: dict[str, Any]) -> None:
    assert description.keys() - {"splits"} == {
        "name", "title", "description", "module", "config", "inputs", "metrics", "example",
    }  # fmt: skip
    assert importlib.util.find_spec(description["module"]) is not None
    assert description["example"]["recipe"] == description["name"]


def test_every_setting_has_a_default_within_its_limits(description: dict[str, Any]) -> None:
    for name, schema in description["config"]["properties"].items():
        default = schema["default"]
        assert schema["description"], name
        if schema["type"] in ("integer", "number"):
            least = schema.get("minimum", schema.get("exclusiveMinimum"))
            assert least <= default <= schema["maximum"], name
            assert schema.get("exclusiveMinimum") != default, name
            assert isinstance(default, int) or schema["type"] == "number", name
        elif "enum" in schema:
            assert default in schema["enum"], name
        else:
            assert schema["type"] == "string", name
            assert len(default) <= schema["maxLength"], name


def test_the_example_gives_settings_that_there_are(description: dict[str, Any]) -> None:
    properties = description["config"]["properties"]

    assert description["config"]["additionalProperties"] is False
    assert description["example"]["config"].keys() <= properties.keys()


def test_the_image_classifier_is_there() -> None:
    assert "image-classifier" in list_names()
    assert default_config("image-classifier")["epochs"] == 30
    json.dumps(default_config("image-classifier"))


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="image-classifier"):
        describe("../py.typed")


@pytest.mark.parametrize("name", ["image-classifier", "lm", "tabular"])
def test_the_page_lists_every_setting_as_it_is(name: str) -> None:
    description = describe(name)
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    settings = description["config"]["properties"]

    shown = [row for row in found if row[0] in settings]

    assert shown == [
        (name, show(schema["default"]), schema["description"]) for name, schema in settings.items()
    ]


def show(default: Any) -> str:
    """Return a default as the page shows it."""
    return (
        "empty"
        if default == ""
        else f"`{default if isinstance(default, str) else json.dumps(default)}`"
    )
