"""The OpenAPI document: what FastAPI knows of the routes, completed by what holds for all of them.

Added here, once: problems that any route may answer with, headers, who may call, schemas of bodies
that routes read by themselves. The same code gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api import deps
from api.errors import PROBLEM_TYPE, ProblemDocument
from api.jobs.spec_schema import JobSpecDocument

Document = dict[str, Any]

_DESCRIPTION = """\
Training as a service on your own machines: submit a job, follow it, fetch its checkpoints.

Send your key as `authorization: Bearer tml-…`. Errors are problem documents (RFC 9457) with a
stable `code`. Lists come in pages: give `next_cursor` as `after`. Instants are RFC 3339 in UTC.
New fields and new values of enums may be added at any time.
"""

_TAGS = {
    "jobs": "Requests to train: submit, follow, control.",
    "events": "What happened to a job, in order.",
    "attempts": "Executions of a job.",
    "logs": "What the ranks printed.",
    "metrics": "What the code measured.",
    "checkpoints": "Points from which a job can go on.",
    "verifications": "How well jobs resume, found out by killing one.",
    "files": "Code bundles and inputs.",
    "recipes": "Built-in trainers.",
    "pools": "Sets of machines.",
    "nodes": "Machines.",
    "queues": "Where jobs wait.",
    "quotas": "What projects and their users may use.",
    "usage": "What they have used.",
    "projects": "Groups of people.",
    "keys": "Credentials of people and programs.",
    "sessions": "Credentials of browsers.",
    "system": "The service itself.",
    "worker": "The protocol of node daemons and supervisors; not for people.",
}

_SCHEMES: Mapping[str, Document] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, `tml-…`."},
    "key_header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {"type": "apiKey", "in": "cookie", "name": "trainmaster_session"},
    "node": {"type": "http", "scheme": "bearer", "description": "A node's credential, `tmn-…`."},
    "attempt": {"type": "http", "scheme": "bearer", "description": "An attempt's token, `tma-…`."},
}
_USER_SECURITY: list[Document] = [{"key": []}, {"key_header": []}, {"session": []}]
_SECURITY: Mapping[object, list[Document]] = {
    deps.viewer: _USER_SECURITY,
    deps.member: _USER_SECURITY,
    deps.admin: _USER_SECURITY,
    deps.node: [{"node": []}],
    deps.attempt: [{"attempt": []}],
    deps.public: [],
}

_HEADERS: Mapping[str, Document] = {
    "x-request-id": {"description": "Names this request in the service's log."},
    "ETag": {"description": "Names this version; give it as If-Match or If-None-Match."},
    "Location": {"description": "Path of what was made."},
    "Idempotency-Replayed": {"description": "`true` when this is the answer of an earlier call."},
    "Retry-After": {"description": "Seconds to wait before the same request."},
    "WWW-Authenticate": {"description": "How to authenticate."},
    "x-should-retry": {"description": "Whether the same request may go through later."},
}
_ALWAYS = (400, 421, 431, 500, 503)
_WITH_BODY = (413, 415, 422)


def render(app: FastAPI) -> str:
    """Return the document of `app` as JSON text."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": words} for name, words in _TAGS.items()],
        separate_input_output_schemas=False,
    )
    components = document["components"]
    components["schemas"].update(_extra_schemas())
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["securitySchemes"] = dict(_SCHEMES)
    components["headers"] = {
        name: {**header, "schema": {"type": "string"}} for name, header in _HEADERS.items()
    }
    _require_what_is_always_there(document)
    document["paths"] = _hoist(document["paths"], components["schemas"])
    statuses: set[int] = set()
    for route, operation in _iter_operations(app, document):
        statuses |= _complete(route, operation)
    components["responses"] = {
        _problem_name(status): _problem(status) for status in sorted(statuses)
    }
    document = _with_short_names(document)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _extra_schemas() -> Document:
    kinds: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (JobSpecDocument, "validation"),
        (ProblemDocument, "validation"),
    ]
    _, extra = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    definitions: Document = extra["$defs"]
    return definitions


