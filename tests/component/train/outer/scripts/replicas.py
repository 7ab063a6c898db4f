"""What the scripts here share: a small network, its data, and the loop that a session runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainmaster._order import Cursor, Plan, share_of
from trainmaster.train.outer.joined import Joined
from trainmaster.train.sources import ShuffledOrder

SEED = 3
DECAY = 0.9  # of the learning rate in each step, where it decays


def make_network(*, has_norm: bool = False) -> nn.Module:
    torch.manual_seed(11)
    middle: list[nn.Module] = [nn.BatchNorm1d(16)] if has_norm else []
    return nn.Sequential(nn.Linear(8, 16), *middle, nn.Tanh(), nn.Linear(16, 3)).double()


def make_optimizer(name: str, network: nn.Module) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    momentum = {"sgd": 0.0, "momentum": 0.9, "nesterov": 0.9}[name]
    is_nesterov = name == "nesterov"
    return torch.optim.SGD(
        parameters, lr=0.1, momentum=momentum, weight_decay=0.01, nesterov=is_nesterov
    )


def make_data(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(size, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (size,), generator=generator)


class Training:
    """One replica's training, as a session would drive it."""

    def __init__(
        self,
        outer: Joined,
        replica: int,
        num_replicas: int,
        optimizer: str,
        plan: Plan,
        **more: Any,
    ) -> None:
        self.outer, self.plan = outer, plan
        self.replica, self.num_replicas = replica, num_replicas
        self.network = make_network(**more)
        self.optimizer = make_optimizer(optimizer, self.network)
        self.x, self.y = make_data(plan.order[1])
        self.order = ShuffledOrder(SEED, plan.order[1], is_shuffled=True)
        self.used: list[tuple[int, int]] = []
        self.ends = 0
        self.cursor = Cursor()
        self.decays = False
        # Called in the loop's body, as a script would.
        self.at_epoch_end: Callable[[], None] = lambda: None

    def hand_over(self) -> None:
        self.outer.wrap("model", self.network)
        self.outer.adopt("optimizer", self.optimizer)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, DECAY)

    def rows(self, batch: Any) -> tuple[torch.Tensor, int]:
        share = share_of(batch.count, self.replica, self.num_replicas)
        if not self.outer.in_step:
            share = range(batch.count)
        first, stop = (share.start, share.stop) if len(share) else (0, 1)
        rows = self.order.take(batch.epoch, batch.first + first, batch.first + stop)
        self.used += [(batch.epoch, int(row)) for row in rows[: len(share)]]
        return rows, len(share)

    def steps(self) -> Any:
        """Yield after each step, when the loop's body and what is due after it are done."""
        for batch in self.outer.batches(self.plan, self.plan.enter(self.cursor)):
            rows, count = self.rows(batch)
            self.cursor = batch.after
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.network(self.x[rows]), self.y[rows])
            self.outer.weigh(loss, count, batch.count).backward()
            self.optimizer.step()
            self.ends += batch.is_last_of_epoch
            if batch.is_last_of_epoch:
                self.at_epoch_end()
            if self.decays:
                self.schedule.step()
            self.outer.after_step(batch.after.step, count)
            yield batch.after.step
        self.outer.end_loop(self.cursor.step)

    def run(self) -> None:
        for _ in self.steps():
            pass

    def save(self) -> None:
        """Keep what a session keeps: the first's weights, each one's optimizer, all states."""
        states = self.outer.gather(self.outer.state_dict())
        torch.save(self.optimizer.state_dict(), f"optimizer-{self.replica}.pt")
        if states is not None:
            saved = {"network": self.network.state_dict(), "cursor": self.cursor.to_dict()}
            outer = [states.get(number) for number in range(self.num_replicas)]
            torch.save({**saved, "outer": outer}, "saved.pt")

    def load(self) -> None:
        saved = torch.load("saved.pt", weights_only=True)
        self.network.load_state_dict(saved["network"])
        number = self.replica if self.outer.in_step else 0
        self.optimizer.load_state_dict(torch.load(f"optimizer-{number}.pt", weights_only=True))
        self.outer.load_state_dict(saved["outer"])
        self.cursor = Cursor.from_dict(saved["cursor"])

    def parameters(self) -> list[float]:
        return flat(self.network)


def flat(network: nn.Module) -> list[float]:
    state = network.state_dict().values()
    return torch.cat([each.detach().reshape(-1).double() for each in state]).tolist()


def make_plan(size: int, batch_size: int, epochs: int | None, steps: int | None = None) -> Plan:
    return Plan((SEED, size, True), batch_size, epochs, steps)


def train_alone(optimizer: str, plan: Plan, *, decays: bool, **more: Any) -> list[float]:
    """Return the parameters after plain torch has trained on the whole batches."""
    network = make_network(**more)
    stepper = make_optimizer(optimizer, network)
    schedule = torch.optim.lr_scheduler.ExponentialLR(stepper, DECAY)
    x, y = make_data(plan.order[1])
    order = ShuffledOrder(SEED, plan.order[1], is_shuffled=True)
    for batch in plan.batches(plan.enter(Cursor())):
        rows = order.take(batch.epoch, batch.first, batch.first + batch.count)
        stepper.zero_grad()
        functional.cross_entropy(network(x[rows]), y[rows]).backward()
        stepper.step()
        if decays:
            schedule.step()
    return flat(network)


def write(name: str, value: Any) -> None:
    Path(name).write_text(json.dumps(value))


def arguments() -> dict[str, Any]:
    return json.loads(sys.argv[1])
