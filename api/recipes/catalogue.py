"""The recipes that this service offers: one JSON file each, read once. Knows no HTTP and no row."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A built-in trainer.

    Attributes:
        module: what its ranks run, by name, in the job environment.
        config: JSON Schema of its `config`.
        inputs: {name: {"required", "description"}}.
        example: a job spec that works.
        splits: what it has a plan for, beside data and shard: tensor, pipeline.
    """

    name: str
    title: str
    description: str
    module: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    example: Mapping[str, Any]
    splits: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=8)
def list_recipes(folder: Path) -> Mapping[str, Recipe]:
    """Return the recipes described in `folder`, by name.

    Raises:
        ValueError: a description lacks a field, or two share a name.
    """
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.json")):
        recipe = _read(path)
        if recipe.name in recipes:
            raise ValueError(f"{path.name} has the name of another recipe: {recipe.name}")
        recipes[recipe.name] = recipe
    return MappingProxyType(recipes)


@functools.cache
def list_modules(folder: Path) -> Mapping[str, str]:
    """Return the module of every recipe, by its name. Read once: recipes come with the service."""
    return {name: recipe.module for name, recipe in list_recipes(folder).items()}


def _read(path: Path) -> Recipe:
    document = json.loads(path.read_text())
    try:
        splits = frozenset(document.get("splits", ()))
        return Recipe(**{**document, "metrics": tuple(document["metrics"]), "splits": splits})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} does not describe a recipe: {error}") from error
