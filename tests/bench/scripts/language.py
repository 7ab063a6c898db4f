"""Trains a small language model on Python's own source, and writes what that sent and took.

    language.py <result> <plan, JSON>

The plan: `layers`, `heads`, `width`, `context`, `batch`, `lr`, `steps`; `decays`: whether the rate
falls to nothing by a half cosine or stays; `from_step`, after which it is counted;
`validate_every`, in steps, and `target_bits`, at which it ends; 0 for neither; `begin` and `end`,
files of weights to begin with and to leave, or null. What the ranks are to each other is in the
file that TRAINMASTER_RUN names.
"""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from trainmaster import train
from trainmaster.recipes._language_model import LanguageModel, Shape

RESULT, PLAN = sys.argv[1], json.loads(sys.argv[2])
INTERFACE = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
TEXT_BYTES, HELD_OUT_WINDOWS = 3_000_000, 512
LOOK_WINDOWS = 24  # of these, while it trains


def read_text() -> torch.Tensor:
    folder = Path(os.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:TEXT_BYTES]
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def read_interface() -> int:
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == INTERFACE:
            return int(numbers.split()[8])
    return 0


def mark(run: train.TrainRun, step: int) -> dict[str, Any]:
    totals = run._accounting.totals()
    return {
        "step": step,
        "at_s": time.perf_counter(),
        "cpu_s": time.process_time(),
        "sent_bytes": totals.sent_bytes,
        "exposed_s": totals.exposed_s,
        "interface_bytes": read_interface(),
    }


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def find_rate(step: int) -> float:
    warm = max(1, PLAN["steps"] // 20)
    left = math.cos(math.pi / 2 * (step - 1) / PLAN["steps"]) ** 2 if PLAN["decays"] else 1.0
    return float(PLAN["lr"] * min(1.0, step / warm) * left)


def measure_bits(model: torch.nn.Module, windows: torch.Tensor) -> float:
    model.eval()
    loss = 0.0
    with torch.no_grad():
        for part in windows.split(32):
            loss += loss_of(model(part[:, :-1]), part[:, 1:]).item() * len(part)
    model.train()
    return loss / len(windows) / math.log(2)


text = read_text().long()
context = PLAN["context"]
windows = text[: len(text) // (context + 1) * (context + 1)].view(-1, context + 1)
# Spread over all of it, and the same in every run.
is_held_out = torch.zeros(len(windows), dtype=torch.bool)
is_held_out[torch.linspace(0, len(windows) - 1, HELD_OUT_WINDOWS).long()] = True
held_out, windows = windows[is_held_out], windows[~is_held_out]

with train.start(seed=1) as run:
    shape = Shape(PLAN["layers"], PLAN["heads"], PLAN["width"], context, 256)
    network = LanguageModel(shape)
    if PLAN["begin"]:
        network.load_state_dict(torch.load(PLAN["begin"], weights_only=True))
    model = run.model(network)
    optimizer = run.optimizer(torch.optim.AdamW(model.parameters(), lr=PLAN["lr"]))
    held_out = held_out.to(run.device)
    marks: list[dict[str, Any]] = []
    bits: list[tuple[int, float, float]] = []
    paused_s = 0.0
    for step, batch in run.steps(windows, batch_size=PLAN["batch"], steps=PLAN["steps"]):
        if step - 1 == PLAN["from_step"]:
            marks.append(mark(run, step - 1))
        # What the step before has left is done by now, a round among replicas included.
        if PLAN["validate_every"] and (step - 1) % PLAN["validate_every"] == 0 and step > 1:
            began_s = time.perf_counter()
            bits.append(
                (
                    step - 1,
                    began_s - paused_s,
                    measure_bits(network, held_out[:: HELD_OUT_WINDOWS // LOOK_WINDOWS]),
                )
            )
            paused_s += time.perf_counter() - began_s
            if bits[-1][2] <= PLAN["target_bits"]:
                marks.append(mark(run, step - 1))  # what leaving the loop takes is no part of it
                break
        for group in optimizer.param_groups:
            group["lr"] = find_rate(step)
        run.forward_backward(model, batch[:, :-1], batch[:, 1:], loss_of)
        optimizer.step()
    if len(marks) == 1:
        marks.append(mark(run, run.step))
    last_bits = measure_bits(network, held_out) if PLAN["validate_every"] else None
    if PLAN["end"] and run.rank == 0:
        torch.save(network.state_dict(), PLAN["end"])
    said = {
        "parameters": sum(each.numel() for each in network.parameters()),
        "marks": marks,
        "bits": bits,
        "last_bits": last_bits,
        "paused_s": paused_s,
    }
    Path(f"{RESULT}.{run.rank}").write_text(json.dumps(said))
