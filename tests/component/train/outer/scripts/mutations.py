"""Mistakes that the comparisons must see, each by name, made in the code as it runs."""

from typing import Any

import torch

from trainmaster.train.outer import anchor, anchored, gate, guard, parameters, served
from trainmaster.train.outer.joined import Joined
from trainmaster.train.outer.local_rounds import LocalRounds, _Strand
from trainmaster.train.outer.parameter_server import ParameterServer


def mutate(name: str) -> None:
    """Make one mistake, in this process and in the servers that it forks."""
    MUTATIONS[name]()


def exchange(owner: Any, name: str, function: Any) -> None:
    """Let a function of a class or module be another."""
    setattr(owner, name, function)


def add_up() -> None:
    def ones(weights: Any) -> list[float]:
        return [1.0 for _ in weights]

    exchange(anchored, "fractions", ones)
    exchange(served, "fractions", ones)


def weigh_equally() -> None:
    def weigh(_self: Any, loss: torch.Tensor, *_counts: int) -> torch.Tensor:
        return loss

    exchange(LocalRounds, "weigh", weigh)
    exchange(ParameterServer, "weigh", weigh)


def turn_the_outer_sign() -> None:
    plain = anchor.OuterOptimizer.step

    def step(self: Any, anchor_P: Any, delta_P: Any, momentum_P: Any) -> None:
        plain(self, anchor_P, delta_P.neg(), momentum_P)

    exchange(anchor.OuterOptimizer, "step", step)


def keep_the_first_anchor() -> None:
    plain = _Strand.go

    def go(self: _Strand, arrived: list[torch.Tensor]) -> list[torch.Tensor]:
        before_P = self.anchor_P.clone()
        rest = plain(self, arrived)
        self.anchor_P.copy_(before_P)
        return rest

    exchange(_Strand, "go", go)


def skip_a_fragment() -> None:
    plain = LocalRounds._is_due

    def is_due(self: LocalRounds, fragment: int, step: int) -> bool:
        return fragment != 1 and plain(self, fragment, step)

    exchange(LocalRounds, "_is_due", is_due)


def forget_a_buffer() -> None:
    def mean_of_the_first(self: Any, number: int, codec: Any, arrived: Any, shares: Any) -> Any:
        if self.sections[number].kind == "mean":
            arrived, shares = arrived[:1], [1.0]
        return plain(self, number, codec, arrived, shares)

    plain = anchored.AnchoredSpace._move
    exchange(anchored.AnchoredSpace, "_move", mean_of_the_first)


def lose_a_push() -> None:
    plain = parameters.ServedOptimizer.step
    calls = [0]

    def step(self: Any, *arguments: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] != 7:
            plain(self, *arguments, **more)

    exchange(parameters.ServedOptimizer, "step", step)


def apply_a_push_twice() -> None:
    plain = parameters.ServedOptimizer.step
    calls = [0]

    def step(self: Any, *arguments: Any, **more: Any) -> None:
        calls[0] += 1
        for _ in range(2 if calls[0] == 7 else 1):
            plain(self, *arguments, **more)

    exchange(parameters.ServedOptimizer, "step", step)


def open_the_gate_one_too_far() -> None:
    def may_read(self: Any, key: Any) -> bool:
        return self.staleness is None or self._gap(key) <= self.staleness + 1

    exchange(gate.Gate, "may_read", may_read)


def close_the_gate_one_too_early() -> None:
    def may_read(self: Any, key: Any) -> bool:
        return self.staleness is None or self._gap(key) <= max(0, self.staleness - 1)

    exchange(gate.Gate, "may_read", may_read)


def compensate_the_wrong_way() -> None:
    plain = guard.compensate

    def compensate(gradient_P: Any, now_P: Any, read_P: Any, strength: float) -> Any:
        return plain(gradient_P, now_P, read_P, -strength)

    exchange(served, "compensate", compensate)


def lose_the_residuals() -> None:
    plain = Joined.load_state_dict

    def load_state_dict(self: Joined, states: Any) -> None:
        plain(self, states)
        self._saved_mine.pop("residuals", None)

    exchange(Joined, "load_state_dict", load_state_dict)


def lose_what_the_server_has_not_sent() -> None:
    plain = Joined.load_state_dict

    def load_state_dict(self: Joined, states: Any) -> None:
        plain(self, states)
        if "true" in self._saved:
            self._saved["true"] = self._saved.get("known") or {}
        if not self._saved.get("true"):
            self._saved.pop("true", None)

    exchange(Joined, "load_state_dict", load_state_dict)


def lose_the_outer_momentum() -> None:
    plain = Joined.load_state_dict

    def load_state_dict(self: Joined, states: Any) -> None:
        plain(self, states)
        self._saved["momentum"] = {}

    exchange(Joined, "load_state_dict", load_state_dict)


def forget_the_optimizer() -> None:
    plain = ParameterServer._bring

    def bring(self: ParameterServer, server: int) -> Any:
        for optimizer in self._optimizers.values():
            optimizer.state.clear()
        return plain(self, server)

    exchange(ParameterServer, "_bring", bring)


def leave_learning_rates_alone() -> None:
    def set_numbers(_self: Any, _groups: Any) -> None:
        pass

    exchange(parameters.ServedOptimizer, "set_numbers", set_numbers)


MUTATIONS = {
    function.__name__.replace("_", " "): function
    for function in (
        add_up,
        weigh_equally,
        turn_the_outer_sign,
        keep_the_first_anchor,
        skip_a_fragment,
        forget_a_buffer,
        lose_a_push,
        apply_a_push_twice,
        open_the_gate_one_too_far,
        close_the_gate_one_too_early,
        compensate_the_wrong_way,
        lose_the_residuals,
        lose_what_the_server_has_not_sent,
        lose_the_outer_momentum,
        forget_the_optimizer,
        leave_learning_rates_alone,
    )
}
