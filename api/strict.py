"""Reading JSON bodies: limits before parsing, and nothing that JSON does not have.

`NaN`, infinities, numbers beyond 64 bits, lone surrogates, NUL, doubled names and deep nesting are
refused here, once, so that no later layer (validation, database, another language) meets them.
"""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar, NoReturn
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.errors import BadParameter, MalformedJson, UnsupportedMediaType
from api.suggest import did_you_mean
from scheduler.core.errors import Invalid, TooLarge

BODY_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 32
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

# Numbers that may leave 64 bits and escapes that may not be text. Rare, so that the common
# document is read by the C parser alone and only a suspicious one is walked.
_SUSPICIOUS = re.compile(rb"\d{19}|[eE]\+?\d{3}|\\u(?:[dD][89a-fA-F]|0000)")
# Python reads more than this as a number: `1_0`, `+5`, ` 5`, `1.0`.
_WHOLE = re.compile(r"-?[0-9]+")
_TOO_DEEP = f"more than {DEPTH_MAX} levels of nesting: make the document flatter"


def parse_json(body: bytes) -> Any:
    """Return the document that `body` says.

    Raises:
        MalformedJson: the syntax, a number, a text or the nesting is not acceptable.
    """
    if not body:
        raise MalformedJson("the body is empty: send a JSON document")
    try:
        document = json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        raise MalformedJson(f"byte {error.start} is not UTF-8: encode the body in UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedJson(f"not JSON at {place}: check the syntax there") from None
    except RecursionError:
        raise MalformedJson(_TOO_DEEP) from None
    except ValueError as error:
        if isinstance(error, MalformedJson):
            raise
        raise MalformedJson("a number has too many digits: use a text") from None
    if _SUSPICIOUS.search(body) or body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        _check(document, 1)
    return document


async def read_body(request: Request, limit_bytes: int = BODY_BYTES_MAX) -> bytes:
    """Return the whole body, giving up as soon as it is longer than `limit_bytes`.

    Raises:
        TooLarge: announced or found to be longer.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit():
        raise Invalid("content-length is not a number: leave it to your HTTP library")
    if len(announced) > 18 or int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(body)


def check_json_type(request: Request) -> None:
    """Refuse a body that does not say that it is JSON: it may come from a form of another site.

    Raises:
        UnsupportedMediaType: `content-type` is missing, or another one.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    kind, parameters = kind.strip().lower(), parameters.strip().lower()
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    if not is_json or parameters not in {"", "charset=utf-8", 'charset="utf-8"'}:
        raise UnsupportedMediaType("send the body as content-type: application/json")


class StrictRoute(APIRoute):
    """A route whose JSON body is read by `parse_json`, and whose parameters are all known ones.

    Attributes:
        body_bytes_max: limit of the body; a subclass may set another one.
    """

    body_bytes_max: ClassVar[int] = BODY_BYTES_MAX

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, behind the reader above."""
        handle = super().get_route_handler()
        check_parameters = _parameter_check(self)
        field = self.body_field

        async def strict(request: Request) -> Response:
            check_parameters(request)
            if field is not None:
                request = StrictRequest(request.scope, request.receive)
                is_needed = field.field_info.is_required()
                await request.load(self.body_bytes_max, is_needed=is_needed)
            return await handle(request)

        return strict


class StrictRequest(Request):
    """A request whose document has been read before FastAPI asks for it."""

    async def load(self, limit_bytes: int, *, is_needed: bool) -> None:
        """Read and check the body; errors leave from here, where they are translated."""
        body = await read_body(self, limit_bytes)
        if body or is_needed:
            check_json_type(self)
            self._json = parse_json(body)
        self._body = body


def _parameter_check(route: APIRoute) -> Callable[[Request], None]:
    fields = list(_iter_query(route.dependant))
    known = {field.alias for field in fields}
    whole = {field.alias for field in fields if _is_whole(field.field_info.annotation)}
    many = {field.alias for field in fields if "list" in str(field.field_info.annotation)}

    def check(request: Request) -> None:
        query: bytes = request.scope["query_string"]
        if not query:
            return
        _check_utf8(query)
        seen: set[str] = set()
        for name, value in request.query_params.multi_items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise BadParameter(None, f"the query has a parameter that is not known: {hint}")
            if name in seen and name not in many:
                raise BadParameter(name, "is given twice: give it once")
            if "\0" in value:
                raise BadParameter(name, "holds a NUL character: leave it out")
            if name in whole and not _WHOLE.fullmatch(value):
                raise BadParameter(name, "must be a whole number, such as 5")
            seen.add(name)

    return check


def _iter_query(dependant: Dependant) -> Iterator[Any]:
    yield from dependant.query_params
    for dependency in dependant.dependencies:
        yield from _iter_query(dependency)


def _is_whole(annotation: Any) -> bool:
    return annotation is int or int in typing.get_args(annotation)


def _check_utf8(query: bytes) -> None:
    """Refuse a query that would be read as other text than was meant."""
    try:
        query.decode("ascii")
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        message = "the query is not percent-encoded UTF-8: encode it with your HTTP library"
        raise BadParameter(None, message) from None


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON: use null, or a text")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("an object has the same name twice: keep one of them")
    return members


def _check(value: Any, depth: int) -> None:
    """Refuse what `_SUSPICIOUS` may have hinted at, anywhere in `value`."""
    if isinstance(value, dict | list):
        if depth > DEPTH_MAX:
            raise MalformedJson(_TOO_DEEP)
        if isinstance(value, dict):
            for name in value:
                _check_text(name)
        for part in value.values() if isinstance(value, dict) else value:
            _check(part, depth + 1)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise MalformedJson("a number is beyond what 64-bit floats hold: use a smaller one")
    elif isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
        raise MalformedJson("an integer is beyond 64 bits: use a smaller one, or a text")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MalformedJson("a text holds a NUL character: leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedJson("a text holds half a surrogate pair: send whole characters") from None


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body may have {limit_bytes} bytes: send less")
