"""Which known name somebody may have meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_NAMES_SHOWN = 40


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the way out for an unknown `name`: the nearest known one, or all of them."""
    if not known:
        return "there are none here, leave it out"
    near = difflib.get_close_matches(name[:128], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    shown = sorted(known)
    tail = ", …" if len(shown) > _NAMES_SHOWN else ""
    return f"known: {', '.join(shown[:_NAMES_SHOWN])}{tail}"
