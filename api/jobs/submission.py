"""From a document to a job spec, with everything that is wrong with it, at once. Pure.

Shape and meaning are checked together: where some fields have no usable shape, the others are
still checked for what they mean, and what could only be a consequence of the former is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from api.jobs.spec_schema import JobSpecDocument
from api.problems import pointer_of, problems_of
from api.recipes.catalogue import Recipe
from api.recipes.config_rules import check_config
from api.recipes.layout_rules import check_layout
from api.suggest import did_you_mean
from scheduler.core.errors import Problem
from scheduler.core.spec import JobSpec, read_spec
from scheduler.core.spec_rules import World, check_spec, count_gpus, settle_queue

# Problems that may follow from the bad shape of another field.
_CONSEQUENCES: Mapping[str, frozenset[str]] = {
    "missing_source": frozenset({"recipe", "code"}),
    "missing_entrypoint": frozenset({"entrypoint"}),
    "two_sources": frozenset({"recipe", "code", "entrypoint"}),
    "layout_mismatch": frozenset({"workers", "parallel"}),
    "gang_too_large": frozenset({"workers", "parallel", "resources", "pool"}),
    "worker_too_large": frozenset({"resources", "pool"}),
    "no_such_gpu": frozenset({"resources", "pool", "queue"}),
    "unknown_queue": frozenset({"queue", "pool"}),
    "wrong_queue": frozenset({"queue", "pool"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A document that was read.

    Attributes:
        document: the whole spec with defaults, of the fields whose shape is good.
        problems: everything wrong with it; empty when it may be submitted.
        num_gpus: of the whole gang, as far as the pool is known.
        is_project_given: whether it names a project; else it goes to the caller's own.
    """

    spec: JobSpec
    document: dict[str, Any]
    problems: tuple[Problem, ...]
    is_project_given: bool
    num_gpus: int


def read_submission(
    document: Any, world: World, recipes: Mapping[str, Recipe], *, grace_seconds: int = 30
) -> Submission:
    """Return what `document` says, and every problem that can be seen without the database.

    `grace_seconds` is for specs that do not name their own.
    """
    shape_problems: list[Problem] = []
    try:
        model = JobSpecDocument.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        shape_problems = problems_of(errors, JobSpecDocument)
        model = _read_rest(document, errors)
    bad = frozenset(problem.pointer.split("/")[1] for problem in shape_problems if problem.pointer)
    whole = model.model_dump()
    if "grace_seconds" not in model.limits.model_fields_set:
        whole["limits"]["grace_seconds"] = grace_seconds
    spec = settle_queue(read_spec(whole), world)
    whole["queue"], whole["pool"] = spec.queue, spec.pool
    found = [*check_spec(spec, world), *_check_recipe(spec, recipes, bad)]
    kept = [problem for problem in found if not _is_consequence(problem, bad)]
    if shape_problems and not bad:
        kept = []  # not an object at all: nothing more can be said
    return Submission(
        spec=spec,
        document=whole,
        problems=(*shape_problems, *kept),
        is_project_given="project" in model.model_fields_set,
        num_gpus=count_gpus(spec, world),
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` changed as `patch` says (RFC 7396); neither is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _read_rest(document: Any, errors: Iterable[Mapping[str, Any]]) -> JobSpecDocument:
    bad = {str(error["loc"][0]) for error in errors if error["loc"]}
    if not isinstance(document, dict):
        return JobSpecDocument()
    return JobSpecDocument.model_validate(
        {name: value for name, value in document.items() if name not in bad}
    )


def _check_recipe(
    spec: JobSpec, recipes: Mapping[str, Recipe], bad: frozenset[str]
) -> list[Problem]:
    recipe = recipes.get(spec.recipe) if spec.recipe is not None else None
    if recipe is None:
        return []
    problems = [] if "config" in bad else check_config(spec.config, recipe.config)
    if not problems and bad.isdisjoint({"config", "workers", "parallel", "elastic"}):
        problems = check_layout(spec, recipe)
    for name, about in recipe.inputs.items():
        if about.get("required") and name not in spec.inputs and "inputs" not in bad:
            message = f"the recipe needs this input: {about['description']}"
            problems.append(Problem(pointer_of(("inputs", name)), "missing_input", message))
    for name in spec.inputs:
        if name not in recipe.inputs:
            hint = did_you_mean(name, list(recipe.inputs))
            message = f"the recipe has no such input: {hint}"
            problems.append(Problem(pointer_of(("inputs", name)), "unknown_input", message))
    return problems


def _is_consequence(problem: Problem, bad: frozenset[str]) -> bool:
    top = problem.pointer.split("/")[1] if problem.pointer else ""
    return top in bad or not bad.isdisjoint(_CONSEQUENCES.get(problem.code, frozenset()))
