"""A request as its caller means it, and a complete answer. Knows no connection."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from trainmaster._errors import APIResponseError, ConfigurationError

Query = Mapping[str, "str | int | float | bool | Sequence[str] | None"]
"""None leaves a parameter out; a sequence gives it several times."""
Body = Callable[[], "bytes | Iterable[bytes]"]
"""Makes the body anew for each try."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as its caller means it, before keys and retries."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    timeout_seconds: float | None = None

    @property
    def target(self) -> str:
        """The path with its query."""
        present = {name: _text(value) for name, value in self.query.items() if value is not None}
        query = urlencode(present, doseq=True)
        return f"{self.path}?{query}" if query else self.path

    @property
    def is_repeatable(self) -> bool:
        """Whether doing it twice is the same as doing it once."""
        return self.method in _IDEMPOTENT or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer below 400."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    def json(self) -> Any:
        """Return the document.

        Raises:
            APIResponseError: it is not JSON, so it is hardly the service that answered.
        """
        try:
            return json.loads(self.content)
        except ValueError as error:
            kind = self.headers.get("content-type", "no content type")
            raise APIResponseError(
                f"{self.url} answered {self.status} with {kind} instead of JSON: "
                "is this the address of Trainmaster (TRAINMASTER_URL)?"
            ) from error


def body_of(document: object) -> Body:
    """Return the body that is this document, encoded once."""
    content = encode_json(document)
    return lambda: content


def new_idempotency_key() -> str:
    """Return a key under which one logical request is known, however often it is sent."""
    return uuid.uuid4().hex


def encode_json(document: object) -> bytes:
    """Return strict JSON.

    Raises:
        ConfigurationError: it holds NaN, an infinity, or something JSON has no word for.
    """
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"this cannot be sent as JSON: {error}") from error


def _text(value: str | float | bool | Sequence[str]) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else list(value)
