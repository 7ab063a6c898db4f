"""The recipe `tabular`: `python -m trainmaster.recipes.tabular`.

Shapes: B rows of a batch, F numbers of a row, N rows of a part.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  F is what everybody calls it
from torch import nn

from trainmaster import train
from trainmaster.recipes import default_config
from trainmaster.recipes._labelled_images import Split, UnusableImages, split_by_class
from trainmaster.recipes._tables import Table, UnusableTable, load_file, load_shipped
from trainmaster.recipes._tables_encoding import Encoder, mean_and_deviation
from trainmaster.run import current_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster.train import TrainRun

EVALUATION_BATCH = 8192


def build_model(width: int, outputs: int, config: Mapping[str, Any]) -> nn.Module:
    """Return hidden layers and one output per class, or a single one."""
    layers: list[nn.Module] = []
    for _ in range(config["layers"]):
        hidden = nn.Linear(width, config["hidden"])
        layers += [hidden, nn.ReLU(), nn.Dropout(config["dropout"])]
        width = config["hidden"]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def learning_rate_factor(step: int, steps_total: int) -> float:
    """Return the share of the highest rate: up over a tenth of the steps, then a half cosine."""
    warmup = max(1, steps_total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps_total - warmup)))


def split_rows(table: Table, validation_fraction: float, test_fraction: float, seed: int) -> Split:
    """Divide the rows at random, by class where there are classes.

    Raises:
        UnusableTable: a part would be empty.
    """
    if table.labels is not None:
        try:
            return split_by_class(table.y_N, validation_fraction, test_fraction, seed)
        except UnusableImages as error:
            raise UnusableTable(str(error)) from error
    rows = np.random.default_rng(seed).permutation(len(table.y_N))
    num_test, num_validation = (
        round(len(rows) * fraction) for fraction in (test_fraction, validation_fraction)
    )
    test, validation, training = np.split(rows, [num_test, num_test + num_validation])
    if min(len(test), len(validation), len(training)) == 0:
        raise UnusableTable(
            f"of {len(rows)} rows, {len(training)} would be for training, {len(validation)} for "
            f"validation and {len(test)} for the test: give more rows"
        )
    return Split(np.sort(training), np.sort(validation), np.sort(test))


class Goal:
    """What is predicted: the loss, and what is reported of it.

    Attributes:
        outputs: numbers that the network gives for a row.
        facts: JSON values, for a reader of the checkpoint.
    """

    def __init__(self, table: Table, training_rows: np.ndarray[Any, Any]) -> None:
        self._is_class = table.labels is not None
        self.outputs = len(table.labels) if table.labels is not None else 1
        self._mean, self._deviation = 0.0, 1.0
        if not self._is_class:
            self._mean, self._deviation = mean_and_deviation(table.y_N[training_rows])
        self.facts = {
            "target": table.target,
            "task": "classification" if self._is_class else "regression",
            "labels": table.labels,
            "target_mean": self._mean,
            "target_deviation": self._deviation,
        }

    def encode(self, y_N: np.ndarray[Any, Any]) -> torch.Tensor:
        """Return classes as they are, and a quantity standardized as the training part is."""
        if self._is_class:
            return torch.from_numpy(y_N)
        return torch.from_numpy((y_N - self._mean) / self._deviation).float()

    def loss(self, found: torch.Tensor, y_B: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        """Return the cross-entropy, or the squared error."""
        if self._is_class:
            return F.cross_entropy(found, y_B, reduction=reduction)
        return F.mse_loss(found[:, 0], y_B, reduction=reduction)

    @torch.no_grad()
    def evaluate(
        self, run: TrainRun, model: nn.Module, x_NF: torch.Tensor, y_N: torch.Tensor
    ) -> dict[str, float]:
        """Return loss, and accuracy or error; each rank takes its share of the rows."""
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)  # loss, told right
        for rows in run.slices(len(x_NF), EVALUATION_BATCH):
            found, y_B = model(x_NF[rows].to(run.device)), y_N[rows].to(run.device)
            sums[0] += self.loss(found, y_B, "sum").item()
            if self._is_class:
                sums[1] += (found.argmax(1) == y_B).sum().item()
        model.train()
        loss, right = (run.sum(sums) / len(x_NF)).tolist()
        if self._is_class:
            return {"loss": loss, "accuracy": right}
        values = {"loss": loss, "rmse": math.sqrt(loss) * self._deviation}
        variance = y_N.double().var(correction=0).item()
        return {**values, "r2": 1 - loss / variance} if variance > 0 else values


def fit(run: TrainRun, table: Table) -> None:
    """Train, validate after each epoch, test at the end."""
    config = run.config
    split = split_rows(
        table, config["validation_fraction"], config["test_fraction"], config["seed"]
    )
    encoder, goal = Encoder(table.columns, split.train), Goal(table, split.train)
    run.annotate(columns=encoder.facts, config=dict(config), **goal.facts)
    parts = {
        name: (torch.from_numpy(encoder.encode(rows)), goal.encode(table.y_N[rows]))
        for name, rows in vars(split).items()
    }
    counts = ", ".join(f"{len(y_N)} for {name}" for name, (_, y_N) in parts.items())
    say(run, f"{goal.facts['task']} of {table.target} from {encoder.width} numbers; {counts}")

    network = build_model(encoder.width, goal.outputs, config)
    model = run.model(network)
    optimizer = run.optimizer(
        torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    )
    steps_total = config["epochs"] * math.ceil(len(parts["train"][1]) / config["batch_size"])
    scheduler = run.scheduler(
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps_total)
        )
    )
    for _, (x_BF, y_B) in run.steps(
        parts["train"], batch_size=config["batch_size"], epochs=config["epochs"]
    ):
        loss = goal.loss(model(x_BF), y_B)
        run.backward(loss)
        optimizer.step()
        scheduler.step()
        values: dict[str, Any] = {"train/loss": loss}
        if run.is_epoch_end:
            measured = goal.evaluate(run, network, *parts["validation"])
            values |= {f"val/{name}": value for name, value in measured.items()}
            say(run, f"epoch {run.epoch + 1}/{config['epochs']}  {show('val', measured)}")
        run.log(values)
    if run.is_stopped:
        return
    measured = goal.evaluate(run, network, *parts["test"])
    run.log({f"test/{name}": value for name, value in measured.items() if name != "loss"})
    say(run, show("test", measured))


def show(part: str, values: Mapping[str, float]) -> str:
    """Return what was measured on a part of the rows, for a line of the log."""
    return "  ".join(f"{part} {name} {value:.4f}" for name, value in values.items())


def say(run: TrainRun, line: str) -> None:
    """Print one line, once for all ranks."""
    if run.is_main:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the recipe; return the exit code."""
    config = current_run(default_config("tabular")).config
    try:
        with train.start(seed=config["seed"]) as run:
            data = run.inputs.get("data")
            if data:
                table = load_file(data, config["target"], config["task"])
            else:
                table = load_shipped(config["table"])
            fit(run, table)
    except UnusableTable as error:
        sys.stderr.write(f"tabular: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
