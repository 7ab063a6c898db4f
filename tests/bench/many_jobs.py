"""Fifty small jobs at once: how many finish a second, beside plain `python` two at a time.

The baseline runs the same script without any service, as a shell loop would; it stores nothing,
fences nothing and serves nothing. It says what the interpreter alone costs on this machine.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.bench import JOB_BIN, SCRIPTS, Bench, finish, upload_script, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.processes import CpuWatch, machine_busy_s
from tests.services import Service
from trainmaster import Client
from trainmaster.documents import Job

NAME = "many_jobs"
_SCRIPT = "small_job.py"
_JOBS = 50
_LIMIT_S = 300.0


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; 10 s a round."""
    ours: list[float] = []
    theirs: list[float] = []
    with bench.service("many-jobs") as service, service.client() as client:
        code = upload_script(client, _SCRIPT)
        finish(client, _submit(client, code))
        for number in range(bench.count(5, 1)):
            wait_for_quiet()
            ours.append(_JOBS / _through_the_service(client, code))
            wait_for_quiet()
            theirs.append(_JOBS / _through_plain_python(bench.make_folder(f"plain-{number}")))
            bench.say(f"{ours[-1]:.1f}/s beside {theirs[-1]:.1f}/s")
        wait_for_quiet()
        cpu_ms = _find_cpu_ms(service, client, code)
        bench.say(f"CPU of a job: {', '.join(f'{kind} {ms} ms' for kind, ms in cpu_ms.items())}")
    return [
        Figure(
            name=f"{_JOBS} small jobs",
            unit="/s",
            values=Series(tuple(ours)),
            baseline=Series(tuple(theirs)),
            baseline_name="plain python, 2 at a time",
            target=Target(of="figure", bound="at least", limit=8.0),
            details={"cpu_ms_a_job": cpu_ms},
        )
    ]


def _submit(client: Client, code: str) -> Job:
    return client.jobs.submit(code=code, entrypoint=_SCRIPT)


def _through_the_service(client: Client, code: str) -> float:
    """Return the seconds from the first submit to the end of the last job."""
    started_at = time.time()
    jobs = [_submit(client, code) for _ in range(_JOBS)]
    # Mostly the last one ends last: a client that looks at each of them is not what is measured.
    ended: dict[str, float] = {}
    for job in reversed(jobs):
        if job.id not in ended:
            finish(client, job, within_s=_LIMIT_S)
            ended = _list_ended(client)
    return max(ended[job.id] for job in jobs) - started_at


def _list_ended(client: Client) -> dict[str, float]:
    """Return when the newest jobs that succeeded ended, in Unix seconds by id."""
    jobs = client.jobs.list(state="succeeded", limit=2 * _JOBS).data
    return {job.id: job.finished_at.timestamp() for job in jobs if job.finished_at is not None}


def _through_plain_python(folder: Path) -> float:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }

    def run(number: int) -> None:
        place = folder / str(number)
        place.mkdir()
        command = [str(JOB_BIN / "python"), str(SCRIPTS / _SCRIPT)]
        subprocess.run(
            command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(_JOBS)))
    return time.monotonic() - started


def _find_cpu_ms(service: Service, client: Client, code: str) -> dict[str, float]:
    """Return the CPU time of one job by kind of process, from a round of its own."""
    watch = CpuWatch(service.folder, service.pid)
    before_s = machine_busy_s()
    with watch.watching():
        _through_the_service(client, code)
        wait_for_quiet()
    machine_s = machine_busy_s() - before_s
    totals_s = {**watch.totals_s(), "whole machine, watch and client included": machine_s}
    return {kind: round(1e3 * spent_s / _JOBS, 1) for kind, spent_s in sorted(totals_s.items())}
