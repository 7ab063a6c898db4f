"""Looks through the log of a replay for what must never be. Shares no code with what it judges."""

from collections import defaultdict
from itertools import pairwise

from scheduler.sim.outcome import Outcome, Run


def find_faults(outcome: Outcome, *, resume_ms: int) -> list[str]:
    """Return every broken law, in words; none when all jobs were served as they should be."""
    runs: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(outcome.runs, key=lambda run: run.start_ms):
        runs[run.job].append(run)
    faults = find_shared_gpus(outcome)
    for index in range(len(outcome.jobs)):
        faults += [
            f"job {index}: {fault}" for fault in find_job_faults(outcome, index, runs[index])
        ]
        for run in runs[index]:
            faults += [f"job {index}: {fault}" for fault in find_place_faults(outcome, run)]
        for number, run in enumerate(runs[index]):
            if run.resume_ms != (resume_ms if number else 0):
                faults.append(f"job {index}: start {number} resumes in {run.resume_ms} ms")
    return faults


def find_shared_gpus(outcome: Outcome) -> list[str]:
    """No GPU is in two allocations at once; what is given back can be taken at that instant."""
    holders: dict[tuple[int, int], int] = {}
    faults = []
    lasting = [n for n, run in enumerate(outcome.runs) if run.stop_ms > run.start_ms]
    events = [(outcome.runs[number].stop_ms, 0, number) for number in lasting]
    events += [(outcome.runs[number].start_ms, 1, number) for number in lasting]
    for at_ms, is_start, number in sorted(events):
        run = outcome.runs[number]
        for gpu in list_gpus(run):
            if not is_start:
                if holders.get(gpu) == run.job:
                    del holders[gpu]
            elif gpu in holders:
                faults.append(f"GPU {gpu} is given to {run.job} and {holders[gpu]} at {at_ms}")
            else:
                holders[gpu] = run.job
    return faults


def find_job_faults(outcome: Outcome, index: int, runs: list[Run]) -> list[str]:
    """A job runs after its submit, at one place at a time, and exactly as long as it needs."""
    job = outcome.jobs[index]
    faults = []
    if not runs or runs[0].start_ms < job.submit_ms:
        return ["never ran, or before it was submitted"]
    if [run.is_last for run in runs] != [False] * (len(runs) - 1) + [True]:
        faults.append("its end is not its last stop")
    if any(before.stop_ms > after.start_ms for before, after in pairwise(runs)):
        faults.append("it ran twice at the same time")
    served_ms = sum(max(0, run.stop_ms - run.start_ms - run.resume_ms) for run in runs)
    if served_ms != job.duration_ms:
        faults.append(f"was served {served_ms} of {job.duration_ms} ms")
    return faults


def find_place_faults(outcome: Outcome, run: Run) -> list[str]:
    """A gang is whole; up to a node it sits on one, beyond on whole ones and one for the rest."""
    size = outcome.cluster.gpus_per_node
    wanted = outcome.jobs[run.job].gpus
    gpus = list_gpus(run)
    by_node = sorted(
        (sum(node == n for n, _ in gpus) for node in {n for n, _ in gpus}), reverse=True
    )
    whole, rest = divmod(wanted, size)
    if by_node != [size] * whole + [rest] * (rest > 0):
        return [f"a gang of {wanted} sits {by_node}"]
    if any(node >= outcome.cluster.num_nodes or gpu >= size for node, gpu in gpus):
        return ["sits where no GPU is"]
    return []


def list_gpus(run: Run) -> list[tuple[int, int]]:
    """Return node and number of each GPU of a run."""
    return [
        (node, gpu)
        for node, mask in run.place
        for gpu in range(mask.bit_length())
        if mask >> gpu & 1
    ]
