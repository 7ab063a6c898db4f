"""What Schemathesis makes of the document: any request it can think of gets a documented answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.config import ApiConfig
from api.first_start import prepare_first_start
from models import Database, DatabaseConfig
from models.schema import upgrade_schema

ROOT = Path(__file__).parents[3]
EXAMPLES = 10
# A stream of a job that has not ended does not end; waiting takes as long as it was asked to.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LEFT_OUT = r".*_stream_.*"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An app after its first start."""
    folder = tmp_path_factory.mktemp("fuzz")
    database = Database(DatabaseConfig(url=f"sqlite:///{folder / 'fuzz.db'}"))
    upgrade_schema(database)
    first = prepare_first_start(database, folder, now=datetime.now(UTC))
    assert first.admin_key_path is not None
    config = ApiConfig(
        storage_dir=folder / "storage",
        recipes_dir=ROOT / "sdk" / "src" / "trainmaster" / "recipes",
        signing_key=first.signing_key,
        allowed_hosts=("*",),
    )
    yield {
        "app": create_app(config, database),
        "headers": {"authorization": f"Bearer {first.admin_key_path.read_text().strip()}"},
    }
    database.close()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_any_request_gets_a_documented_answer(served: dict[str, Any], mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", served["app"])
    operations: Any = schema.get_all_operations()
    failures: dict[str, str] = {}
    tried = 0

    for found in operations:
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if re.fullmatch(LEFT_OUT, name):
            continue
        try:
            _try_operation(operation, mode, served["headers"])
        except hypothesis.errors.Unsatisfiable:
            continue  # an operation that takes nothing can be given nothing wrong
        except Exception as error:  # noqa: BLE001  every operation is tried before any is told
            failures[name] = str(error)
        tried += 1

    assert tried > 50
    assert failures == {}


def _try_operation(operation: Any, mode: GenerationMode, headers: dict[str, str]) -> None:
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def attempt(case: Any) -> None:
        if case.query and "wait" in case.query:
            case.query["wait"] = 0
        case.call_and_validate(headers=headers, checks=CHECKS)

    attempt()
