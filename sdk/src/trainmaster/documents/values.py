"""Documents of the service as frozen values: how one is read, and what its fields may hold.

Each value keeps its whole document in `raw`, fields of newer servers included, and reads what it
knows from there; unknown values of enums stay text.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

from trainmaster._errors import APIResponseError

R = TypeVar("R", bound="Resource")

_FRACTION = re.compile(r"\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A document of the service."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def parse(cls: type[R], document: Any) -> R:
        """Return the value of a document.

        Raises:
            APIResponseError: the document lacks a field that all versions have.
        """
        if not isinstance(document, dict):
            raise APIResponseError(f"expected a {cls.__name__}, got {type(document).__name__}")
        values: dict[str, Any] = {"raw": document}
        try:
            for each in dataclasses.fields(cls):
                if document.get(each.name) is not None:
                    convert: Callable[[Any], Any] | None = each.metadata.get("convert")
                    value = document[each.name]
                    values[each.name] = convert(value) if convert else value
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise APIResponseError(
                f"the server's {cls.__name__} cannot be read ({error}): is it a much newer version?"
            ) from error


def parse_instant(text: str) -> datetime:
    """Return an RFC 3339 time as an aware datetime in UTC, to the microsecond."""
    text = _FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def parse_number(value: float | str | None) -> float:
    """Return a number as metrics carry it: "NaN", "Infinity" and "-Infinity" come as text."""
    return math.nan if value is None else float(value)


def instant() -> Any:
    """Return a field that holds an instant, None where it is left out."""
    return field(default=None, metadata={"convert": parse_instant})


def nested(kind: type[Resource]) -> Any:
    """Return a field that holds one more document, None where it is left out."""
    return field(default=None, metadata={"convert": kind.parse})


def several(kind: type[Resource]) -> Any:
    """Return a field that holds a list of documents."""

    def parse(documents: Any) -> list[Any]:
        return [kind.parse(document) for document in documents]

    return field(default_factory=list, metadata={"convert": parse})


def empty(kind: type[Any]) -> Any:
    """Return a field that is empty where it is left out."""
    return field(default_factory=kind)
