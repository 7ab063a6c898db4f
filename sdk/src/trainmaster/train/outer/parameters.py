"""The parameters that a server keeps, and the optimizer that moves them.

The optimizer is the job's own, made again on the server from its class and numbers, over whole
tensors in their own shapes; so it computes what it would compute in one process.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping, Sequence

    from trainmaster.train.outer.layout import Section

# What belongs to where and how a step is computed, not to what it computes.
_ELSEWHERE = ("foreach", "fused", "capturable", "differentiable")


class UnservableOptimizer(ValueError):
    """A server cannot make this optimizer again."""


def describe_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str]
) -> dict[str, Any]:
    """Return class, numbers and parameters of an optimizer, as JSON values.

    Args:
        optimizer: an instance of any class that can be imported by its name.
        names: name of each parameter.

    Raises:
        UnservableOptimizer: its class cannot be imported, or it holds more than plain values.
    """
    kind = type(optimizer)
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UnservableOptimizer(
            f"{kind.__qualname__} computes the loss again and again within a step, which a server "
            "cannot: use another optimizer, or a sync.mode other than parameter_server"
        )
    path = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise UnservableOptimizer(
            f"the optimizer {kind.__qualname__} is defined in the script itself, where a server "
            "cannot import it: put its class into a module beside the script"
        )
    missing = [each for group in optimizer.param_groups for each in group["params"]]
    if any(each not in names for each in missing):
        raise UnservableOptimizer(
            "the optimizer has parameters of no model that the run knows: give each model to "
            "run.model() before the first step"
        )
    return {
        "class": path,
        "defaults": _plain(optimizer.defaults),
        "groups": describe_groups(optimizer),
        "names": [[names[each] for each in group["params"]] for group in optimizer.param_groups],
    }


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the numbers of each parameter group, such as its learning rate."""
    return [_plain(group) for group in optimizer.param_groups]


class ServedOptimizer:
    """The job's optimizer over this server's part of the parameters.

    Attributes:
        flats: the parameters of each section, end to end; the optimizer's are views of them.
        num_steps: steps taken here.
    """

    def __init__(self, described: Mapping[str, Any], sections: Sequence[Section]) -> None:
        self.num_steps = 0
        self._sections = list(sections)
        self.flats = [section.empty() for section in sections]
        self._gradients = [section.empty() for section in sections]
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._views: dict[str, torch.Tensor] = {}
        for section, flat_P, gradient_P in zip(sections, self.flats, self._gradients):
            for name, view in zip(section.names, section.split(flat_P)):
                self._parameters[name] = torch.nn.Parameter(view)
            self._views.update(zip(section.names, section.split(gradient_P)))
        self._names = {parameter: name for name, parameter in self._parameters.items()}
        self._optimizer: torch.optim.Optimizer | None = None
        if self._parameters:  # where another optimizer's fill a server, this one has none there
            self._optimizer = self._make(described)

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [] if self._optimizer is None else self._optimizer.param_groups

    @property
    def _state(self) -> MutableMapping[torch.Tensor, Any]:
        return {} if self._optimizer is None else self._optimizer.state

    def set_numbers(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Take over what schedules have changed: one mapping per parameter group."""
        for group in self._groups:
            group.update(_restored(groups[group["number"]]))

    @property
    def has_momenta(self) -> bool:
        """Whether it is SGD with momentum, whose buffers can be exchanged."""
        groups = self._groups
        return type(self._optimizer) is torch.optim.SGD and any(each["momentum"] for each in groups)

    @property
    def momenta(self) -> dict[str, torch.Tensor]:
        """The momentum buffer of each parameter that has one; setting puts others in place."""
        state = self._state
        return {
            name: state[parameter]["momentum_buffer"]
            for name, parameter in self._parameters.items()
            if state.get(parameter, {}).get("momentum_buffer") is not None
        }

    @momenta.setter
    def momenta(self, momenta: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            self._state[parameter]["momentum_buffer"] = momenta.get(name)

    def look_ahead(
        self, momenta: Sequence[Mapping[str, torch.Tensor]], share: float
    ) -> list[torch.Tensor]:
        """Return each section's parameters after a share of the updates that momenta announce."""
        ahead = [flat_P.clone() for flat_P in self.flats]
        views: dict[str, torch.Tensor] = {}
        for section, ahead_P in zip(self._sections, ahead):
            views.update(zip(section.names, section.split(ahead_P)))
        for group in self._groups:
            step = -group["lr"] * group["momentum"] * share
            for parameter in group["params"]:
                name = self._names[parameter]
                for each in momenta:
                    if name in each:
                        views[name].add_(each[name], alpha=step)
        return ahead

    def step(
        self,
        gradients: Sequence[torch.Tensor],
        absent: Iterable[str] = (),
        *,
        rate: float = 1.0,
    ) -> None:
        """Take one step.

        Args:
            gradients: of each section, end to end; in their own type.
            absent: parameters that have no gradient, which the optimizer then leaves alone.
            rate: what the learning rate is multiplied by in this step.
        """
        for mine_P, gradient_P in zip(self._gradients, gradients):
            if mine_P.data_ptr() != gradient_P.data_ptr():
                mine_P.copy_(gradient_P)
        missing = set(absent)
        for name, parameter in self._parameters.items():
            parameter.grad = None if name in missing else self._views[name]
        groups = self._groups
        rates = [group["lr"] for group in groups] if rate != 1.0 else []
        for group, lr in zip(groups, rates):
            group["lr"] = lr * rate
        if self._optimizer is not None:
            self._optimizer.step()
        for group, lr in zip(groups, rates):
            group["lr"] = lr
        self.num_steps += 1

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what the optimizer remembers of each parameter; not a copy."""
        return {
            name: dict(self._state[parameter])
            for name, parameter in self._parameters.items()
            if parameter in self._state
        }

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Put back what `state` returned; what is not this server's is passed over."""
        for name, values in state.items():
            if name in self._parameters:
                self._state[self._parameters[name]] = {
                    key: value.clone() if isinstance(value, torch.Tensor) else value
                    for key, value in values.items()
                }

    def _make(self, described: Mapping[str, Any]) -> torch.optim.Optimizer:
        module, _, qualified = described["class"].partition(":")
        try:
            kind: Any = importlib.import_module(module)
            for part in qualified.split("."):
                kind = getattr(kind, part)
        except (ImportError, AttributeError) as error:
            raise UnservableOptimizer(
                f"the server cannot import the optimizer {qualified} from {module} ({error}): put "
                "its class into a module that is installed, or in the job's own code"
            ) from error
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
            raise UnservableOptimizer(
                f"{described['class']} is no optimizer of torch: derive it from "
                "torch.optim.Optimizer, or use a sync.mode other than parameter_server"
            )
        groups = []
        for number, names in enumerate(described["names"]):
            mine = [self._parameters[name] for name in names if name in self._parameters]
            if mine:
                numbers = _restored(described["groups"][number])
                groups.append({**numbers, "params": mine, "number": number})
        accepted = inspect.signature(kind).parameters
        defaults = _restored(described["defaults"])
        return kind(groups, **{key: defaults[key] for key in defaults if key in accepted})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain_value(key, value)
        for key, value in values.items()
        if key not in ("params", "param_names", *_ELSEWHERE)
    }


def _plain_value(key: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (tuple, list)):
        return [_plain_value(key, each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UnservableOptimizer(
        f"the optimizer's {key} is a {type(value).__name__}: a server takes numbers and text, so "
        "give it one of these, or use a sync.mode other than parameter_server"
    )


def _restored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(each) if isinstance(each, list) else each for key, each in values.items()}
