"""From the wish to train to the first step of two ranks, beside `torchrun`.

The service is warm: its preloader is up and one job ran before. `torchrun` is warm as well: its
files are in the page cache and compiled. Sending the script to the service is part of the time.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.bench import SCRIPTS, Bench, finish, upload_script, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.torchrun import run_torchrun
from trainmaster import Client

NAME = "first_step"
_SCRIPT = "first_step.py"
_MARKS = ("began_at", "imported_at", "joined_at", "stepped_at")


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; 5 s a pair."""
    folder = bench.make_folder("first-step-marks")
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with bench.service("first-step") as service, service.client() as client:
        _under_service(client, folder / "warm-service")
        _under_torchrun(folder / "warm-torchrun")
        for number in range(bench.count(9, 3)):
            wait_for_quiet()
            ours.append(_under_service(client, folder / f"service-{number}"))
            wait_for_quiet()
            theirs.append(_under_torchrun(folder / f"torchrun-{number}"))
            bench.say(f"{ours[-1]['stepped_at']:.3f} s beside {theirs[-1]['stepped_at']:.3f} s")
    return [
        Figure(
            name="submit to first step, 2 ranks",
            unit="s",
            values=Series(tuple(marks["stepped_at"] for marks in ours)),
            baseline=Series(tuple(marks["stepped_at"] for marks in theirs)),
            baseline_name="torchrun",
            target=Target(of="ratio", bound="at most", limit=0.15),
            details={"service_median_s": _medians(ours), "torchrun_median_s": _medians(theirs)},
        )
    ]


def _under_service(client: Client, marks: Path) -> dict[str, float]:
    started_at = time.time()
    code = upload_script(client, _SCRIPT)
    uploaded_at = time.time()
    job = client.jobs.submit(code=code, entrypoint=_SCRIPT, args=[str(marks)], workers=2)
    answered_at = time.time()
    finish(client, job)
    ours = {"uploaded_at": uploaded_at - started_at, "answered_at": answered_at - started_at}
    return {**ours, **_read_marks(marks, started_at)}


def _under_torchrun(marks: Path) -> dict[str, float]:
    started_at = run_torchrun(SCRIPTS / _SCRIPT, [str(marks)], workers=2, folder=marks.parent)
    return _read_marks(marks, started_at)


def _read_marks(marks: Path, started_at: float) -> dict[str, float]:
    """Return the marks as seconds since the start."""
    document = json.loads(marks.read_text())
    return {name: document[name] - started_at for name in _MARKS}


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]}
