"""From errors to answers: one table of statuses, one document (RFC 9457).

Knows HTTP, so that the domain need not. No answer carries a stack, a statement or raw input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.problems import problems_of
from scheduler.core.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    OutOfStorage,
    Problem,
    ServiceError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

PROBLEM_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = 1


class MalformedJson(Invalid):
    """The body is not a JSON document, or says what JSON cannot say."""

    code = "malformed_json"


class UnsupportedMediaType(Invalid):
    """The body is of a kind that this route does not read."""

    code = "unsupported_media_type"


class BadRequest(Invalid):
    """The request line or a header says something that cannot be meant."""

    code = "bad_request"


class BadParameter(Invalid):
    """A query parameter or header has a value that it cannot have."""

    code = "invalid_parameter"

    def __init__(self, parameter: str | None, message: str) -> None:
        super().__init__(f"{parameter} {message}" if parameter else message)
        self.parameter = parameter


class BadCursor(BadParameter):
    """`after` is not a cursor of this list."""

    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("after", "is not a cursor of this list: use `next_cursor` of a page of it")


class HeadersTooLarge(Invalid):
    """The path and the headers are more than is read before anybody is known."""

    code = "headers_too_large"


class HostNotAllowed(Invalid):
    """The request names a host that this service does not go by."""

    code = "host_not_allowed"


class MethodNotAllowed(Invalid):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class PreconditionFailed(Conflict):
    """`If-Match` names another version than the present one."""

    code = "precondition_failed"

    def __init__(self, kind: str) -> None:
        super().__init__(f"the {kind} has changed: read it again, then repeat the request")


class NameTaken(Conflict):
    """There is one of that name."""

    code = "name_taken"


class IdempotencyMismatch(Invalid):
    """The idempotency key came with another body before."""

    code = "idempotency_mismatch"


class RangeNotSatisfiable(Invalid):
    """The range lies outside of what there is."""

    code = "range_not_satisfiable"


class InternalError(ServiceError):
    """We made a mistake."""

    code = "internal_error"


STATUS_BY_ERROR: dict[type[ServiceError], HTTPStatus] = {
    MalformedJson: HTTPStatus.BAD_REQUEST,
    BadRequest: HTTPStatus.BAD_REQUEST,
    BadParameter: HTTPStatus.BAD_REQUEST,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HeadersTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HostNotAllowed: HTTPStatus.MISDIRECTED_REQUEST,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    OutOfStorage: HTTPStatus.INSUFFICIENT_STORAGE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ServiceError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Category to status; a subclass without an entry has that of its nearest base."""


class ErrorItem(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str | None = Field(
        default=None,
        description="RFC 6901 pointer to the value in the body.",
        examples=["/config/epochs"],
    )
    parameter: str | None = Field(
        default=None, description="Name of the query parameter or header.", examples=["limit"]
    )
    code: str = Field(description="Stable name of the problem.", examples=["unknown_field"])
    message: str = Field(
        description="The fact and the way out.",
        examples=["there is no such field: did you mean epochs?"],
    )


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it. Some errors have further members."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field(
        description="URI of the kind of problem.", examples=["urn:trainmaster:problem:not_found"]
    )
    title: str = Field(description="The kind of problem in words.", examples=["Not found"])
    status: int = Field(ge=400, le=599, description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What happened and what to do.",
        examples=["this job does not exist, or your key may not see it"],
    )
    instance: str = Field(
        description="URI of this occurrence.", examples=["urn:trainmaster:request:req-5f0c"]
    )
    code: str = Field(description="Stable snake_case name.", examples=["not_found"])
    request_id: str = Field(description="Also in the header x-request-id.", examples=["req-5f0c"])
    errors: list[ErrorItem] = Field(description="Every single problem; may be empty.")
    retryable: bool = Field(description="Whether the same request may go through later.")


def status_of(error: ServiceError) -> HTTPStatus:
    """Return the status that `error` is answered with."""
    return next(STATUS_BY_ERROR[kind] for kind in type(error).mro() if kind in STATUS_BY_ERROR)


def render_problem(error: ServiceError, request_id: str) -> Response:
    """Return the answer that tells of `error`."""
    status = status_of(error)
    document: dict[str, Any] = {
        "type": f"urn:trainmaster:problem:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status.value,
        "detail": error.message,
        "instance": f"urn:trainmaster:request:{request_id}",
        "code": error.code,
        "request_id": request_id,
        "errors": _items(error),
        "retryable": error.is_retryable,
    }
    document.update(error.members)
    headers = {"cache-control": "no-store", "x-should-retry": str(error.is_retryable).lower()}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="trainmaster"'
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    if isinstance(error, RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.members['size_bytes']}"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = str(error.members["allow"])
    body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, status.value, headers, PROBLEM_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error that a route raises into a problem document."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(kind, _on_database_error)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that may answer with these problems.

    What any route may answer (400, 401, 403, 404 for a path with an id, 413, 415 and 422 for one
    with a body, 500, 503) need not be named: the document adds it.
    """
    return {
        status: {"model": ProblemDocument, "description": HTTPStatus(status).phrase}
        for status in statuses
    }


def database_error(error: Exception) -> ServiceError:
    """Return what a failure of the database is to the caller: full, or away for now."""
    cause = str(error.orig) if isinstance(error, DBAPIError) else ""
    if "disk is full" in cause or "No space left" in cause:
        return OutOfStorage("the database's disk is full: ask the operator to make room")
    return Unavailable("the database does not answer in time: repeat the request in a moment")


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return render_problem(error, _request_id(request))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return render_problem(_invalid(request, error), _request_id(request))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return render_problem(_translate(request, error), _request_id(request))


async def _on_database_error(request: Request, error: Exception) -> Response:
    return render_problem(database_error(error), _request_id(request))


def _invalid(request: Request, error: RequestValidationError) -> ServiceError:
    errors = error.errors()
    outside = [one for one in errors if one["loc"][0] != "body"]
    if outside:
        (problem,) = problems_of([{**outside[0], "loc": ()}], None)
        return BadParameter(str(outside[0]["loc"][-1]), problem.message)
    field = getattr(request.scope.get("route"), "body_field", None)
    model = field.field_info.annotation if field is not None else None
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    inside = [{**one, "loc": one["loc"][1:]} for one in errors]
    problems = problems_of(inside, model if is_model else None)
    noun = "problem" if len(problems) == 1 else "problems"
    return Invalid(f"the body has {len(problems)} {noun}: see `errors`", problems=problems)


def _translate(request: Request, error: HTTPException) -> ServiceError:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return NotFound("this path")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(sorted(_allowed_methods(request)))
            message = f"this path takes {allowed}"
            return MethodNotAllowed(message, members={"allow": allowed})
        case _:
            return BadRequest("the request cannot be read: check it against /docs")


def _allowed_methods(request: Request) -> set[str]:
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods


def _items(error: ServiceError) -> list[Mapping[str, str]]:
    if isinstance(error, BadParameter) and error.parameter is not None:
        return [{"parameter": error.parameter, "code": error.code, "message": error.message}]
    return [_item(problem) for problem in error.problems]


def _item(problem: Problem) -> Mapping[str, str]:
    return {"pointer": problem.pointer, "code": problem.code, "message": problem.message}


def _request_id(request: Request) -> str:
    return str(request.scope["state"]["request_id"])
