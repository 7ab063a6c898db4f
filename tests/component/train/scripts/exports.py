"""Makes checkpoints of all kinds with the reference library, or looks at what was exported.

exports.py make <kind>      commits a checkpoint
exports.py look <file>      prints what the reference library finds in a file, as JSON
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from trainmaster import train
from trainmaster.run import current_run


def make_two_models() -> None:
    with train.start(seed=1) as run:
        encoder = run.model(nn.Linear(3, 2), name="encoder")
        decoder = run.model(nn.Linear(2, 3).double(), name="decoder")
        optimizer = run.optimizer(torch.optim.AdamW(encoder.parameters()))
        for _, (x, y) in run.steps((torch.ones(4, 3), torch.ones(4, 3)), batch_size=2):
            run.backward((decoder(encoder(x).double()) - y).square().mean())
            optimizer.step()
            run.log(loss=1.5)


def make_tied() -> None:
    with train.start(seed=1) as run:
        words = nn.Embedding(5, 4)
        head = nn.Linear(4, 5, bias=False)
        head.weight = words.weight
        run.model(nn.ModuleDict({"words": words, "head": head}))


def commit(files: dict[str, Any]) -> None:
    run = current_run()
    folder = run.checkpoint_dir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path)
    run.commit_checkpoint(folder, 7)


def describe(values: torch.Tensor) -> Any:
    """Return few numbers as they are, and of many their sum."""
    return values.tolist() if len(values) < 100 else values.sum().item()


def look(path: Path) -> None:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    found = {
        name: {"dtype": str(tensor.dtype), "values": describe(tensor.double().flatten())}
        for name, tensor in tensors.items()
    }
    print("found", json.dumps({"tensors": found, "metadata": metadata}))


KINDS: dict[str, Callable[[], None]] = {
    "two models": make_two_models,
    "tied": make_tied,
    "numbers": lambda: commit(
        {
            "model.safetensors": {
                "w": torch.tensor([1.0, 1.0 + 2**-10, -3.25, float("inf")]),
                "big": torch.arange(6_000_000, dtype=torch.float32),
                "ids": torch.tensor([1, 2**40]),
                "bits": torch.tensor([True, False, True]),
                "half": torch.tensor([0.5], dtype=torch.float16),
                "none": torch.zeros(0, 3),
                "scalar": torch.tensor(2.0),
                "small": torch.tensor([0.25, 448.0]).to(torch.float8_e4m3fn),
            }
        }
    ),
    "huge": lambda: commit({"model.safetensors": {"w": torch.tensor([1.0, 1e6])}}),
    "parts": lambda: commit(
        {
            "step-7/model-00001-of-00002.safetensors": {"a": torch.ones(1)},
            "step-7/model-00002-of-00002.safetensors": {"b": torch.ones(2)},
            "step-7/model.safetensors.index.json": b"{}",
        }
    ),
    "twice": lambda: commit(
        {
            "model-00001-of-00002.safetensors": {"a": torch.ones(1)},
            "model-00002-of-00002.safetensors": {"a": torch.ones(1)},
        }
    ),
    "no weights": lambda: commit({"state.json": b"{}"}),
    "broken": lambda: commit({"model.safetensors": b"\x08\0\0\0\0\0\0\0[]      "}),
}
if sys.argv[1] == "look":
    look(Path(sys.argv[2]))
else:
    KINDS[sys.argv[2]]()
