"""Ranks that hang: their stacks are reported, the missing one is named, the attempt ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.component.workers.node_harness import Node, assignment, bundle
from tests.component.workers.worker_service_fake import FakeService

# Two ranks that meet at every step by way of files; rank 1 does not come to the third meeting.
_GANG = """
import pathlib, sys, threading, time
from trainmaster.run import current_run

run = current_run()
folder = pathlib.Path(sys.argv[1])

def meet(step):
    (folder / f"{run.rank}-{step}").touch()
    while not (folder / f"{1 - run.rank}-{step}").exists():
        time.sleep(0.01)

def load_batch(step):
    if step == 3 and run.rank == 1 and run.description["attempt_number"] == 1:
        threading.Event().wait()

for step in range(1, 6):
    load_batch(step)
    if step == 3:
        run.progress(step, 5)
    meet(step)
    run.progress(step, 5)
"""


def _stalling(service: FakeService, code: str, *arguments: str, **changes: Any) -> dict[str, Any]:
    document = assignment(
        service,
        bundle(train=code),
        command={"kind": "script", "path": "train.py", "args": list(arguments)},
        **{"workers": 2, **changes},
    )
    document["spec"]["health"] = {"stall_seconds": 1, "on_stall": "restart", "on_nan": "fail"}
    return document


def test_a_rank_that_does_not_come_is_named_and_every_stack_is_reported(
    node: Node, service: FakeService
) -> None:
    folder = node.folder.parent / "meetings"
    folder.mkdir()
    attempt = service.add_attempt("att_1", _stalling(service, _GANG, str(folder)))

    record = service.wait_for_exit("att_1")

    assert (record["outcome"], record["reason"]) == ("failed", "StallDetected")
    assert "rank 1 is missing" in record["message"]
    assert "load_batch (train.py, line 15)" in record["message"]
    (report,) = attempt.reports
    data = report["data"]
    assert (report["kind"], data["action"], data["missing_ranks"]) == ("stalled", "restart", [1])
    stacks = {rank: group["stack"] for group in data["stacks"] for rank in group["ranks"]}
    assert "train.py:15 in load_batch" in stacks[1]
    assert "train.py:11 in meet" in stacks[0]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("time.sleep(3)", id="before the first step"),
        pytest.param(
            "for step in (1, 2, 3): run.progress(step, 3)\ntime.sleep(3)",
            id="after the last step",
        ),
        pytest.param(
            "run.progress(1, 9); run.progress(2, 9); run.progress(3, 9)\n"
            "for _ in range(30): time.sleep(0.1); run.progress(3, 9)",
            id="while it says that it works on something else",
        ),
        pytest.param(
            "for epoch in range(4): run.progress(epoch, 9); time.sleep(1.6)",
            id="when it has always said little",
        ),
        pytest.param("run.log(1, x=1); run.log(2, x=1); time.sleep(3)", id="without any step"),
    ],
)
def test_a_rank_is_not_taken_for_hanging(code: str, any_node: Node, service: FakeService) -> None:
    prelude = "import time\nfrom trainmaster.run import current_run\nrun = current_run()\n"
    document = _stalling(service, prelude + code, workers=1)
    attempt = service.add_attempt("att_1", document)

    record = service.wait_for_exit("att_1")

    assert record["outcome"] == "succeeded"
    assert attempt.reports == []


def test_a_rank_that_works_through_something_long_is_only_reported(
    any_node: Node, service: FakeService
) -> None:
    code = (
        "import time\nfrom trainmaster.run import current_run\nrun = current_run()\n"
        "parts = {}\n"
        "for n in range(20): exec(f'def part_{n}(): time.sleep(0.15)', globals(), parts)\n"
        "run.progress(1, 4); run.progress(2, 4); run.progress(3, 4)\n"
        "for part in parts.values(): part()\n"
        "run.progress(4, 4)\n"
    )
    attempt = service.add_attempt("att_1", _stalling(service, code, workers=1))

    record = service.wait_for_exit("att_1")

    assert record["outcome"] == "succeeded"
    assert [report["data"]["action"] for report in attempt.reports] == ["wait"]
