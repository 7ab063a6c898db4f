"""The OpenAPI document: well made, stable, and true of every route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.app import create_app
from api.config import ApiConfig
from api.system.openapi import render
from models import Database, DatabaseConfig
from tests.document_check import DocumentCheck

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An app whose database is never asked."""
    folder = tmp_path_factory.mktemp("app")
    config = ApiConfig(
        storage_dir=folder,
        recipes_dir=Path("no such folder"),
        signing_key=bytes(32),
    )
    return create_app(config, Database(DatabaseConfig(url=f"sqlite:///{folder}/never.db")))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    """The document of the app."""
    read: dict[str, Any] = json.loads(render(app))
    return read


def _operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _walk(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    yield at, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _walk(part, f"{at}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _walk(part, f"{at}/{index}")


def test_the_same_code_gives_the_same_bytes(app: FastAPI) -> None:
    first = render(app)

    assert render(app) == first
    assert first.endswith("}\n")
    assert json.loads(first)["openapi"] == "3.1.0"


def test_every_route_is_documented_and_nothing_else(app: FastAPI, document: dict[str, Any]) -> None:
    offered = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }

    assert {(path, method) for path, method, _ in _operations(document)} == offered


def test_operations_have_names_tags_and_words(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in _operations(document)]
    tags = {tag["name"] for tag in document["tags"]}

    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+_[a-z_]+", name)] == []
    for path, method, operation in _operations(document):
        assert len(operation["tags"]) == 1, (method, path)
        assert operation["tags"][0] in tags
        assert operation["summary"]
        assert operation["description"].endswith("."), (method, path)


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        errors = {text for text in operation["responses"] if int(text) >= 400}
        assert {"400", "500", "503"} <= errors, (method, path)
        for text in errors:
            (reference,) = operation["responses"][text].values()
            name = reference.removeprefix("#/components/responses/")
            assert list(document["components"]["responses"][name]["content"]) == [
                "application/problem+json"
            ]


def test_every_operation_says_who_may_call_it(document: dict[str, Any]) -> None:
    schemes = set(document["components"]["securitySchemes"])

    for path, method, operation in _operations(document):
        named = {name for one in operation["security"] for name in one}
        assert named <= schemes
        assert ("401" in operation["responses"]) or not named, (method, path)


def test_all_references_lead_somewhere_and_all_schemas_are_reached(
    document: dict[str, Any],
) -> None:
    references = {value for at, value in _walk(document) if at.endswith("/$ref")}
    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in found, reference
            found = found[part]

    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert schemas - references == set()
    assert not [at for at, _ in _walk(document) if re.search(r"/x-(schema|header)$", at)]


def test_objects_with_fields_have_names(document: dict[str, Any]) -> None:
    anonymous = [
        at
        for at, value in _walk(document)
        if isinstance(value, dict)
        and "properties" in value
        and isinstance(value["properties"], dict)
        and not re.fullmatch(r"/components/schemas/\w+", at)
        and "/example" not in at
    ]

    assert anonymous == []


def test_bodies_refuse_unknown_fields_and_answers_leave_nothing_out(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]

    assert schemas["JobSpec"]["additionalProperties"] is False
    assert schemas["KeyRequest"]["additionalProperties"] is False
    assert set(schemas["Job"]["required"]) == set(schemas["Job"]["properties"])
    assert "recipe" not in schemas["JobSpec"].get("required", [])


def test_every_list_is_the_same_envelope(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    lists = [name for name in schemas if name.endswith("List")]

    assert len(lists) >= 8
    for name in lists:
        assert {"object", "data", "has_more", "next_cursor"} <= set(schemas[name]["required"]), name


def test_examples_of_bodies_fit_their_schemas(document: dict[str, Any]) -> None:
    check = DocumentCheck(document)
    checked = 0

    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            validator = check._make_validator(f"#/components/schemas/{name}")
            assert validator.is_valid(example), name
            checked += 1
        for field, part in schema.get("properties", {}).items():
            for example in part.get("examples", []):
                reference = f"#/components/schemas/{name}/properties/{field}"
                assert check._make_validator(reference).is_valid(example), (name, field)
                checked += 1

    assert checked > 50


class TestTheCheckItself:
    """What compares answers with the document in all other tests does see differences."""

    @pytest.fixture
    def check(self, document: dict[str, Any]) -> DocumentCheck:
        """A check of the real document."""
        return DocumentCheck(document)

    HEADERS = {"content-type": "application/json", "x-request-id": "r"}  # noqa: RUF012  read only

    def test_a_good_answer_passes_and_is_remembered(self, check: DocumentCheck) -> None:
        check.check("GET", "/healthz", 200, self.HEADERS, b'{"status": "ok"}')

        assert check.seen == {("system_health", 200)}

    @pytest.mark.parametrize(
        ("method", "path", "status", "headers", "body"),
        [
            pytest.param("GET", "/healthz", 200, {}, b'{"status": "bad"}', id="another value"),
            pytest.param("GET", "/healthz", 200, {}, b"{}", id="a field is missing"),
            pytest.param("GET", "/healthz", 418, {}, b"", id="another status"),
            pytest.param("GET", "/healthz", 200, {"content-type": "text/plain"}, b"", id="type"),
            pytest.param("GET", "/v1/jobs/job_1", 200, {}, b"{}", id="no ETag"),
            pytest.param("DELETE", "/v1/jobs/job_1", 204, {}, b"x", id="body where none is"),
            pytest.param("GET", "/v1/jobs", 400, {}, b'{"detail": "x"}', id="no problem document"),
            pytest.param("GET", "/version", 200, {}, b'{"version": NaN}', id="NaN"),
        ],
    )
    def test_a_difference_is_seen(
        self,
        check: DocumentCheck,
        method: str,
        path: str,
        status: int,
        headers: dict[str, str],
        body: bytes,
    ) -> None:
        with pytest.raises(AssertionError):
            check.check(method, path, status, {**self.HEADERS, **headers}, body)
