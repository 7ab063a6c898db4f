"""Trains a network spread over ranks, and on rank 0 the same network alone on whole batches.

    oracle.py '{"layout": {...}, "network": ..., "optimizer": ..., "sizes": [...], ...}'

Prints `result {...}`: the largest differences of losses, weights, optimizer state and norms.
With "load" it goes on from the state in a file, with "save" it writes one; "mutation" makes a
mistake that the comparison must catch.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

sys.path.append(str(Path(__file__).parents[5]))
from tests.component.train.inner.scripts import mutations
from tests.component.train.inner.scripts.networks import (
    loss_of,
    make_batch,
    make_network,
    make_optimizer,
)
from trainmaster._layout import Layout
from trainmaster._order import share_of
from trainmaster.train.inner import InnerGroup, shard

ORDER: dict[str, Any] = {
    "network": "gpt",
    "optimizer": "adamw",
    "sizes": [8, 8, 7, 1],
    "first": 0,
    "microbatches": None,
    "stages_per_rank": 1,
    "is_foreach": None,
    "clip": None,
    "mutation": None,
    "load": None,
    "save": None,
    **json.loads(sys.argv[1]),
}


Trained = tuple[Any, Any, list[float], list[float]]


def train_alone() -> Trained:
    network = make_network(ORDER["network"])
    optimizer = make_optimizer(ORDER["optimizer"], network)
    losses, norms = [], []
    for step, size in enumerate(ORDER["sizes"]):
        x, y = make_batch(size, step)
        optimizer.zero_grad()
        loss = loss_of(network(x), y)
        loss.backward()
        if ORDER["clip"]:
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), ORDER["clip"])
            norms.append(norm.item())
        optimizer.step()
        losses.append(loss.item())
    weights = {name: each.detach() for name, each in network.state_dict().items()}
    return weights, name_state(network, optimizer), losses, norms


def name_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    names = {id(each): f"model.{name}" for name, each in network.named_parameters()}
    return {names[id(each)]: entry for each, entry in optimizer.state.items()}


def weigher(count: int, own: int, shares: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda loss: loss * (own * shares / count)


def train_spread(inner: InnerGroup, layout: Layout, rank: int) -> Trained:
    network = make_network(ORDER["network"], seed=11 + rank)  # rank 0's weights count
    plan = getattr(network, "train_plan", None)
    if plan and ORDER["stages_per_rank"] > 1:
        plan = type(plan)(plan.tensor, plan.pipeline, ORDER["stages_per_rank"])
    model = inner.wrap(network, plan)
    optimizer = make_optimizer(ORDER["optimizer"], model, is_foreach=ORDER["is_foreach"])
    if ORDER["load"]:
        load(inner, network, optimizer)
    losses, norms = [], []
    for step, size in enumerate(ORDER["sizes"]):
        if step < ORDER["first"]:
            continue
        x, y = make_batch(size, step)
        share = share_of(size, layout.share(rank), layout.shares)
        first, stop = (share.start, share.stop) if len(share) else (0, 1)
        optimizer.zero_grad()
        loss = inner.forward_backward(
            model,
            x[first:stop],
            y[first:stop],
            loss_of,
            microbatches=ORDER["microbatches"],
            weigh=weigher(size, len(share), layout.shares),
        )
        if ORDER["clip"]:
            norms.append(inner.clip_grad_norm(model.parameters(), ORDER["clip"]).item())
        optimizer.step()
        part = loss.double() * len(share) * layout.is_share_head(rank) / size
        dist.all_reduce(part)
        losses.append(part.item())
    weights = inner.gather_weights(network)
    state = inner.gather_optimizer({"model": network}, optimizer)
    return weights, state, losses, norms


def load(inner: InnerGroup, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load a state, and see that gathering it again gives the same bits."""
    saved = torch.load(ORDER["load"], weights_only=True, mmap=True)
    inner.load_weights(network, saved["weights"], {})
    inner.load_optimizer({"model": network}, optimizer, saved["optimizer"])
    weights = inner.gather_weights(network)
    state = inner.gather_optimizer({"model": network}, optimizer)
    if weights is not None:
        assert list(weights[0]) == list(saved["weights"])
        assert all(torch.equal(weights[0][name], each) for name, each in saved["weights"].items())
        assert_same(state, saved["optimizer"])


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other), f"{list(one)} {list(other)}"
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max((float((one[name] - other[name]).abs().max()) for name in other), default=0.0)


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layout = Layout.from_description(ORDER["layout"], dist.get_world_size())
    inner = InnerGroup(layout, rank, torch.device("cpu"))
    shard.BLOCK_BYTES_MIN = 200  # so that small networks have blocks, too
    mutations.apply(ORDER["mutation"])
    weights, state, losses, norms = train_spread(inner, layout, rank)
    if rank == 0:
        if ORDER["save"]:
            torch.save({"weights": weights[0], "optimizer": state}, ORDER["save"])
        wanted, wanted_state, wanted_losses, wanted_norms = train_alone()
        have = {**weights[0], **{alias: weights[0][name] for alias, name in weights[1].items()}}
        assert sorted(have) == sorted(wanted), f"{have.keys()} {wanted.keys()}"
        assert state["state"].keys() == wanted_state.keys()
        entries = [
            distance(
                {k: torch.as_tensor(v) for k, v in state["state"][name].items() if v is not None},
                {k: torch.as_tensor(v) for k, v in entry.items() if v is not None},
            )
            for name, entry in wanted_state.items()
        ]
        first = ORDER["first"]
        result = {
            "weights": distance(have, wanted),
            "optimizer": max(entries, default=0.0),
            "losses": max(abs(a - b) for a, b in zip(losses, wanted_losses[first:], strict=True)),
            "norms": max(
                (abs(a - b) for a, b in zip(norms, wanted_norms[first:], strict=True)), default=0.0
            ),
        }
        print("result", json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


main()
