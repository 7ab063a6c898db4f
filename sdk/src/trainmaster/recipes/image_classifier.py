"""The recipe `image-classifier`: `python -m trainmaster.recipes.image_classifier`.

Shapes: B images of a batch, C channels, H rows, W columns, F features, K classes.
"""

# ruff: noqa: N812  the shape is part of a tensor's name

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainmaster import train
from trainmaster.recipes import default_config
from trainmaster.recipes._labelled_images import (
    LabelledImages,
    UnusableImages,
    load_digits,
    load_npz,
    split_by_class,
)
from trainmaster.run import current_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster.train import TrainRun

EVALUATION_BATCH = 1024


def build_model(images: LabelledImages, config: Mapping[str, Any]) -> nn.Module:
    """Return the network that the configuration asks for.

    Raises:
        UnusableImages: a convolution was asked for, and the data has no rows and columns.
    """
    hidden, classes = config["hidden"], len(images.labels)
    if config["model"] == "mlp":
        features = math.prod(images.x.shape[1:])
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(config["dropout"]),
            nn.Linear(hidden, classes),
        )
    if images.x.ndim != 4:
        raise UnusableImages(
            f"array x has the shape {images.x.shape}, plain features, which the model cnn cannot "
            'take: set config.model to "mlp", or give images [N, height, width]'
        )
    return nn.Sequential(
        nn.Conv2d(images.x.shape[1], 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, hidden),
        nn.ReLU(),
        nn.Dropout(config["dropout"]),
        nn.Linear(hidden, classes),
    )


def learning_rate_factor(step: int, steps_total: int) -> float:
    """Return the share of the highest rate: up over a tenth of the steps, then a half cosine."""
    warmup = max(1, steps_total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps_total - warmup)))


def shift_images(x_BCHW: torch.Tensor, pixels: int) -> torch.Tensor:
    """Move each image by up to `pixels` in each direction; what comes in is a copy of the edge."""
    size, height, width = x_BCHW.shape[0], x_BCHW.shape[2], x_BCHW.shape[3]
    padded = F.pad(x_BCHW, (pixels,) * 4, mode="replicate")
    moves = torch.randint(0, 2 * pixels + 1, (2, size, 1)).to(x_BCHW.device)
    rows = moves[0] + torch.arange(height, device=x_BCHW.device)
    columns = moves[1] + torch.arange(width, device=x_BCHW.device)
    images = torch.arange(size, device=x_BCHW.device)[:, None, None]
    # Advanced indices around the channels come first: [B, H, W, C].
    moved_BHWC = padded[images, :, rows[:, :, None], columns[:, None, :]]
    return moved_BHWC.permute(0, 3, 1, 2).contiguous()


class Standardizer:
    """Brings pixels to mean 0 and deviation 1, as measured on the training part."""

    def __init__(self, x: np.ndarray[Any, Any]) -> None:
        axes = (0, 2, 3) if x.ndim == 4 else (0,)
        self.mean = x.mean(axis=axes, dtype=np.float64)
        deviation = x.std(axis=axes, dtype=np.float64)
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        self._shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pixels as standardized float32."""
        mean = torch.as_tensor(self.mean, dtype=torch.float32, device=x.device)
        deviation = torch.as_tensor(self.deviation, dtype=torch.float32, device=x.device)
        return (x.float() - mean.view(self._shape)) / deviation.view(self._shape)


@torch.no_grad()
def evaluate(
    run: TrainRun,
    model: nn.Module,
    standardize: Standardizer,
    x: torch.Tensor,
    y: torch.Tensor,
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy; each rank takes its share of the rows."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for rows in run.slices(len(x), EVALUATION_BATCH):
        logits_BK, y_B = model(standardize(x[rows].to(run.device))), y[rows].to(run.device)
        sums[0] += F.cross_entropy(logits_BK, y_B, reduction="sum").item()
        sums[1] += (logits_BK.argmax(1) == y_B).sum().item()
    model.train()
    loss, accuracy = (run.sum(sums) / len(x)).tolist()
    return loss, accuracy


def fit(run: TrainRun, images: LabelledImages) -> None:
    """Train, validate after each epoch, test at the end."""
    config = run.config
    split = split_by_class(
        images.y_N, config["validation_fraction"], config["test_fraction"], config["seed"]
    )
    standardize = Standardizer(images.x[split.train])
    run.annotate(
        labels=images.labels,
        mean=standardize.mean.tolist(),
        deviation=standardize.deviation.tolist(),
        image_shape=list(images.x.shape[1:]),
        config=dict(config),
    )
    parts = {
        name: (torch.from_numpy(images.x[rows]), torch.from_numpy(images.y_N[rows]))
        for name, rows in vars(split).items()
    }
    say(run, ", ".join(f"{len(y)} for {name}" for name, (_, y) in parts.items()))

    # Channels last is what the CPU's convolutions give gradients in; a weight of one channel
    # would otherwise differ from its gradient in layout, and torch would warn.
    network = build_model(images, config).to(memory_format=torch.channels_last)
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
    tally = torch.zeros(2, device=run.device)
    shift = config["shift"] if images.x.ndim == 4 else 0
    for _, (x, y_B) in run.steps(
        parts["train"], batch_size=config["batch_size"], epochs=config["epochs"]
    ):
        pixels = standardize(x)
        logits_BK = model(shift_images(pixels, shift) if shift else pixels)
        loss = F.cross_entropy(logits_BK, y_B)
        run.backward(loss)
        optimizer.step()
        scheduler.step()
        run.log({"train/loss": loss})
        counted = slice(run.num_samples)
        tally[0] += (logits_BK.detach().argmax(1) == y_B)[counted].sum()
        tally[1] += run.num_samples
        if run.is_epoch_end:
            correct, seen = run.sum(tally).tolist()
            tally.zero_()
            val_loss, val_accuracy = evaluate(run, network, standardize, *parts["validation"])
            run.log(
                {
                    "train/accuracy": correct / seen,
                    "val/loss": val_loss,
                    "val/accuracy": val_accuracy,
                }
            )
            say(
                run,
                f"epoch {run.epoch + 1}/{config['epochs']}  train accuracy {correct / seen:.4f}  "
                f"val accuracy {val_accuracy:.4f}",
            )
    if run.is_stopped:
        return
    _, test_accuracy = evaluate(run, network, standardize, *parts["test"])
    run.log({"test/accuracy": test_accuracy})
    say(run, f"test accuracy {test_accuracy:.4f}")


def say(run: TrainRun, line: str) -> None:
    """Print one line, once for all ranks."""
    if run.is_main:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the recipe; return the exit code."""
    defaults = default_config("image-classifier")
    config = current_run(defaults).config
    try:
        with train.start(seed=config["seed"]) as run:
            data = run.inputs.get("data")
            fit(run, load_npz(data) if data else load_digits())
    except UnusableImages as error:
        sys.stderr.write(f"image-classifier: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
