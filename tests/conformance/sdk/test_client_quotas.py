"""Queues, quotas, usage and racks: what the client sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from trainmaster import Client

Sent = tuple[str, str, Any, str | None]
QUOTA = {"id": "quo_1", "project": "vision", "version": 3}


class Recorder:
    """Answers every request with one document, and remembers what was asked."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.sent: list[Sent] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        body = json.loads(request.content) if request.content else None
        target = request.url.raw_path.decode()
        self.sent.append((request.method, target, body, request.headers.get("if-match")))
        return httpx.Response(200, json=self.document)


@pytest.fixture
def recorder() -> Recorder:
    """A service that knows one quota."""
    return Recorder(QUOTA)


@pytest.fixture
def client(make_client: Callable[..., Client], recorder: Recorder) -> Iterator[Client]:
    """A client of it."""
    with make_client("http://localhost", http=httpx.MockTransport(recorder)) as made:
        yield made


def test_a_quota_that_was_read_is_changed_only_as_it_was_read(
    client: Client, recorder: Recorder
) -> None:
    quota = client.quotas.create("vision", user="key_1", guaranteed_gpus=8)
    client.quotas.update(quota, weight=2, limit_gpus=None)
    client.quotas.update("quo_1", weight=3)
    client.quotas.delete("quo_1")

    assert recorder.sent == [
        (
            "POST",
            "/v1/quotas",
            {"project": "vision", "user": "key_1", "guaranteed_gpus": 8},
            None,
        ),
        ("PATCH", "/v1/quotas/quo_1", {"weight": 2, "limit_gpus": None}, '"3"'),
        ("PATCH", "/v1/quotas/quo_1", {"weight": 3}, None),
        ("DELETE", "/v1/quotas/quo_1", None, None),
    ]


def test_queues_are_made_closed_and_opened(client: Client, recorder: Recorder) -> None:
    recorder.document = {"name": "night", "pool": "gpus", "open": False}

    client.queues.create("night", pool="gpus", open=False)
    closed = client.queues.close("night")
    client.queues.open("night")

    assert not closed.open
    assert recorder.sent == [
        ("POST", "/v1/queues", {"name": "night", "pool": "gpus", "open": False}, None),
        ("PATCH", "/v1/queues/night", {"open": False}, None),
        ("PATCH", "/v1/queues/night", {"open": True}, None),
    ]


def test_a_rack_is_set(client: Client, recorder: Recorder) -> None:
    recorder.document = {"id": "node_1", "rack": "r1"}

    assert client.nodes.set_rack("node_1", "r1").rack == "r1"
    assert recorder.sent == [("PATCH", "/v1/nodes/node_1", {"rack": "r1"}, None)]


def test_usage_is_asked_for_by_month_and_project(client: Client, recorder: Recorder) -> None:
    row = {"project": "vision", "month": "2031-05", "gpu_hours": 3.5, "fair_share": None}
    recorder.document = {"object": "list", "data": [row], "has_more": False, "next_cursor": None}

    (usage,) = client.usage.list(month="2031-05", project="vision")

    assert (usage.gpu_hours, usage.user, usage.fair_share) == (3.5, None, None)
    assert recorder.sent == [("GET", "/v1/usage?month=2031-05&project=vision", None, None)]
