"""Lists in pages: the envelope, and cursors that only this service can make.

A cursor holds the last key of its page, so pages stay right while rows come and go. It is signed
with the name of its list, so that one of another list, or a made-up one, is refused.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.deps import Page
from api.errors import BadCursor

T = TypeVar("T")
CursorKey = str | int
_MAC_BYTES = 12


class ListEnvelope(BaseModel, Generic[T]):
    """One page of a list. Subclass it with the kind of entry, so that the schema has a name."""

    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="Whether there is a next page.")
    next_cursor: str | None = Field(
        description="Give it as `after` for the next page; null on the last one."
    )


def issue_cursor(signing_key: bytes, list_name: str, key: CursorKey) -> str:
    """Return the cursor that stands after `key` in the list of that name."""
    payload = json.dumps(key, ensure_ascii=False).encode()
    raw = _sign(signing_key, list_name, payload) + payload
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read_cursor(signing_key: bytes, list_name: str, cursor: str) -> CursorKey:
    """Return the key that `cursor` holds.

    Raises:
        BadCursor: not made here, or not for this list.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise BadCursor from None
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _sign(signing_key, list_name, payload)):
        raise BadCursor
    key: CursorKey = json.loads(payload)
    return key


def read_after(signing_key: bytes, list_name: str, page: Page) -> CursorKey | None:
    """Return the key after which `page` begins, None for the first page."""
    if page.after is None:
        return None
    return read_cursor(signing_key, list_name, page.after)


def cut_page(
    signing_key: bytes, list_name: str, rows: Sequence[T], keys: Sequence[CursorKey], limit: int
) -> tuple[Sequence[T], bool, str | None]:
    """Return the page's rows, whether there are more, and the cursor to those.

    Args:
        rows: up to `limit + 1` rows, as fetched.
        keys: the key of each row.
    """
    if len(rows) <= limit:
        return rows, False, None
    return rows[:limit], True, issue_cursor(signing_key, list_name, keys[limit - 1])


def _sign(signing_key: bytes, list_name: str, payload: bytes) -> bytes:
    text = b"cursor\0" + list_name.encode() + b"\0" + payload
    return hmac.digest(signing_key, text, "sha256")[:_MAC_BYTES]
