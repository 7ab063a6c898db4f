"""Ranks on hosts of a network: one per host, started together, ended together."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.networks import INTERFACE, Host
from tests.services import JOB_PYTHON

_PORT = 29500


def run_gang(
    hosts: Sequence[Host],
    command: Sequence[str],
    description: Mapping[str, Any],
    folder: Path,
    *,
    limit_s: float,
) -> None:
    """Run a script on every host, rank 0 on the first, and return when all have ended.

    Args:
        hosts: one for each rank.
        command: script and arguments, for the job's interpreter.
        description: what the run is told about itself.
        folder: for what the ranks print, and their local records; made here.
        limit_s: how long they may take.

    Raises:
        RuntimeError: one of them failed or took too long; with the end of its output.
    """
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(description))
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank, host in enumerate(hosts):
            with (folder / f"{rank}.output").open("wb") as output:
                environment = _environment(rank, hosts, folder)
                ranks.append(
                    host.start(
                        [str(JOB_PYTHON), *command],
                        environment,
                        cwd=folder,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        _wait(ranks, folder, time.monotonic() + limit_s)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _environment(rank: int, hosts: Sequence[Host], folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TRAINMASTER_RUN": str(folder / "run.json"),
        "GLOO_SOCKET_IFNAME": INTERFACE,
        "MASTER_ADDR": hosts[0].address,
        "MASTER_PORT": str(_PORT),
        "WORLD_SIZE": str(len(hosts)),
        "RANK": str(rank),
        "LOCAL_RANK": "0",
    }


def _wait(ranks: Sequence[subprocess.Popen[bytes]], folder: Path, deadline_s: float) -> None:
    while True:
        codes = [process.poll() for process in ranks]
        for rank, code in enumerate(codes):
            if code not in {None, 0}:
                output = (folder / f"{rank}.output").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"rank {rank} ended with {code}:\n{output}")
        if None not in codes:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the ranks take too long: {codes}; see {folder}")
        time.sleep(0.05)
