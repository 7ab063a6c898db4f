"""The benchmarks, each beside its named baseline: `python -m tests.bench [names] [--json]`.

Exit status 0 only if all targets are reached. Needs a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import (
    checkpoint,
    communication,
    core_scale,
    explain,
    first_step,
    learning,
    lm_mfu,
    many_jobs,
    metrics,
    starts,
    step_overhead,
    stragglers,
    submits,
    survivors,
)
from tests.bench.bench import Bench
from tests.bench.figures import Figure, render_table

_BENCHMARKS = {
    module.NAME: module
    for module in (
        first_step,
        step_overhead,
        checkpoint,
        submits,
        metrics,
        many_jobs,
        starts,
        explain,
        core_scale,
        lm_mfu,
        communication,
        learning,
        stragglers,
        survivors,
    )
}


def main(arguments: list[str]) -> int:
    """Measure, print one table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(_BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="few repetitions, nothing to quote")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - _BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark is called {min(unknown)}: {', '.join(_BENCHMARKS)}")
    # A benchmark that is told to end still ends the services that it started.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as folder:
        bench = Bench(folder=Path(folder), is_quick=chosen.quick)
        for name in chosen.names or _BENCHMARKS:
            print(name, file=sys.stderr, flush=True)
            figures += _BENCHMARKS[name].measure(bench)
    machine = describe_machine()
    print(f"\n{machine['cores']} cores, {machine['processor']}, Python {machine['python']}\n")
    print(render_table(figures))
    is_reached = all(figure.is_reached for figure in figures)
    if chosen.json:
        document = {
            "reached": is_reached,
            "quick": chosen.quick,
            "machine": machine,
            "figures": [figure.as_document() for figure in figures],
        }
        print(json.dumps(document))
    return 0 if is_reached else 1


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    return {
        "cores": os.cpu_count(),
        "processor": names[0] if names else platform.machine(),
        "memory_gib": round(memory_kib / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
