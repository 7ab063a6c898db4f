"""How routes that answer with a job are documented."""

from __future__ import annotations

from typing import Any

from api.jobs import schemas

_ETAG = {"x-header": "ETag"}
_REPLAYED = {"x-header": "Idempotency-Replayed"}

SHOWN: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Job,
        "description": "The job as it is now.",
        "headers": {"ETag": _ETAG},
    }
}
CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": schemas.Job,
        "description": "The new job; it is stored.",
        "headers": {
            "ETag": _ETAG,
            "Location": {"x-header": "Location"},
            "Idempotency-Replayed": _REPLAYED,
        },
        "links": {
            "get": {"operationId": "jobs_get", "parameters": {"job_id": "$response.body#/id"}},
            "cancel": {
                "operationId": "jobs_cancel",
                "parameters": {"job_id": "$response.body#/id"},
            },
        },
    }
}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The job is as `If-None-Match` names it.", "headers": {"ETag": _ETAG}}
}
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"x-schema": "JobSpec"}}},
    }
}
"""`openapi_extra=` of a route that reads a job spec by itself, to tell all problems at once."""

DRAFT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A JobSpec, or what is to become one: the answer says what it lacks.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"recipe": "image-classifier", "workers": 2},
            }
        },
    }
}
"""Likewise, where a spec that is wrong is no error."""
