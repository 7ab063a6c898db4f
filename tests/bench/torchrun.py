"""The baseline for jobs: the same script under `torchrun` on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.bench import JOB_BIN

_LIMIT_S = 120.0


def run_torchrun(script: Path, arguments: Sequence[str], *, workers: int, folder: Path) -> float:
    """Run a script to its end and return when it was started, in Unix seconds.

    It is given the same threads per rank and the same network interface as under the service, and
    starts from compiled modules.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    command = [
        str(JOB_BIN / "torchrun"),
        "--standalone",
        f"--nproc-per-node={workers}",
        str(script),
        *arguments,
    ]
    environment = {
        "PATH": f"{JOB_BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    started_at = time.time()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_LIMIT_S,
    )
    if done.returncode != 0:
        output = done.stdout.decode(errors="replace")[-3000:]
        raise RuntimeError(f"torchrun {script.name} ended with {done.returncode}:\n{output}")
    return started_at
