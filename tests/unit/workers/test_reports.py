"""A supervisor's reports go out one by one, whatever else stands in their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from workers.supervisor.forwarder import Forwarder
from workers.supervisor.http import Refused
from workers.supervisor.link import Link
from workers.supervisor.reports import ReportTail, add_report


class Desk:
    """Takes reports as the service does; those that say "bad" it refuses."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []

    def call(self, _method: str, _route: str, body: dict[str, Any], **_options: Any) -> Any:
        if body["message"] == "bad":
            raise Refused(422, {"code": "validation_failed"})
        self.taken.append((body["sequence"], body["message"]))
        return {"accepted": True}


def _deliver(path: Path) -> list[tuple[int, str]]:
    desk = Desk()
    forwarder = Forwarder(cast("Link", desk), [ReportTail(path)])
    forwarder.finish()
    forwarder.start()
    assert forwarder.join(10.0)
    assert forwarder.is_delivered
    return desk.taken


def test_a_report_that_the_service_refuses_is_left_out_alone(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    for message in ("first", "bad", "third", "fourth"):
        add_report(path, "stalled", message, {})

    taken = _deliver(path)

    assert taken == [(0, "first"), (2, "third"), (3, "fourth")]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("not json", id="no JSON"),
        pytest.param("[1]", id="no object"),
        pytest.param("[" * 100_000, id="deep nesting"),
    ],
)
def test_a_line_that_a_job_has_written_is_left_out_alone(line: str, tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    add_report(path, "stalled", "first", {})
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    add_report(path, "stalled", "third", {})

    taken = _deliver(path)

    assert taken == [(0, "first"), (2, "third")]
