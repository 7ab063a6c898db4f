"""Who hangs, who is waited for, and what is said about it."""

from __future__ import annotations

import faulthandler
import tempfile
from pathlib import Path

import pytest

from workers.supervisor.pulse import Pulse
from workers.supervisor.stacks import Frame, Stack, group_stacks, parse_dump
from workers.supervisor.stalls import (
    Missing,
    describe_stall,
    find_missing,
    find_patience,
    find_silence,
    has_moved,
)

ALL_REDUCE = Stack(
    (
        (
            Frame("…/torch/distributed/distributed_c10d.py", 3203, "all_reduce"),
            Frame("…/torch/distributed/c10d_logger.py", 83, "wrapper"),
            Frame("train.py", 20, "<module>"),
        ),
    )
)
BACKWARD = Stack(
    (
        (
            Frame("…/torch/autograd/graph.py", 865, "_engine_run_backward"),
            Frame("…/torch/_tensor.py", 630, "backward"),
            Frame("train.py", 21, "<module>"),
        ),
    )
)
# As torch 2.13 stands in them, dumped while the peer slept.
FUNCTIONAL_COLLECTIVE = Stack(
    (
        (
            Frame("…/torch/_ops.py", 882, "redispatch"),
            Frame("…/torch/_library/autograd.py", 41, "forward_no_grad"),
            Frame("…/torch/_library/autograd.py", 123, "autograd_impl"),
            Frame("…/torch/_ops.py", 1279, "__call__"),
            Frame("…/torch/distributed/_functional_collectives.py", 142, "wait_tensor"),
            Frame("…/torch/distributed/tensor/_redistribute.py", 1918, "forward"),
            Frame("…/torch/autograd/function.py", 625, "apply"),
            Frame("…/torch/distributed/tensor/_api.py", 774, "full_tensor"),
            Frame("train.py", 22, "<module>"),
        ),
    )
)
# The layer's own work, called by torch's wrapper of the model.
COMPUTING = Stack(
    (
        (
            Frame("…/torch/_ops.py", 1279, "__call__"),
            Frame("…/torch/nn/modules/linear.py", 134, "forward"),
            Frame("…/torch/nn/parallel/distributed.py", 1661, "_run_ddp_forward"),
            Frame("train.py", 19, "<module>"),
        ),
    )
)
LOADING = Stack(
    (
        (
            Frame("…/threading.py", 324, "wait"),
            Frame("data.py", 12, "load_batch"),
            Frame("train.py", 18, "<module>"),
        ),
    )
)


def at(step: int, *, phase: str | None = None, beat_at_s: float = 0.0) -> Pulse:
    return Pulse(step=step, phase=phase, steps_taken=2, expects_step=True, beat_at_s=beat_at_s)


@pytest.mark.parametrize(
    ("pulses", "stacks", "want"),
    [
        pytest.param(
            {0: at(7), 1: at(7), 2: at(7)}, {0: ALL_REDUCE, 1: LOADING, 2: BACKWARD}, (1,),
            id="who stands outside while others wait",
        ),
        pytest.param(
            {0: at(7), 1: at(6)}, {0: ALL_REDUCE, 1: LOADING}, (1,), id="who is a step behind"
        ),
        pytest.param(
            {0: at(7), 1: at(6), 2: at(6)}, {0: ALL_REDUCE, 1: LOADING, 2: ALL_REDUCE}, (1,),
            id="of those behind, who does not wait",
        ),
        pytest.param(
            {0: at(7, phase="communication"), 1: at(7, phase="data_wait")}, {}, (1,),
            id="by what they say that they do, where there are no stacks",
        ),
        pytest.param(
            {0: at(7), 1: at(7)}, {0: ALL_REDUCE, 1: ALL_REDUCE}, (), id="nobody when all wait"
        ),
        pytest.param(
            {0: at(7), 1: at(7)}, {0: LOADING, 1: LOADING}, (), id="nobody when nobody waits"
        ),
        pytest.param({0: at(7)}, {0: ALL_REDUCE, 1: LOADING}, (1,), id="also one without a page"),
        pytest.param(
            {0: at(7), 1: at(7)}, {0: FUNCTIONAL_COLLECTIVE, 1: LOADING}, (1,),
            id="not who waits in a functional collective, below torch's dispatch",
        ),
        pytest.param(
            {0: at(7), 1: at(7)}, {0: FUNCTIONAL_COLLECTIVE, 1: COMPUTING}, (1,),
            id="who computes in an operator, though torch has wrapped the model",
        ),
    ],
)  # fmt: skip
def test_missing_is(
    pulses: dict[int, Pulse], stacks: dict[int, Stack], want: tuple[int, ...]
) -> None:
    assert find_missing(pulses, stacks).ranks == want


