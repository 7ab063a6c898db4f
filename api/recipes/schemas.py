"""Recipes as they go over the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class Recipe(BaseModel):
    """A built-in trainer."""

    object: Literal["recipe"] = "recipe"
    name: str = Field(examples=["image-classifier"])
    title: str = Field(examples=["Image classifier"])
    description: str
    config: dict[str, Any] = Field(description="JSON Schema of the spec's `config`.")
    inputs: dict[str, Any] = Field(description="What the spec's `inputs` may name.")
    metrics: list[dict[str, Any]] = Field(description="What its jobs report.")
    example: dict[str, Any] = Field(description="A job spec that works.")
    splits: list[Literal["tensor", "pipeline"]] = Field(
        description="What of `parallel` it has a plan for; data and shard take any model."
    )


class RecipeList(ListEnvelope[Recipe]):
    """All recipes."""
