"""What a recipe's configuration and a layout say together, at submit."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from api.jobs.submission import read_submission
from api.recipes import layout_rules
from api.recipes.catalogue import list_recipes
from scheduler.core.spec_rules import PoolView, World

FOLDER = Path(__file__).parents[3] / "sdk" / "src" / "trainmaster" / "recipes"
RECIPES = list_recipes(FOLDER)
WORLD = World(
    recipes={name: recipe.splits for name, recipe in RECIPES.items()},
    pools={"default": PoolView()},
    queues={"default": "default"},
)


def _problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    found = read_submission(document, WORLD, RECIPES).problems
    return [(problem.pointer, problem.code) for problem in found]


@pytest.mark.parametrize(
    ("document", "want"),
    [
        pytest.param(
            {"recipe": "lm", "workers": 4, "config": {"batch_size": 4}}, [], id="one for each share"
        ),
        pytest.param(
            {"recipe": "lm", "workers": 4, "config": {"batch_size": 3}},
            [("/config/batch_size", "batch_too_small")],
            id="fewer samples than shares",
        ),
        pytest.param(
            {"recipe": "lm", "workers": 17},
            [("/config/batch_size", "batch_too_small")],
            id="the default is not enough either",
        ),
        pytest.param(
            {"recipe": "image-classifier", "parallel": {"data": 2, "shard": 2},
             "config": {"batch_size": 3}},
            [("/config/batch_size", "batch_too_small")],
            id="shards take samples of their own",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 4}, "config": {"batch_size": 1}},
            [],
            id="tensor ranks take the same ones",
        ),
        pytest.param(
            {"recipe": "lm", "workers": 2, "elastic": {"min_workers": 1, "max_workers": 17}},
            [("/elastic/max_workers", "batch_too_small")],
            id="too few for the largest size",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 3}},
            [("/parallel/tensor", "heads_undivided")],
            id="four heads on three ranks",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 3}, "config": {"model": "small"}},
            [],
            id="six heads on three ranks",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 4}, "config": {"heads": 2}},
            [("/parallel/tensor", "heads_undivided")],
            id="two heads on four ranks",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 3}, "resume_from": "ckpt_1"},
            [],
            id="a checkpoint says how many heads there are",
        ),
        pytest.param(
            {"recipe": "lm", "parallel": {"tensor": 3}, "config": {"heads": "two"}},
            [("/config/heads", "wrong_type")],
            id="a configuration that is wrong is only told that",
        ),
    ],
)  # fmt: skip
def test_what_the_ranks_would_find_out_is_said_at_submit(
    document: dict[str, Any], want: list[tuple[str, str]]
) -> None:
    assert _problems(document) == want


def test_every_code_is_explained_where_recipes_are() -> None:
    source = ast.parse(inspect.getsource(layout_rules))
    codes = {
        call.args[1].value
        for call in ast.walk(source)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Problem"
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, str)
    }
    page = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text()

    assert codes
    assert [code for code in codes if f"`{code}`" not in page] == []
