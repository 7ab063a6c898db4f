"""Evaluates a spread network between steps, and draws random numbers in it.

    evaluates.py '{"layout": {...}, "network": ..., "stages_per_rank": ...}'

Each rank prints `result {...}`: how far its output is from that of one process, before and after a
step; what calling the model with gradients says; a digest of its output with dropout.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.append(str(Path(__file__).parents[5]))
from tests.component.train.inner.scripts.networks import (
    loss_of,
    make_batch,
    make_network,
    make_optimizer,
)
from trainmaster._layout import Layout
from trainmaster.train.inner import InnerGroup, plan, shard

ORDER: dict[str, Any] = {"network": "gpt", "stages_per_rank": 1, **json.loads(sys.argv[1])}
shard.BLOCK_BYTES_MIN = 200


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layout = Layout.from_description(ORDER["layout"], dist.get_world_size())
    inner = InnerGroup(layout, rank, torch.device("cpu"))
    alone, network = make_network(ORDER["network"]), make_network(ORDER["network"])
    own = network.train_plan
    cut = plan(tensor=own.tensor, pipeline=own.pipeline, stages_per_rank=ORDER["stages_per_rank"])
    model = inner.wrap(network, cut)
    optimizers = [make_optimizer("sgd", each) for each in (alone, model)]
    x, y = make_batch(4, 0)
    result: dict[str, Any] = {"distances": []}
    for _ in range(3):
        for each in (alone, model):
            each.eval()
        with torch.no_grad():
            result["distances"].append(float((model(x) - alone(x)).abs().max()))
        for each in optimizers:
            each.zero_grad()
        loss_of(alone(x), y).backward()
        inner.forward_backward(model, x, y, loss_of)
        for each in optimizers:
            each.step()
    with torch.no_grad():
        model(x)  # and what it has put together is in nobody's way
    state = inner.gather_optimizer({"model": network}, optimizers[1])
    weights = inner.gather_weights(network)
    if weights is not None:
        assert state is not None
        wanted = dict(alone.named_parameters())
        assert {name for each in state["param_groups"] for name in each["params"]} == {
            f"model.{name}" for name in wanted
        }
        far = [float((weights[0][name] - each).abs().max()) for name, each in wanted.items()]
        result["distances"].append(max(far))
    torch.manual_seed(layout.randomness(rank))
    model.train()
    with torch.no_grad():
        output = model(x).contiguous()
    result["digest"] = hashlib.sha256(output.numpy().tobytes()).hexdigest()
    if layout.pipeline > 1:
        try:
            model(x)
        except RuntimeError as error:
            result["refusal"] = str(error)
    print("result", json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


main()
