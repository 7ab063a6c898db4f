"""`If-Match` and `If-None-Match` on things that have a version (RFC 9110).

An ETag of ours is `"<version>.<digest>"`. A read compares all of it; a change compares only the
version, because the rest tells of progress that nobody edits.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header

from api import shapes
from api.errors import BadParameter, PreconditionFailed

IfMatch = Annotated[
    str | None,
    Header(
        alias="if-match",
        max_length=1024,
        pattern=shapes.ENTITY_TAGS,
        description="ETag of the version you have read.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="if-none-match",
        max_length=1024,
        pattern=shapes.ENTITY_TAGS,
        description="ETags that you have; 304 if so.",
    ),
]

_TAG = re.compile(r'\s*(?:W/)?("[^"]*")\s*')
_VERSION = re.compile(r'"(\d{1,10})(?:\.[0-9a-f]+)?"')


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller already has what `etag` names.

    Raises:
        BadParameter: the header is not a list of ETags.
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _read_tags("if-none-match", if_none_match)


def check_version(if_match: str | None, kind: str, version: int) -> None:
    """Refuse a change to another version than the caller has read.

    Raises:
        PreconditionFailed: the thing has changed.
        BadParameter: the header is not a list of ETags.
    """
    if if_match is None or if_match.strip() == "*":
        return
    for tag in _read_tags("if-match", if_match):
        found = _VERSION.fullmatch(tag)
        if found is not None and int(found[1]) == version:
            return
    raise PreconditionFailed(kind)


def _read_tags(name: str, header: str) -> list[str]:
    tags = []
    for part in header.split(","):
        found = _TAG.fullmatch(part)
        if found is None:
            raise BadParameter(name, 'must be an ETag in quotation marks, or "*"')
        tags.append(found[1])
    return tags
