"""Prints what is said to modules that cannot be divided: `{"name of the case": "message"}`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[5]))
from tests.component.train.inner.scripts.networks import GPT, Odd
from trainmaster.train.inner import CannotSplit, plan
from trainmaster.train.inner.plan import find_links, find_plan, match_layers
from trainmaster.train.inner.shard import shard_module
from trainmaster.train.inner.spread import Spread, StateMismatch, find_tied, require_same_names
from trainmaster.train.inner.stages import cut_module, find_shared
from trainmaster.train.inner.tensor import require_same_split


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 4, 1), nn.Linear(4, 4)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Peeking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int(x.sum())]


class Thrice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.links = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        for each in self.links:
            each.weight = self.links[0].weight


def match(module: nn.Module, ways: int, **tensor: Any) -> Any:
    return match_layers(module, plan(**tensor) if tensor else find_plan(module), ways)


def link(module: nn.Module, stages: int, *names: str) -> Any:
    own = plan(pipeline=names) if names else find_plan(module)
    return find_links(module, own, stages)


def outline(*links: nn.Module) -> Any:
    names = {str(number): each for number, each in enumerate(links)}
    cut = cut_module(nn.Sequential(*links), names, 2, 0, 1)
    return cut.outline.boundaries(torch.ones(2, 4))


def wrong_tie() -> Any:
    module = GPT(tied=True)
    require_same_split({"head": "vocab"}, find_tied(module))


def three_holders() -> Any:
    module = Thrice()
    tied = find_tied(module)
    links = dict(module.links.named_children())
    cut = cut_module(module, {f"links.{name}": each for name, each in links.items()}, 3, 0, 1)
    return find_shared(module, cut.owners, tied, 0)


def mixed_types() -> Any:
    shard_module(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double()), None)


def other_state() -> Any:
    require_same_names(Spread(GPT()), ["a", "b"], ["b", "c"])


CASES: dict[str, Callable[[], Any]] = {
    "no tensor plan": lambda: match(Odd(), 2),
    "no such layer": lambda: match(GPT(), 2, tensor={"blocks.*.mlp.upp": "column"}),
    "does not divide": lambda: match(GPT(), 5),
    "vocabulary does not divide": lambda: match(GPT(), 5, tensor={"embed.token": "vocab"}),
    "not that kind": lambda: match(Convolution(), 2, tensor={"first": "column", "last": "row"}),
    "no such way": lambda: match(GPT(), 2, tensor={"head": "rows"}),
    "no plan": lambda: find_plan(type("Net", (nn.Module,), {"train_plan": {}})()),
    "no pipeline plan": lambda: link(Odd(), 2),
    "no such link": lambda: link(GPT(), 2, "embed", "block", "norm", "head"),
    "outside of all links": lambda: link(Odd(), 2, "layers", "head"),
    "too few links": lambda: link(GPT(), 8),
    "returns no tensor": lambda: outline(nn.Linear(4, 4), Pair()),
    "depends on values": lambda: outline(nn.Linear(4, 4), Peeking()),
    "tied but divided differently": wrong_tie,
    "tied on three ranks": three_holders,
    "several types": mixed_types,
    "another state": other_state,
}

messages = {}
for name, case in CASES.items():
    try:
        messages[name] = f"was accepted: {case()}"
    except (CannotSplit, StateMismatch) as error:
        messages[name] = str(error)
print("result", json.dumps(messages))
