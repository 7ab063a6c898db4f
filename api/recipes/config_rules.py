"""Whether a job's `config` is one that its recipe takes: the part of JSON Schema that recipes use.

All problems at once, each with its pointer. An unknown key is refused with the nearest known one:
a mistyped hyperparameter would otherwise train for hours at its default. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from api.problems import pointer_of
from api.suggest import did_you_mean
from scheduler.core.errors import Problem

Parts = tuple[str | int, ...]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
    "null": lambda value: value is None,
}
_TYPE_WORDS = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, bound: value >= bound, "must be at least {}"),
    "maximum": (lambda value, bound: value <= bound, "must be at most {}"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "must be more than {}"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "must be less than {}"),
}
_LENGTHS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minLength": (lambda value, bound: len(value) >= bound, "must have at least {} characters"),
    "maxLength": (lambda value, bound: len(value) <= bound, "must have at most {} characters"),
    "minItems": (lambda value, bound: len(value) >= bound, "must have at least {} entries"),
    "maxItems": (lambda value, bound: len(value) <= bound, "must have at most {} entries"),
}


def check_config(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Problem]:
    """Return everything that is wrong with `config`; pointers begin with /config."""
    return list(_check(config, schema, ("config",)))


def _check(value: Any, schema: Mapping[str, Any], at: Parts) -> Iterator[Problem]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        words = " or ".join(_TYPE_WORDS[kind] for kind in kinds)
        yield Problem(pointer_of(at), "wrong_type", f"must be {words}")
        return
    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join(str(one) for one in schema["enum"])
        yield Problem(pointer_of(at), "not_one_of", f"must be one of: {known}")
        return
    yield from _check_range(value, schema, at)
    if isinstance(value, Mapping):
        yield from _check_object(value, schema, at)
    if isinstance(value, list) and "items" in schema:
        for index, entry in enumerate(value):
            yield from _check(entry, schema["items"], (*at, index))


def _check_range(value: Any, schema: Mapping[str, Any], at: Parts) -> Iterator[Problem]:
    rules = _BOUNDS if _TYPES["number"](value) else {}
    if isinstance(value, str | list):
        rules = _LENGTHS
    for name, (holds, words) in rules.items():
        if name in schema and not holds(value, schema[name]):
            yield Problem(pointer_of(at), "out_of_range", words.format(schema[name]))


def _check_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], at: Parts
) -> Iterator[Problem]:
    known: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield Problem(pointer_of((*at, name)), "missing", "is needed: give it a value")
    for name, part in value.items():
        if name in known:
            yield from _check(part, known[name], (*at, name))
        elif schema.get("additionalProperties", True) is False:
            message = f"the recipe has no such setting: {did_you_mean(name, list(known))}"
            yield Problem(pointer_of((*at, name)), "unknown_field", message)
