"""How things are named in paths: by id, given as text or as the thing itself."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote

from trainmaster._errors import ConfigurationError


class HasId(Protocol):
    """A job, a checkpoint, a file: anything with an id."""

    @property
    def id(self) -> str:
        """The id."""


Ref = str | HasId
"""An id, or the thing that has it."""


def id_of(thing: Ref) -> str:
    """Return the id.

    Raises:
        ConfigurationError: it is empty, so that the path would name the whole list.
    """
    text = thing if isinstance(thing, str) else thing.id
    if not text or text in {".", ".."}:
        raise ConfigurationError("an id is empty: give one like job_…")
    return text


def path_to(collection: str, thing: Ref, *rest: str) -> str:
    """Return `/v1/<collection>/<id>/<rest…>` with everything quoted that needs it."""
    return "/".join(["", "v1", collection, quote(id_of(thing), safe=""), *rest])
