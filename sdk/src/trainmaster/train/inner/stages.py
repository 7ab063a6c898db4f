"""A module cut into the stages of a pipeline: which links go where, and what this rank keeps.

Every rank has the whole module when it is cut. What other ranks have stays in it by name, on
torch's device "meta", which takes no memory.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainmaster._balance import balance
from trainmaster.train.inner.plan import CannotSplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Stage(nn.Module):
    """Some links, one after the other."""

    def __init__(self, links: Sequence[nn.Module]) -> None:
        super().__init__()
        self.links = nn.ModuleList(links)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply them."""
        for link in self.links:
            x = link(x)
        return x


@dataclass(frozen=True)
class Cut:
    """How a module is cut.

    Attributes:
        names: of the links of each stage.
        stages: this rank's, by number.
        owners: the pipeline rank that has each parameter and buffer, by full name.
        outline: computes what passes between stages, without data.
    """

    names: list[list[str]]
    stages: dict[int, Stage]
    owners: dict[str, int]
    outline: Outline


def cut_module(
    module: nn.Module, links: Mapping[str, nn.Module], ranks: int, rank: int, stages_per_rank: int
) -> Cut:
    """Cut a module into stages, and let go of what other ranks have.

    Stage s is on pipeline rank s modulo `ranks`.

    Args:
        module: whole; it changes in place.
        links: what it consists of, in order, by full name.
        ranks: of the pipeline.
        rank: this one among them.
        stages_per_rank: how many stages each has.
    """
    costs = [_cost_of(link) for link in links.values()]
    bounds = balance(costs, ranks * stages_per_rank)
    names = [list(links)[first:stop] for first, stop in itertools.pairwise(bounds)]
    outline = Outline([[links[name] for name in each] for each in names])
    owners = {}
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for number, each in enumerate(names):
        for link in each:
            inside = [name for name, _ in tensors if name.startswith(f"{link}.")]
            owners.update(dict.fromkeys(inside, number % ranks))
    mine = {
        number: Stage([links[name] for name in each])
        for number, each in enumerate(names)
        if number % ranks == rank
    }
    kept = {id(part) for stage in mine.values() for part in stage.modules()}
    for link in links.values():
        for part in link.modules():
            if id(part) not in kept:
                _empty(part)
    return Cut(names, mine, owners, outline)


@dataclass(frozen=True)
class Shared:
    """A parameter of this rank that another rank of the pipeline has too.

    Attributes:
        parameter: this rank's.
        peer: the other rank.
        is_copy: whether the other one is the first, which counts.
    """

    parameter: nn.Parameter
    peer: int
    is_copy: bool


def find_shared(
    module: nn.Module, owners: Mapping[str, int], tied: Mapping[str, str], rank: int
) -> list[Shared]:
    """Return what this rank of a pipeline has in common with another, in an order both know.

    Args:
        module: cut.
        owners: as `Cut` has it.
        tied: the first name of a tensor by each other name, before the cut.
        rank: this one.

    Raises:
        CannotSplit: one is on more than two ranks.
    """
    holders: dict[str, dict[int, str]] = {}
    for alias, first in tied.items():
        names = holders.setdefault(first, {owners[first]: first})
        names.setdefault(owners[alias], alias)
    shared = []
    for first, names in holders.items():
        if len(names) > 2:
            raise CannotSplit(
                f"{', '.join(names.values())} are one parameter on {len(names)} ranks of the "
                "pipeline, and it can be on two: take fewer stages, or untie them"
            )
        if len(names) == 2 and rank in names:
            (peer,) = set(names) - {rank}
            parameter = module.get_parameter(names[rank])
            shared.append(Shared(parameter, peer, is_copy=owners[first] != rank))
    return shared


class Outline:
    """The same computation on tensors without data, to know what passes from stage to stage."""

    def __init__(self, stages: Sequence[Sequence[nn.Module]]) -> None:
        """Take the shape of every stage's links; they may be cut and divided later."""
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        memo: dict[int, object] = {}
        for link in itertools.chain.from_iterable(stages):
            for each in [*link.parameters(), *link.buffers()]:
                memo[id(each)] = self._mode.from_tensor(each.detach())
        links = copy.deepcopy([list(each) for each in stages], memo)
        # Not in training: it makes no other shapes, and what is only for gradients is left out.
        self._stages = [Stage(each).eval() for each in links]
        self._known: dict[object, list[torch.Tensor]] = {}

    def boundaries(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return, on device "meta", what goes into each stage and what comes out of the last.

        Raises:
            CannotSplit: some link returns no tensor, or its shape depends on values.
        """
        key = (x.shape, x.dtype, torch.is_autocast_enabled(x.device.type))
        if key not in self._known:
            with torch.no_grad(), self._mode:
                values = [self._mode.from_tensor(x.detach())]
                for number, stage in enumerate(self._stages):
                    values.append(self._apply(stage, values[-1], number))
            shapes = [torch.empty(each.shape, dtype=each.dtype, device="meta") for each in values]
            for each in shapes[1:]:
                each.requires_grad_(each.is_floating_point())  # gradients come back that way
            self._known[key] = shapes
        return self._known[key]

    def _apply(self, stage: Stage, value: torch.Tensor, number: int) -> torch.Tensor:
        try:
            answer = stage(value)
        except Exception as error:
            raise CannotSplit(
                f"pipeline stage {number} cannot be computed on a tensor without data, so what it "
                f"sends on is not known: {error}"
            ) from error
        if not isinstance(answer, torch.Tensor):
            raise CannotSplit(
                f"pipeline stage {number} returns a {type(answer).__name__}: each link takes one "
                "tensor and returns one"
            )
        return answer


def _cost_of(link: nn.Module) -> int:
    """Return how many parameters are multiplied with: to look up a row costs next to nothing."""
    return sum(
        parameter.numel()
        for part in link.modules()
        if not isinstance(part, nn.Embedding)
        for parameter in part.parameters(recurse=False)
    )


def _empty(part: nn.Module) -> None:
    for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
        empty = torch.empty_like(parameter, device="meta")
        setattr(part, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
    for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
        setattr(part, name, torch.empty_like(buffer, device="meta"))
