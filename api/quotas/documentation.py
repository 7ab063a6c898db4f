"""How routes that answer with a quota are documented."""

from __future__ import annotations

from typing import Any

from api.quotas import schemas

_ETAG = {"x-header": "ETag"}

SHOWN: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Quota,
        "description": "The quota as it is now.",
        "headers": {"ETag": _ETAG},
    }
}
CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": schemas.Quota,
        "description": "The new quota.",
        "headers": {
            "ETag": _ETAG,
            "Location": {"x-header": "Location"},
            "Idempotency-Replayed": {"x-header": "Idempotency-Replayed"},
        },
    }
}
