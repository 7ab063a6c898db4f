"""Process groups that count: every collective that torch makes, whoever asked for it.

Gradient buckets are reduced by C++ code of DDP, activations of tensor parallel layers by operators
of the dispatcher, parameters of FSDP2 and our own sums by Python: what they share is the process
group. torch lets Python derive from it and calls what is overridden from C++ as well. A counted
group has torch's own backends (gloo, nccl) registered and hands everything on to them, so what is
computed is the same, bit for bit, and whatever asks for the backend's name gets it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from trainmaster._communication import sent_share
from trainmaster.train.accounting.ledger import Ledger
from trainmaster.train.accounting.works import Stopwatch, TimedWork

_ledger: Ledger | None = None
_stopwatch: Stopwatch | None = None


def count_collectives(world: str = "other") -> Ledger:
    """Make every process group that is created from now on a counted one.

    Groups that were there before are not counted. Call it in the thread that trains; it may be
    called again.

    Args:
        world: what is summed in the group of all ranks outside of backward passes. A mesh of which
            one dimension has all ranks takes that group for it, so only the caller can know.
    """
    global _ledger, _stopwatch  # noqa: PLW0603  one process is one rank
    if _ledger is None or _stopwatch is None:
        _ledger = Ledger(world)
        _stopwatch = Stopwatch(_ledger)
        _make_torch_create(CountedGroup)
    return _ledger


def settle_waits() -> None:
    """Count the waits on a GPU that it has passed by now."""
    if _stopwatch is not None:
        _stopwatch.settle()


def _make_torch_create(kind: type[dist.ProcessGroup]) -> None:
    """Let torch's one function that creates groups create this kind.

    The name is changed while that function runs only: elsewhere torch asks of groups whether they
    are instances of it, and those that C++ has made are not instances of ours.
    """
    create = distributed_c10d._new_process_group_helper

    def create_counted(*arguments: Any, **named: Any) -> Any:
        plain = distributed_c10d.ProcessGroup
        distributed_c10d.ProcessGroup = kind
        try:
            return create(*arguments, **named)
        finally:
            distributed_c10d.ProcessGroup = plain

    distributed_c10d._new_process_group_helper = create_counted


class CountedGroup(dist.ProcessGroup):
    """A process group of torch's that counts what passes through it."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        # The constructor that takes a store cannot make an object of a derived class.
        super().__init__(rank, size)
        assert _ledger is not None
        assert _stopwatch is not None
        # The calls are handed on to a group of torch's own, and not to `super()`: that comes back
        # through C++ which holds the interpreter's lock, for which gloo's threads may be waiting
        # while they hold a lock that the call needs. It then stands still for ever.
        self._plain = dist.ProcessGroup(store, rank, size)
        self._num_ranks = size
        self._ledger, self._stopwatch = _ledger, _stopwatch
        self._carries: str | None = None

    def get_group_store(self) -> dist.Store:
        """Return the store that the ranks of the group share."""
        return self._plain.get_group_store()

    def _register_backend(self, *arguments: Any) -> None:
        super()._register_backend(*arguments)
        self._plain._register_backend(*arguments)

    def _set_default_backend(self, *arguments: Any) -> None:
        super()._set_default_backend(*arguments)
        self._plain._set_default_backend(*arguments)

    def barrier(self, *arguments: Any, **named: Any) -> TimedWork:
        """Meet; counts the wait, and no bytes."""
        return TimedWork(self._plain.barrier(*arguments, **named), self._stopwatch, is_on_gpu=False)

    def _count(self, operation: str, payload_bytes: float, first: Any) -> bool:
        """Count one call; return whether it is on a GPU."""
        while not isinstance(first, torch.Tensor):
            first = first[0]
        is_on_gpu: bool = first.is_cuda
        share = sent_share(operation, self._num_ranks, "nccl" if is_on_gpu else "gloo")
        phase = self._find_phase(operation)
        self._ledger.add(phase, operation, payload_bytes, payload_bytes * share)
        return is_on_gpu

    def _find_phase(self, operation: str) -> str:
        if self._carries is None:
            # A mesh names its groups after its dimensions: mesh_tensor, mesh_data.
            words = set(self.group_desc.split("_"))
            is_world = self.group_desc == "default_pg"
            self._carries = self._ledger.world if is_world else _find_contents(words)
        if self._carries == "activations" or operation in {"send", "recv"}:
            return "other" if self._ledger.is_evaluating() else "activations"
        if operation == "reduce_scatter":
            return "gradients"
        if operation == "all_reduce" and torch._C._current_graph_task_id() >= 0:
            return "gradients"
        if operation == "all_reduce":
            return self._carries
        if operation == "all_gather_single":
            return "parameters"
        return "buffers" if operation == "broadcast" else "other"


