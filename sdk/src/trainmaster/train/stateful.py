"""What a script has handed over that has a state; and what of it who joins later must have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Stateful:
    """Everything in a script that goes into its checkpoints, by name.

    Attributes:
        models: bare modules, without any wrapper.
        optimizers: theirs.
        kept: whatever else has a state.
        facts: JSON values, for whoever reads the checkpoint.
    """

    models: dict[str, torch.nn.Module] = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def tell(self) -> dict[str, Any]:
        """Return what a replica must know that joins others at work, by name; not a copy.

        What was kept, and the numbers of each optimizer, such as its learning rate. Not what an
        optimizer remembers of its own steps.
        """
        told = {f"keep({name!r})": each.state_dict() for name, each in self.kept.items()}
        for name, optimizer in self.optimizers.items():
            told[f"optimizer {name!r}"] = [
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
        return told

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take over what `tell` has returned elsewhere, as far as it is there."""
        for name, optimizer in self.optimizers.items():
            for group, numbers in zip(optimizer.param_groups, told.get(f"optimizer {name!r}", ())):
                for key, value in numbers.items():
                    if isinstance(group.get(key), torch.Tensor):
                        group[key].copy_(value)  # whoever holds it, such as a captured graph
                    else:
                        group[key] = value
        for name, thing in self.kept.items():
            if f"keep({name!r})" in told:
                thing.load_state_dict(told[f"keep({name!r})"])
