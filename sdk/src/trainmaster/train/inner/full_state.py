"""The whole state of a model that is spread over ranks, by the names of the bare module.

What is gathered is what one process would have: it loads into any other layout. Tensors travel
one at a time, so nobody but rank 0 ever holds more than one of them in whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from trainmaster.train.inner.gradients import local_part
from trainmaster.train.inner.spread import (
    StateMismatch,
    name_parameters,
    names_of,
    require_same_names,
    restore,
    take_part,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._layout import Layout
    from trainmaster.train.inner.spread import Spread

Weights = tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Any]]


class FullState:
    """Gathers on rank 0, and gives every rank its part."""

    def __init__(self, layout: Layout, rank: int) -> None:
        self._layout = layout
        self._rank = rank
        self._place = layout.place(rank)

    def gather_weights(self, spread: Spread) -> Weights | None:
        """Return, on rank 0, copies of all tensors by first name, other names, and what is none.

        Every rank must call it; the others get None.
        """
        spread.reshard()
        tensors: dict[str, torch.Tensor] = {}
        extra: dict[str, Any] = {}
        for name, value in spread.module.state_dict(keep_vars=True).items():
            if name in spread.tied:
                continue
            if not isinstance(value, torch.Tensor) or name.endswith("_extra_state"):
                extra[name] = value
                continue
            owner = spread.owners.get(name, 0)
            mine = self._collect(value) if self._place.pipeline == owner else None
            full = self._bring(mine, owner, value.shape, value.dtype)
            if full is not None:
                tensors[name] = full
        return (tensors, dict(spread.tied), extra) if self._rank == 0 else None

    def load_weights(
        self, spread: Spread, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any]
    ) -> None:
        """Give every rank its part of what `gather_weights` returned, without a word to the others.

        Args:
            spread: the module.
            tensors: by first name, other names allowed; each is looked up by those who have it.
            extra: what is no tensor.

        Raises:
            StateMismatch: names or shapes differ.
        """
        spread.reshard()
        state = spread.module.state_dict(keep_vars=True)
        require_same_names(spread, state, [*tensors, *extra])
        loose = {name: value for name, value in extra.items() if name in state}
        if loose:
            spread.module.load_state_dict(loose, strict=False)
        with torch.no_grad():
            for name, value in state.items():
                if name in loose or value.is_meta:
                    continue
                first = spread.tied.get(name, name)
                found = tensors[first if first in tensors else name]
                if found.shape != value.shape:
                    raise StateMismatch(
                        f"{name} has shape {list(found.shape)} in the state and "
                        f"{list(value.shape)} in the model: build the model with the sizes it was "
                        "saved with, or begin without a checkpoint"
                    )
                local_part(value).copy_(take_part(found, value))

    def gather_optimizer(
        self, spreads: Mapping[str, Spread], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Return, on rank 0, an optimizer's state with names in place of numbers.

        Every rank must call it; the others get None.

        Args:
            spreads: the models that it trains, by a name that goes before those of parameters.
            optimizer: whose groups are the same on every rank, but for the parameters in them.
        """
        names = name_parameters(spreads, optimizer)
        packed = optimizer.state_dict()
        groups = [_name_group(group, names) for group in packed["param_groups"]]
        entries = {names[index]: dict(each) for index, each in packed["state"].items()}
        parts = self._gather_entries(entries, groups)
        if parts is None:
            return None
        order = [f"{model}.{name}" for model, each in spreads.items() for name in names_of(each)]
        return _merge_optimizers(parts, {name: number for number, name in enumerate(order)})

    def load_optimizer(
        self,
        spreads: Mapping[str, Spread],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
    ) -> None:
        """Give every rank its part of what `gather_optimizer` returned.

        Raises:
            StateMismatch: groups or names differ.
        """
        names = name_parameters(spreads, optimizer)
        packed = optimizer.state_dict()
        if len(packed["param_groups"]) != len(state["param_groups"]):
            raise StateMismatch(
                f"the optimizer has {len(packed['param_groups'])} groups of parameters, its state "
                f"{len(state['param_groups'])}: give it the groups it was saved with, or another "
                "name= to begin anew"
            )
        groups = []
        for group, saved in zip(packed["param_groups"], state["param_groups"]):
            missing = sorted({names[index] for index in group["params"]} - set(saved["params"]))
            if missing:
                raise StateMismatch(
                    f"{', '.join(missing)}: not in the same group of the optimizer's state; give "
                    "each group the parameters it was saved with, or the optimizer another name="
                )
            groups.append({**group, **saved, "params": group["params"]})
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        entries = {
            index: {
                key: restore(value, parameters[index])
                for key, value in state["state"][name].items()
            }
            for index, name in names.items()
            if name in state["state"]
        }
        optimizer.load_state_dict({"state": entries, "param_groups": groups})

    def _gather_entries(
        self, entries: dict[str, dict[str, Any]], groups: list[dict[str, Any]]
    ) -> list[tuple[dict[str, Any], list[dict[str, Any]]]] | None:
        """Return, on rank 0, the entries and groups of each stage."""
        parts = []
        for owner in range(self._layout.pipeline):
            is_mine = self._place.pipeline == owner
            outline = [_outline(entries), groups] if is_mine else None
            shapes, owned = self._bring_object(outline, owner)
            full: dict[str, dict[str, Any]] = {}
            for name, entry in shapes.items():
                full[name] = {}
                for key, value in entry.items():
                    full[name][key] = value
                    if isinstance(value, _Shape):
                        mine = self._collect(entries[name][key]) if is_mine else None
                        full[name][key] = self._bring(mine, owner, value.shape, value.dtype)
            parts.append((full, owned))
        return parts if self._rank == 0 else None

    def _collect(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return a copy in whole on the first rank of the owning stage, None elsewhere."""
        if self._place.data != 0:
            return None
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if self._place.shard != 0 or self._place.tensor != 0:
            return None
        return full.detach().to("cpu", copy=True).contiguous()

    def _bring(
        self, mine: torch.Tensor | None, owner: int, shape: torch.Size, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """Return on rank 0 what the first rank of a stage has."""
        source = self._head_of(owner)
        if source == 0:
            return mine
        if self._rank == source:
            dist.send(mine, 0)
        if self._rank == 0:
            full = torch.empty(shape, dtype=dtype)
            dist.recv(full, source)
            return full
        return None

    def _bring_object(self, mine: Any, owner: int) -> Any:
        """Return to rank 0 and to the owning stage what that stage says; nothing to others."""
        source = self._head_of(owner)
        if source != 0 and self._rank == source:
            dist.send_object_list([mine], 0)
        if source != 0 and self._rank == 0:
            answer = [None]
            dist.recv_object_list(answer, source)
            return answer[0]
        return mine if mine is not None else ({}, [])

    def _head_of(self, pipeline: int) -> int:
        return pipeline * self._layout.shard * self._layout.tensor


@dataclass(frozen=True)
class _Shape:
    """What a tensor is like that has yet to be sent."""

    shape: torch.Size
    dtype: torch.dtype


def _outline(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            key: _Shape(value.shape, value.dtype) if isinstance(value, torch.Tensor) else value
            for key, value in entry.items()
        }
        for name, entry in entries.items()
    }


def _name_group(group: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Return a group with names, and without what is about speed and depends on the layout."""
    kept = {name: value for name, value in group.items() if name not in ("foreach", "fused")}
    return {**kept, "params": [names[index] for index in group["params"]]}


def _merge_optimizers(
    parts: list[tuple[dict[str, Any], list[dict[str, Any]]]], order: Mapping[str, int]
) -> dict[str, Any]:
    """Return the state of all stages as one, in the order of the model's parameters."""

    def place(name: str) -> int:
        return order.get(name, len(order))

    entries = {name: entry for part, _ in reversed(parts) for name, entry in part.items()}
    groups = []
    for same in zip(*(owned for _, owned in parts)):
        members = {name for group in same for name in group["params"]}
        groups.append({**same[0], "params": sorted(members, key=place)})
    return {
        "state": {name: entries[name] for name in sorted(entries, key=place)},
        "param_groups": groups,
    }
