"""Built-in trainings: each a description (`<name>.json`) and the module it names.

The description is what the service validates a job against and what the dashboard shows; the
module takes its defaults from there, so each is written once. Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def describe(name: str) -> dict[str, Any]:
    """Return a recipe's description: config schema, inputs, metrics, an example job.

    Raises:
        KeyError: there is no recipe of that name.
    """
    if name not in list_names():
        raise KeyError(f"no recipe is called {name!r}; there are: {', '.join(list_names())}")
    path = Path(__file__).with_name(f"{name}.json")
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return description


def list_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.json"))


def default_config(name: str) -> dict[str, Any]:
    """Return the configuration a recipe runs with when a job gives none."""
    properties = describe(name)["config"]["properties"]
    return {key: schema["default"] for key, schema in properties.items()}