def _find_contents(words: set[str]) -> str:
    """Return what is reduced in a group, by the words of its description."""
    if words & {"tensor", "pipeline"}:
        return "activations"
    return "gradients" if words & {"data", "shard"} else "other"


def _nbytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return int(value.nbytes)
    return sum(map(_nbytes, value))


def _of(place: int) -> Any:
    return lambda _group, arguments: _nbytes(arguments[place])


def _of_all(place: int) -> Any:
    """Of an argument that is one rank's part."""
    return lambda group, arguments: _nbytes(arguments[place]) * group._num_ranks


# Method, what it is called in the ledger, payload, and the argument that tells the device. torch
# 2.13 gave some a second name: C++ looks for the new one first, so with it the old one is left.
_METHODS: list[tuple[tuple[str, ...], str, Any, int]] = [
    (("allreduce",), "all_reduce", _of(0), 0),
    (("allreduce_coalesced",), "all_reduce", _of(0), 0),
    (("broadcast",), "broadcast", _of(0), 0),
    (("reduce",), "reduce", _of(0), 0),
    (("allgather",), "all_gather", _of_all(1), 1),
    (("allgather_coalesced",), "all_gather", _of_all(1), 1),
    (
        ("all_gather_single_coalesced", "allgather_into_tensor_coalesced"),
        "all_gather_single",
        _of(0),
        0,
    ),
    (("reduce_scatter",), "reduce_scatter", _of(1), 1),
    (
        ("reduce_scatter_single_coalesced", "reduce_scatter_tensor_coalesced"),
        "reduce_scatter",
        _of(1),
        1,
    ),
    (("gather",), "gather", _of_all(1), 1),
    (("scatter",), "scatter", _of_all(0), 0),
    (("alltoall",), "all_to_all", _of(1), 1),
    (("all_to_all_single", "alltoall_base"), "all_to_all", _of(1), 1),
    (("send",), "send", _of(0), 0),
    (("recv",), "recv", _of(0), 0),
    (("recv_anysource",), "recv", _of(0), 0),
]
# C++ does not look for these in Python, so each name counts for itself.
_PYTHON_ONLY: list[tuple[tuple[str, ...], str, Any, int]] = [
    (("all_gather_single", "_allgather_base"), "all_gather_single", _of(0), 0),
    (("reduce_scatter_single", "_reduce_scatter_base"), "reduce_scatter", _of(1), 1),
]


def _counted(name: str, operation: str, payload: Any, place: int) -> Any:
    def method(self: CountedGroup, *arguments: Any, **named: Any) -> TimedWork | None:
        given = (*arguments, *named.values())
        is_on_gpu = self._count(operation, payload(self, given), given[place])
        work = getattr(self._plain, name)(*arguments, **named)
        return None if work is None else TimedWork(work, self._stopwatch, is_on_gpu=is_on_gpu)

    method.__name__ = name
    return method


for _names, *_rest in _METHODS:
    for _name in [each for each in _names if hasattr(dist.ProcessGroup, each)][:1]:
        setattr(CountedGroup, _name, _counted(_name, *_rest))
for _names, *_rest in _PYTHON_ONLY:
    for _name in [each for each in _names if hasattr(dist.ProcessGroup, each)]:
        setattr(CountedGroup, _name, _counted(_name, *_rest))
