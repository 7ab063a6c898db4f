"""What submitting needs beside the request, as one value and as a dependency of routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.config import ApiConfig
from api.jobs.world import Worlds
from api.recipes.catalogue import Recipe, list_recipes
from models import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where jobs are handed in.

    Attributes:
        version: of the service.
    """

    database: Database
    worlds: Worlds
    recipes: Mapping[str, Recipe]
    grace_seconds: int
    version: str


def open_desk(config: ApiConfig, database: Database) -> Desk:
    """Return the desk of an app."""
    recipes = list_recipes(config.recipes_dir)
    splits = {name: recipe.splits for name, recipe in recipes.items()}
    worlds = Worlds(database, splits, config.input_roots)
    grace_seconds = round(config.timers.grace_seconds)
    return Desk(
        database=database,
        worlds=worlds,
        recipes=recipes,
        grace_seconds=grace_seconds,
        version=config.version,
    )


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskDep = Annotated[Desk, Depends(_desk)]
