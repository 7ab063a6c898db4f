"""A client of the app in this process, with what tests need beside it.

Every answer that any test gets through it is compared with the OpenAPI document.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.config import ApiConfig
from api.streams import Streams
from api.system.openapi import render
from models import Database
from tests.document_check import DocumentCheck

BASE_URL = "http://127.0.0.1:8700"


class CheckedClient(TestClient):
    """Calls the app, and holds each answer against the document."""

    def __init__(self, app: FastAPI, key: str | None = None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        super().__init__(app, base_url=BASE_URL, headers=headers)
        self._check = document_check(app)

    def request(self, method: str, url: Any, **options: Any) -> Any:
        """Send a request, check the answer and return it."""
        answer = super().request(method, url, **options)
        path = answer.request.url.path
        self._check.check(method, path, answer.status_code, answer.headers, answer.content)
        return answer


class AppClient(CheckedClient):
    """Calls the app with the first admin key, and knows what stands behind it."""

    def __init__(self, app: FastAPI, config: ApiConfig, database: Database, admin_key: str) -> None:
        super().__init__(app, admin_key)
        self._fastapi = app
        self.config = config
        self.database = database
        self.admin_key = admin_key

    @property
    def streams(self) -> Streams:
        """Who waits and who streams."""
        streams: Streams = self._fastapi.state.streams
        return streams

    def anonymous(self) -> CheckedClient:
        """Return a client without a credential."""
        return CheckedClient(self._fastapi)

    def with_key(self, key: str) -> CheckedClient:
        """Return a client with another credential."""
        return CheckedClient(self._fastapi, key)

    def make_key(self, role: str = "member", project: str = "default", **more: Any) -> str:
        """Make a key through the API and return its secret."""
        body = {"name": f"{role} of {project}", "role": role, "project": project, **more}
        answer = self.post("/v1/keys", json=body)
        assert answer.status_code == 201, answer.text
        secret: str = answer.json()["key"]
        return secret

    def make_project(self, name: str) -> str:
        """Make a project through the API and return its id."""
        answer = self.post("/v1/projects", json={"name": name})
        assert answer.status_code == 201, answer.text
        project_id: str = answer.json()["id"]
        return project_id

    def submit(self, document: dict[str, Any]) -> dict[str, Any]:
        """Submit a job and return it."""
        answer = self.post("/v1/jobs", json=document)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job


_CHECKS: dict[int, DocumentCheck] = {}


def document_check(app: FastAPI) -> DocumentCheck:
    """Return the check of an app's document; apps with as many routes share one."""
    found = _CHECKS.get(len(app.routes))
    if found is None:
        found = _CHECKS[len(app.routes)] = DocumentCheck(json.loads(render(app)))
    return found