def _iter_operations(app: FastAPI, document: Document) -> Iterator[tuple[APIRoute, Document]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in sorted(route.methods or ()):
                yield route, document["paths"][route.path_format][method.lower()]


def _complete(route: APIRoute, operation: Document) -> set[int]:
    """Add what holds for all operations; return the statuses of its problems."""
    caller = deps.find_callers(route.dependant).pop()
    operation["security"] = _SECURITY[caller]
    responses: Document = operation["responses"]
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        del responses["422"]
    operation["summary"] = operation["description"].split("\n", 1)[0].rstrip(".")
    for parameter in operation.get("parameters", []):
        _drop_null(parameter["schema"])
    problems = {int(status) for status in responses if status.isdigit() and int(status) >= 400}
    problems |= set(_ALWAYS)
    problems |= {404} if "{" in route.path else set()
    problems |= {401, 403} if caller is not deps.public else set()
    problems |= set(_WITH_BODY) if "requestBody" in operation else set()
    problems |= {507} if route.methods != {"GET"} else set()
    for text, response in responses.items():
        if text.isdigit() and int(text) < 400:
            headers = response.setdefault("headers", {})
            headers.setdefault("x-request-id", {"x-header": "x-request-id"})
    for status in sorted(problems):
        responses[str(status)] = {"$ref": f"#/components/responses/{_problem_name(status)}"}
    operation["responses"] = dict(sorted(responses.items()))
    return problems


def _drop_null(schema: Document) -> None:
    """Say of a parameter that may be left out what it is when it is there: never null."""
    kinds = schema.get("anyOf", [])
    if {"type": "null"} in kinds:
        kinds.remove({"type": "null"})
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])


def _hoist(value: Any, schemas: Document) -> Any:
    """Move the schemas that routes write out themselves to the named ones."""
    if isinstance(value, list):
        return [_hoist(part, schemas) for part in value]
    if not isinstance(value, dict):
        return value
    lifted = {name: _hoist(part, schemas) for name, part in value.items()}
    if "title" not in lifted or "properties" not in lifted:
        return lifted
    schemas[lifted["title"]] = lifted
    return {"$ref": f"#/components/schemas/{lifted['title']}"}


def _require_what_is_always_there(document: Document) -> None:
    """Mark all fields of what only goes out as required: nothing is ever left out of an answer."""
    schemas: Document = document["components"]["schemas"]
    bodies = [
        operation["requestBody"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    incoming = _reach([*bodies, {"$ref": "JobSpecDocument"}], schemas)
    for name, schema in schemas.items():
        # Items of problems say what they point at, in the body or beside it.
        if name not in incoming and name not in {"ProblemDocument", "ErrorItem"}:
            schema["required"] = list(schema.get("properties", {}))


def _reach(value: Any, schemas: Document) -> set[str]:
    found: set[str] = set()
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in found:
                found.add(name)
                pending.append(schemas[name])
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return found


def _problem_name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")


def _problem(status: int) -> Document:
    headers = ["x-request-id", "x-should-retry"]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append("WWW-Authenticate")
    return {
        "description": f"{HTTPStatus(status).phrase}: see `code` and `detail`.",
        "headers": {name: {"x-header": name} for name in headers},
        "content": {PROBLEM_TYPE: {"schema": {"x-schema": "Problem"}}},
    }


def _with_short_names(document: Document) -> Document:
    """Name schemas by their titles, and make our short-hands into references."""
    schemas: Document = document["components"]["schemas"]
    names = {name: schema.get("title", name) for name, schema in schemas.items()}
    if len(set(names.values())) != len(names):
        doubled = sorted(title for title in names.values() if list(names.values()).count(title) > 1)
        raise ValueError(f"two schemas have the same title: {', '.join(doubled)}")
    document["components"]["schemas"] = {
        names[name]: schemas[name] for name in sorted(schemas, key=lambda name: names[name])
    }
    renamed: Document = _rename(document, names)
    return renamed


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_rename(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    if "x-schema" in value:
        return {"$ref": f"#/components/schemas/{value['x-schema']}", **_beside(value)}
    if "x-header" in value:
        return {"$ref": f"#/components/headers/{value['x-header']}"}
    renamed = {name: _rename(part, names) for name, part in value.items()}
    reference = renamed.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
        name = reference.rpartition("/")[2]
        renamed["$ref"] = f"#/components/schemas/{names.get(name, name)}"
    return renamed


def _beside(value: Mapping[str, Any]) -> Document:
    return {name: part for name, part in value.items() if name in {"description", "title"}}
