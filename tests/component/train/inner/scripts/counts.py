"""Counts what one step of a spread network sends.

    counts.py '{"layout": {...}, "network": ..., "microbatches": ..., "mutation": ...}'

Each rank prints `result {...}`: collectives and sends by name.
"""

import collections
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.append(str(Path(__file__).parents[5]))
from tests.component.train.inner.scripts import mutations
from tests.component.train.inner.scripts.networks import loss_of, make_batch, make_network
from trainmaster._layout import Layout
from trainmaster.train.inner import InnerGroup, shard

ORDER: dict[str, Any] = {
    "network": "gpt",
    "microbatches": None,
    "mutation": None,
    "is_replicated_by_torch": False,
    **json.loads(sys.argv[1]),
}
shard.BLOCK_BYTES_MIN = 200
WAITS = ("wait_tensor", "wrap_tensor_autograd")
COUNTS: collections.Counter[str] = collections.Counter()


class Counting(TorchDispatchMode):
    """Counts collectives, as torch's CommDebugMode does, which takes one pass at a time only."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), more: Any = None
    ) -> Any:
        if DTensor in types:
            return NotImplemented  # what it is made of comes by, too
        library, name, *_ = str(function).split(".")
        if library in ("c10d", "_c10d_functional") and name.strip("_") not in WAITS:
            COUNTS[name.strip("_")] += 1
        return function(*arguments, **(more or {}))


def count_bucket(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    COUNTS["bucket"] += 1
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layout = Layout.from_description(ORDER["layout"], dist.get_world_size())
    inner = InnerGroup(layout, rank, torch.device("cpu"))
    mutations.apply(ORDER["mutation"])
    network = make_network(ORDER["network"])
    if ORDER["is_replicated_by_torch"]:
        model = DistributedDataParallel(network)
        model.register_comm_hook(None, count_bucket)
    else:
        model = inner.wrap(network)
    x, y = make_batch(6, 0)
    inner.forward_backward(model, x, y, loss_of, microbatches=ORDER["microbatches"])  # sets up
    COUNTS.clear()
    with Counting():
        inner.forward_backward(model, x, y, loss_of, microbatches=ORDER["microbatches"])
    print("result", json.dumps({name: count for name, count in COUNTS.items() if count}))
    dist.barrier()
    dist.destroy_process_group()


main()