@pytest.mark.parametrize(
    ("pulses", "want"),
    [
        pytest.param({0: at(5, beat_at_s=10), 1: at(5, beat_at_s=70)}, 30, id="the newest sign"),
        pytest.param(
            {0: Pulse(step=1, steps_taken=1, expects_step=True)}, None, id="not in the second step"
        ),
        pytest.param({0: Pulse(step=9, steps_taken=9)}, None, id="not after the last"),
        pytest.param({}, None, id="not of ranks that show nothing"),
    ],
)
def test_silence_is_counted_from(pulses: dict[int, Pulse], want: float | None) -> None:
    assert find_silence(pulses, 100.0, after_s=0.0) == want


def test_the_time_in_which_ranks_waited_for_us_is_no_silence() -> None:
    assert find_silence({0: at(5, beat_at_s=10)}, 100.0, after_s=95.0) == 5.0


@pytest.mark.parametrize(
    ("gaps", "want"),
    [
        pytest.param([(9, 0.5)], 600, id="as long as is asked"),
        pytest.param([(9, 1200.0)], 3600, id="as steps that take twenty minutes need"),
        pytest.param([(9, 1200.0), (9, 1.0)], 600, id="by the rank that says most"),
        pytest.param([(1, 1200.0)], 600, id="not by the first step, which may compile"),
        pytest.param([], 600, id="without ranks"),
    ],
)
def test_ranks_may_be_silent(gaps: list[tuple[int, float]], want: float) -> None:
    pulses = {
        rank: Pulse(steps_taken=taken, longest_gap_s=gap_s)
        for rank, (taken, gap_s) in enumerate(gaps)
    }

    assert find_patience(600.0, pulses) == want


def test_a_loop_within_one_function_has_not_moved() -> None:
    before = {0: Stack(((Frame("a.py", 1, "spin"),),))}
    same = {0: Stack(((Frame("a.py", 2, "spin"),),))}
    other = {0: Stack(((Frame("a.py", 9, "rest"),),))}

    assert not has_moved(before, same)
    assert has_moved(before, other)


@pytest.mark.parametrize(
    ("pulses", "stacks", "world_size", "want"),
    [
        pytest.param(
            {0: at(7), 1: at(7)}, {0: ALL_REDUCE, 1: LOADING}, 2,
            "no step for 600 s (the last was 7): rank 1 is missing from the collective in which "
            "rank 0 waits; it stands in load_batch (data.py, line 12)",
            id="the rank and its place",
        ),
        pytest.param(
            {0: at(7, phase="data_wait")}, {0: LOADING}, 1,
            "no step for 600 s (the last was 7): rank 0 stands in load_batch (data.py, line 12), "
            "waiting for data",
            id="a rank alone",
        ),
        pytest.param(
            {0: at(7), 1: at(7)}, {0: ALL_REDUCE, 1: BACKWARD}, 4,
            "no step for 600 s (the last was 7): all ranks of this node wait in a collective for "
            "ranks of another",
            id="another node's",
        ),
    ],
)  # fmt: skip
def test_a_user_is_told(
    pulses: dict[int, Pulse], stacks: dict[int, Stack], world_size: int, want: str
) -> None:
    missing = find_missing(pulses, stacks)

    assert describe_stall(600.0, pulses, stacks, missing, world_size=world_size) == want


def test_without_anything_to_go_by_nobody_is_named() -> None:
    assert find_missing({}, {}) == Missing()


def test_a_dump_is_read_main_thread_first_without_what_launched_it(tmp_path: Path) -> None:
    text = f"""Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/env/lib/python3.11/site-packages/torch/data.py", line ??? in fetch

Current thread 0x00007f0000000002 (most recent call first):
  File "{tmp_path}/sub/data.py", line 12 in load_batch
  File "{tmp_path}/train.py", line 18 in <module>
  File "/node/supervisor-1.zip/workers/supervisor/rank_process.py", line 160 in _run_program
  File "/node/preloader.py", line 99 in main
"""

    stack = parse_dump(text, tmp_path)

    assert stack.render(1000) == (
        "main thread:\n  sub/data.py:12 in load_batch\n  train.py:18 in <module>\n"
        "thread 1:\n  …/threading.py:324 in wait\n  …/torch/data.py:0 in fetch"
    )
    assert stack.render(20).endswith("…")
    assert len(stack.render(20)) == 20


def test_what_this_interpreter_writes_can_be_read(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        stack = parse_dump(file.read().decode(), Path(__file__).parent)

    assert stack.main[0].file == Path(__file__).name
    assert stack.main[0].function == "test_what_this_interpreter_writes_can_be_read"


def test_ranks_in_the_same_place_are_told_together_the_odd_one_first() -> None:
    groups = group_stacks({0: ALL_REDUCE, 1: LOADING, 2: ALL_REDUCE})

    assert [ranks for ranks, _ in groups] == [[1], [0, 2]]
