"""Every error of the domain has an answer; the answer is always the same kind of document."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import api.app  # noqa: F401  imports whatever defines an error
from api.errors import ProblemDocument, render_problem, status_of
from scheduler.core.errors import Problem, ServiceError


def _kinds(kind: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _kinds(one)


def _all() -> list[type[ServiceError]]:
    return sorted(set(_kinds()), key=lambda kind: kind.__qualname__)


def _make(kind: type[ServiceError]) -> ServiceError:
    error = kind.__new__(kind)
    members = {"allow": "GET", "size_bytes": 5}
    ServiceError.__init__(
        error, "a fact: a way out", problems=[Problem("/a~1b", "x", "y")], members=members
    )
    error.__dict__.setdefault("parameter", None)
    return error


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__qualname__)
def test_an_error_has_a_code_a_docstring_and_a_status(kind: type[ServiceError]) -> None:
    assert kind.code != ServiceError.code
    assert kind.code == kind.code.lower()
    assert kind.__doc__
    assert 400 <= status_of(_make(kind)) < 600


def test_codes_are_unique_but_for_kinds_of_one_family() -> None:
    by_code: dict[str, list[type[ServiceError]]] = {}
    for kind in _all():
        by_code.setdefault(kind.code, []).append(kind)

    shared = {code: kinds for code, kinds in by_code.items() if len(kinds) > 1}
    assert shared == {}


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__qualname__)
def test_an_answer_is_a_problem_document(kind: type[ServiceError]) -> None:
    error = _make(kind)

    answer = render_problem(error, "req-1")

    assert answer.media_type == "application/problem+json"
    document = ProblemDocument.model_validate_json(bytes(answer.body))
    assert (document.status, document.code) == (answer.status_code, kind.code)
    assert document.request_id == "req-1"
    assert json.loads(bytes(answer.body))["size_bytes"] == 5
    assert answer.headers["x-should-retry"] == str(kind.is_retryable).lower()
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
