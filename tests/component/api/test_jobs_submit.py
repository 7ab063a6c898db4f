"""Submitting: what is stored and answered, and everything that is refused."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from models import Event, Job
from tests.app_client import AppClient
from tests.factories import add_checkpoint, add_node, job_document, start_job


def test_a_submitted_job_is_stored_with_its_first_event(app_client: AppClient) -> None:
    answer = app_client.post("/v1/jobs", json=job_document(name="digits", labels={"team": "a"}))

    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"].startswith('"1.')
    assert (job["state"], job["reason"], job["version"]) == ("pending", "Submitted", 1)
    assert (job["name"], job["project"], job["labels"]) == ("digits", "default", {"team": "a"})
    assert job["spec"]["checkpoint"]["keep_last"] == 2
    again = app_client.get(answer.headers["location"])
    assert again.json() == job
    assert again.headers["etag"] == answer.headers["etag"]
    events = app_client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [(event["seq"], event["type"]) for event in events] == [(1, "job.pending")]
