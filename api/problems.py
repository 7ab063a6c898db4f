"""What pydantic found wrong, as problems with pointers and ways out. Pure; never repeats input."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from api.shapes import WORDS
from api.suggest import did_you_mean
from scheduler.core.errors import Problem

_PART_LENGTH_MAX = 64

# pydantic's error types in our words; the rest keep its own message. `{}` fields come from `ctx`.
_WORDS = {
    "missing": "is needed: give it a value",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be one of: {expected}",
    "enum": "must be one of: {expected}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "{words}",
    "json_type": "must be a JSON document",
    "value_error": "{error}",
}
_CODES = {"extra_forbidden": "unknown_field"}


def problems_of(
    errors: Iterable[Mapping[str, Any]], model: type[BaseModel] | None, prefix: str = ""
) -> list[Problem]:
    """Return pydantic's `errors` as problems.

    Args:
        errors: as `ValidationError.errors()` gives them; `loc` starts in the document.
        model: what the document was read as; names the nearest known field of a mistyped one.
        prefix: pointer of the document itself.
    """
    return [_problem(error, model, prefix) for error in errors]


def pointer_of(parts: Sequence[str | int]) -> str:
    """Return the RFC 6901 pointer to `parts`; long names are cut, they are the sender's own."""
    return "".join(f"/{_escape(str(part)[:_PART_LENGTH_MAX])}" for part in parts)


def _problem(error: Mapping[str, Any], model: type[BaseModel] | None, prefix: str) -> Problem:
    kind = str(error["type"])
    parts = tuple(part for part in error["loc"] if part != "[key]")
    if kind == "extra_forbidden":
        known = _names_at(model, parts[:-1])
        message = f"there is no such field: {did_you_mean(str(parts[-1]), known)}"
    else:
        words = _WORDS.get(kind)
        context = error.get("ctx", {})
        if kind == "string_pattern_mismatch":
            context = {"words": WORDS[context["pattern"]]}
        message = str(error["msg"]) if words is None else words.format_map(context)
    return Problem(prefix + pointer_of(parts), _CODES.get(kind, kind), message)


def _names_at(model: type[BaseModel] | None, parts: Sequence[str | int]) -> list[str]:
    for part in parts:
        if model is None:
            return []
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # an index, or the tag of a union: the model stays
        model = _model_in(field.annotation)
    return sorted(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        found = (_model_in(part) for part in typing.get_args(annotation))
        return next((one for one in found if one is not None), None)
    return None


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
