"""Compares answers with the OpenAPI document: path, status, headers, media type, schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs


class DocumentCheck:
    """Knows one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._paths = [
            (re.compile(_pattern(template)), template)
            # The more is fixed, the earlier: /v1/jobs/validate before /v1/jobs/{job_id}.
            for template in sorted(document["paths"], key=lambda path: path.count("{"))
        ]
        self._validator = cache(self._make_validator)
        self.seen: set[tuple[str, int]] = set()

    def check(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Raise AssertionError when the answer is none that the document tells of."""
        operation = self._find(method.lower(), path)
        if operation is None:
            return
        name = operation["operationId"]
        place = f"{name} {status}"
        assert status == 405 or str(status) in operation["responses"], f"{place}: not documented"
        if status == 405:
            return
        response = self._resolve(operation["responses"][str(status)])
        self.seen.add((name, status))
        for header in response.get("headers", {}):
            if header.lower() not in {"idempotency-replayed", "retry-after", "location"}:
                assert header.lower() in headers, f"{place}: {header} is missing"
        if method == "HEAD" or status == 304:
            return
        content = response.get("content", {})
        kind = headers.get("content-type", "").partition(";")[0]
        if not content:
            assert body == b"", f"{place}: has a body"
            return
        assert kind in content, f"{place}: {kind} is not documented"
        if "json" in kind and "ndjson" not in kind:
            schema = content[kind]["schema"]
            validator = self._validator(schema["$ref"])
            document = _loads(body)
            errors = [
                f"{list(e.instance_path)}: {e.message}" for e in validator.iter_errors(document)
            ]
            assert not errors, f"{place}: {errors[:3]}"

    def _find(self, method: str, path: str) -> Mapping[str, Any] | None:
        for pattern, template in self._paths:
            if pattern.fullmatch(path):
                operations = self._document["paths"][template]
                found = operations.get("get" if method == "head" else method)
                if found is not None:
                    return dict(found)
        return None

    def _resolve(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in value:
            return value
        found: Any = self._document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _make_validator(self, reference: str) -> Any:
        schema = {"$ref": reference, "components": self._document["components"]}
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def _loads(body: bytes) -> Any:
    """Parse as strictly as a client in another language would."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(body, parse_constant=refuse)


def _pattern(template: str) -> str:
    parts = re.split(r"(\{[^}]+\})", template)
    return "".join(
        (".+" if part == "{path}" else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )
