"""`python -m scheduler.sim TRACE.csv` replays a trace; `… synthetic` makes one up."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scheduler.core.decisions import Plan
from scheduler.core.deltas import Delta
from scheduler.core.forecast import Unknown
from scheduler.core.forecaster import Forecaster
from scheduler.core.state import State
from scheduler.sim.metrics import Metrics, measure
from scheduler.sim.policies import CORE_POLICY, POLICIES, Setting, replay
from scheduler.sim.synthetic import make_trace
from scheduler.sim.table import render_json, render_table
from scheduler.sim.trace import BadTrace, Cluster, TraceJob, read_trace, write_trace

BAR_WIDTH = 40
BAR_EVERY_S = 0.2
NUM_MAX = 1_000_000


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code: 2 when it cannot be done as it was asked for."""
    if arguments and arguments[0] == "synthetic":
        return _write_synthetic(arguments[1:])
    return _compare(arguments)


def _compare(arguments: Sequence[str]) -> int:
    options = _make_parser().parse_args(arguments)
    setting = Setting(
        cluster=Cluster(num_nodes=options.nodes, gpus_per_node=options.gpus_per_node),
        uses_limits=options.limits == "user",
        resume_ms=options.resume_seconds,
        seed=options.seed,
    )
    try:
        jobs = read_trace(options.trace, setting.cluster)
    except BadTrace as error:
        sys.stderr.write(f"scheduler.sim: {error}\n")
        return 2
    results = {policy: _measure(policy, jobs, setting) for policy in options.policy}
    sys.stdout.write(render_json(results) if options.json else render_table(results))
    return 0


def _measure(policy: str, jobs: Sequence[TraceJob], setting: Setting) -> Metrics:
    show = _make_bar(policy) if sys.stderr.isatty() else lambda ended, total: None
    forecasts = _Forecasts()
    began = time.perf_counter()
    outcome = replay(
        policy, jobs, setting, forecast=forecasts.ask, observe=forecasts.learn, progress=show
    )
    return measure(outcome, wall_s=time.perf_counter() - began - forecasts.spent_s)


class _Forecasts:
    """The core's forecaster, with the time that it takes: it is not the replay's."""

    def __init__(self) -> None:
        self._forecaster = Forecaster()
        self.spent_s = 0.0

    def ask(self, state: State, job_id: str, now_ms: int) -> tuple[int, int] | None:
        """Return p10 and p90 of a job's start, or None."""
        began = time.perf_counter()
        stated = self._forecaster.forecast(state, job_id, now_ms)
        self.spent_s += time.perf_counter() - began
        return None if isinstance(stated, Unknown) else (stated.p10_ms, stated.p90_ms)

    def learn(self, now_ms: int, _: Sequence[Delta], plan: Plan) -> None:
        """Compare what was said with what starts."""
        self._forecaster.learn(plan.decisions, now_ms)


def _make_bar(policy: str) -> Callable[[int, int], None]:
    """Return what shows on a terminal how far a replay is, and cleans up when it is through."""
    shown_at = time.monotonic()

    def show(ended: int, total: int) -> None:
        nonlocal shown_at
        if ended == total:
            sys.stderr.write("\r\x1b[K")
        elif time.monotonic() - shown_at >= BAR_EVERY_S:
            shown_at = time.monotonic()
            bar = "#" * (BAR_WIDTH * ended // total)
            sys.stderr.write(f"\r{policy} [{bar.ljust(BAR_WIDTH)}] {ended:,} of {total:,} jobs")
        sys.stderr.flush()

    return show


def _write_synthetic(arguments: Sequence[str]) -> int:
    options = _make_synthetic_parser().parse_args(arguments)
    jobs = make_trace(
        num_jobs=options.jobs,
        cluster=Cluster(num_nodes=options.nodes, gpus_per_node=options.gpus_per_node),
        seed=options.seed,
        load=options.load,
    )
    sys.stdout.write(write_trace(jobs))
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scheduler.sim",
        description="Replay a trace of jobs in virtual time, under one policy or several.",
        epilog="`python -m scheduler.sim synthetic --help` makes a trace up. "
        "The columns and figures are described in docs/simulator.md.",
        allow_abbrev=False,
    )
    parser.add_argument("trace", type=Path, metavar="TRACE.csv")
    _add_cluster(parser)
    parser.add_argument(
        "--policy",
        type=_policies,
        default=(CORE_POLICY,),
        help=f"one or several, as in fifo,easy, of {', '.join(POLICIES)}; or all (%(default)s)",
    )
    parser.add_argument(
        "--limits",
        choices=("user", "none"),
        default="user",
        help="whether policies see the limits that users declared (user)",
    )
    parser.add_argument(
        "--resume-seconds",
        type=_milliseconds,
        default=60_000,
        metavar="S",
        help="what each start but a job's first costs it (60)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the jobs that are forecast (1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _make_synthetic_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scheduler.sim synthetic",
        description="Print a made-up trace as CSV; the same seed gives the same trace.",
        allow_abbrev=False,
    )
    parser.add_argument("--jobs", type=_count, default=1000, help="how many (1000)")
    _add_cluster(parser)
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    parser.add_argument(
        "--load", type=_load, default=0.9, help="GPU time asked for, as part of what there is (0.9)"
    )
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=_count, default=8, help="how many machines (8)")
    parser.add_argument("--gpus-per-node", type=_count, default=8, help="GPUs of each (8)")


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= NUM_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {NUM_MAX:,}")
    return count


def _milliseconds(text: str) -> int:
    seconds = _number(text)
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as 60")
    return round(seconds * 1000)


def _load(text: str) -> float:
    load = _number(text)
    if not 0 < load <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no load: 0.9 is 90 % of the GPU time")
    return load


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _policies(text: str) -> tuple[str, ...]:
    names = POLICIES if text == "all" else tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no policy: name {', '.join(POLICIES)}, or all"
            )
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
