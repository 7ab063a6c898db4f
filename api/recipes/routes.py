"""Recipes over HTTP: what can be trained without own code, and with which settings."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import CurrentCaller
from api.jobs.desk import DeskDep
from api.recipes import catalogue, schemas
from api.strict import StrictRoute
from scheduler.core.errors import NotFound
from scheduler.core.mode_rules import SPLITS_BY_PLAN

router = APIRouter(prefix="/v1/recipes", tags=["recipes"], route_class=StrictRoute)


@router.get("", operation_id="recipes_list")
async def list_(caller: CurrentCaller, desk: DeskDep) -> schemas.RecipeList:
    """List the recipes; there is one page."""
    data = [_represent(desk.recipes[name]) for name in sorted(desk.recipes)]
    return schemas.RecipeList(data=data, has_more=False, next_cursor=None)


@router.get("/{name}", operation_id="recipes_get")
async def get(name: str, caller: CurrentCaller, desk: DeskDep) -> schemas.Recipe:
    """Read a recipe."""
    recipe = desk.recipes.get(name)
    if recipe is None:
        raise NotFound("this recipe")
    return _represent(recipe)


def _represent(recipe: catalogue.Recipe) -> schemas.Recipe:
    return schemas.Recipe(
        name=recipe.name,
        title=recipe.title,
        description=recipe.description,
        config=dict(recipe.config),
        inputs=dict(recipe.inputs),
        metrics=[dict(metric) for metric in recipe.metrics],
        example=dict(recipe.example),
        splits=[name for name in SPLITS_BY_PLAN if name in recipe.splits],
    )
