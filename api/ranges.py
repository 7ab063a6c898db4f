"""One byte range of a known length, as RFC 9110 has it. Pure; knows no request and no file."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`start` up to and without `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes it names."""
        return self.stop - self.start


class Unsatisfiable(Exception):
    """The range lies outside of what there is."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Return the range that a `Range` header asks for, None to send the whole.

    Several ranges, other units and what cannot be read are ignored, as the RFC allows: the answer
    is then the whole.

    Raises:
        Unsatisfiable: it is one range, and none of its bytes exist.
    """
    match = _ONE_RANGE.fullmatch(header) if header is not None else None
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size_bytes)
        if length == 0:
            raise Unsatisfiable
        return ByteRange(size_bytes - length, size_bytes)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size_bytes:
        raise Unsatisfiable
    stop = min(int(last) + 1, size_bytes) if last else size_bytes
    return ByteRange(start, stop)


def matches_etag(header: str | None, etag: str) -> bool:
    """Say whether an `If-None-Match` or `If-Match` names `etag` (weak comparison)."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return any(part.strip().removeprefix("W/") == etag for part in header.split(","))
