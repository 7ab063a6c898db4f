"""A client of the app in this process, with what tests need beside it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.config import ApiConfig
from models import Database

BASE_URL = "http://127.0.0.1:8700"


class AppClient(TestClient):
    """Calls the app with the first admin key, and knows what stands behind it."""

    def __init__(self, app: FastAPI, config: ApiConfig, database: Database, admin_key: str) -> None:
        super().__init__(app, base_url=BASE_URL, headers=_bearer(admin_key))
        self.config = config
        self.database = database
        self.admin_key = admin_key

    def anonymous(self) -> TestClient:
        """Return a client without a credential."""
        return TestClient(self.app, base_url=BASE_URL)

    def with_key(self, key: str) -> TestClient:
        """Return a client with another credential."""
        return TestClient(self.app, base_url=BASE_URL, headers=_bearer(key))

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


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
