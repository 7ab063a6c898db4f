"""The recipe `lm`: `python -m trainmaster.recipes.lm`.

Shapes: B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainmaster import train
from trainmaster.recipes import default_config
from trainmaster.recipes._language_beginning import Beginning, UnusableBeginning, find_beginning
from trainmaster.recipes._language_model import (
    LanguageModel,
    UnusableShape,
    group_parameters,
    next_token_loss,
)
from trainmaster.recipes._language_speed import Stopwatch, find_peak, operations_per_token
from trainmaster.recipes._text_files import Text, UnusableText, load_text
from trainmaster.recipes._text_tokens import Tokens, Windows, learn_pairs
from trainmaster.run import current_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainmaster.train import TrainRun

REPORT_EVERY = 10  # steps
EVALUATION_TOKENS = 16_384  # at a time: their odds take 3 GB with the vocabulary of GPT-2


@dataclass(frozen=True)
class Parts:
    """The text as windows of tokens.

    Attributes:
        train, validation: the two parts.
        lengths: how many bytes each token stands for.
    """

    train: Windows
    validation: Windows
    lengths: torch.Tensor


def learning_rate_factor(step: int, steps_total: int) -> float:
    """Return the share of the highest rate: up over a tenth, then a half cosine to a tenth."""
    warmup = max(1, steps_total // 10)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps_total - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def prepare_tokens(run: TrainRun, beginning: Beginning, text: Text) -> Tokens:
    """Return the vocabulary: the checkpoint's, or one that is learnt from the text."""
    tokens = run.keep("tokens", Tokens())
    if beginning.weights:
        tokens.load_state_dict(beginning.load_tokens())
    elif beginning.tokens == "bpe" and not tokens.merges:
        learnt = learn_pairs(text.train_N, beginning.shape.vocabulary)
        tokens.load_state_dict(learnt.state_dict())
        say(run, f"{tokens.size} tokens learnt")
    return tokens


def cut(text: Text, tokens: Tokens, length: int, batch_size: int, device: torch.device) -> Parts:
    """Return both parts of the text as windows of `length` tokens, for a device.

    Raises:
        UnusableText: a part has not a single window.
    """
    train = Windows(tokens.encode(text.train_N), length, device)
    validation = Windows(tokens.encode(text.validation_N), length, device)
    for name, part in (("training", train), ("validation", validation)):
        if len(part) == 0:
            raise UnusableText(
                f"the {name} part of the text has {len(part.tokens_N)} tokens, and a window is "
                f"{length} and the next one: give more text, or a smaller config.context"
            )
    return Parts(train.shortened(batch_size), validation, tokens.lengths())


@torch.no_grad()
def evaluate(
    run: TrainRun,
    model: nn.Module,
    parts: Parts,
    num_tokens: int,
    autocast: contextlib.AbstractContextManager[Any],
) -> dict[str, float]:
    """Return mean cross-entropy and bits per byte; each rank takes its share of the windows."""
    windows = parts.validation
    count = min(len(windows), -(-num_tokens // windows.length))
    chosen = torch.linspace(0, len(windows) - 1, count).long().tolist()
    lengths = parts.lengths.to(run.device)
    sums = torch.zeros(3, dtype=torch.float64, device=run.device)  # nats, tokens, bytes
    model.eval()
    for rows in run.slices(count, max(1, EVALUATION_TOKENS // windows.length)):
        mine = chosen[rows]
        # Who has none computes on one for nothing: others may need its part of the model.
        windows_BT = torch.stack(windows.__getitems__(mine or chosen[:1])).to(run.device).long()
        inputs_BT, targets_BT = windows_BT[:, :-1], windows_BT[:, 1:]
        # Not compiled, since it is seldom and of another shape.
        with autocast, torch.compiler.set_stance("force_eager"):
            loss = next_token_loss(model(inputs_BT), targets_BT)
        if mine:
            sums[0] += loss.double() * targets_BT.numel()
            sums[1] += targets_BT.numel()
            sums[2] += lengths[targets_BT].sum()
    model.train()
    nats, told, size = run.sum(sums).tolist()
    return {"val/loss": nats / told, "val/bits_per_byte": nats / size / math.log(2)}


def fit(run: TrainRun, text: Text, beginning: Beginning) -> None:
    """Train; measure on the held-out text now and then, and at the end."""
    config, shape = run.config, beginning.shape
    run.annotate(**beginning.facts)
    tokens = prepare_tokens(run, beginning, text)
    parts = cut(text, tokens, shape.context, config["batch_size"], run.device)
    say(
        run,
        f"{shape.num_parameters:,} parameters, {text.num_documents} documents, "
        f"{len(parts.train.tokens_N):,} tokens to train on, "
        f"{len(parts.validation.tokens_N):,} held out",
    )
    network = LanguageModel(
        shape,
        dropout=config["dropout"],
        recompute_activations=config["recompute_activations"],
    )
    if beginning.weights:
        beginning.load_weights(network)
    loss_of = compile_as_told(run, network)
    model = run.model(network)
    autocast = choose_precision(run)
    optimizer = run.optimizer(
        torch.optim.AdamW(
            group_parameters(model, config["weight_decay"]),
            lr=config["lr"],
            betas=(0.9, 0.95),
            fused=run.device.type == "cuda",
        )
    )
    scheduler = run.scheduler(
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, config["steps"])
        )
    )
    stopwatch = Stopwatch(run.device)
    tokens_per_step = min(config["batch_size"], len(parts.train)) * shape.context
    for step, batch in run.steps(
        parts.train, batch_size=config["batch_size"], steps=config["steps"]
    ):
        windows_BT = batch.long()
        with autocast:
            loss = run.forward_backward(
                model,
                windows_BT[:, :-1],
                windows_BT[:, 1:],
                loss_of,
                microbatches=config["microbatches"] or None,
            )
        values: dict[str, Any] = {"train/loss": loss}
        if config["clip"]:
            values["train/grad_norm"] = clip_gradients(run, model, config["clip"])
        optimizer.step()
        scheduler.step()
        stopwatch.step(tokens_per_step)
        is_last = step == config["steps"]
        if step % REPORT_EVERY == 0 or is_last:
            values |= speed(run, stopwatch.read(), operations_per_token(shape, shape.context))
        if step % config["validate_every"] == 0 or is_last:
            values |= evaluate(run, model, parts, config["validation_tokens"], autocast)
            stopwatch.skip()
            say(run, f"step {step}/{config['steps']}  {show(values)}")
        run.log(values)


def clip_gradients(run: TrainRun, model: nn.Module, longest: float) -> torch.Tensor:
    """Scale gradients down so that all together are at most so long; return how long they were."""
    if run.world_size == 1:
        # A few kernels for all gradients, where the run's has several for each: 1 % of a step.
        return nn.utils.clip_grad_norm_(model.parameters(), longest)
    return run.clip_grad_norm(model.parameters(), longest)


def speed(run: TrainRun, tokens_per_second: float, operations: float) -> dict[str, float]:
    """Return what to report of the speed."""
    values = {"tokens_per_second": tokens_per_second}
    peak = find_peak(run.device)
    if peak:
        values["mfu"] = tokens_per_second * operations / (peak * run.world_size)
    return values


def choose_precision(run: TrainRun) -> contextlib.AbstractContextManager[Any]:
    """Return the context to compute the model in; it may be entered again and again."""
    wanted, kind = run.config["precision"], run.device.type
    is_bf16 = wanted == "bf16" or (
        wanted == "auto" and kind == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(kind, torch.bfloat16, enabled=is_bf16)


def compile_as_told(
    run: TrainRun, network: nn.Module
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Have torch compile the model before its first step, if it is to be; return the loss.

    The loss apart from the model leaves the model a chain of modules. It costs nothing: the odds
    are in memory between the two in any case.
    """
    wanted = run.config["compile"]
    if wanted == "auto":
        ranks = current_run().description.get("parallel") or {}
        is_whole = all(ranks.get(each) in (None, 1) for each in ("shard", "tensor", "pipeline"))
        has_tools = importlib.util.find_spec("triton") and (
            shutil.which("cc") or shutil.which("gcc")
        )
        wanted = "on" if run.device.type == "cuda" and is_whole and has_tools else "off"
    if wanted == "off":
        return next_token_loss
    network.compile()
    return torch.compile(next_token_loss)


def show(values: Mapping[str, Any]) -> str:
    """Return what was measured on the held-out text, for a line of the log."""
    return f"val loss {values['val/loss']:.4f}  bits per byte {values['val/bits_per_byte']:.4f}"


def say(run: TrainRun, line: str) -> None:
    """Print one line, once for all ranks."""
    if run.is_main:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the recipe; return the exit code."""
    config = current_run(default_config("lm")).config
    try:
        text = load_text(
            current_run().inputs.get("text"), config["validation_fraction"], config["seed"]
        )
        beginning = find_beginning(current_run(), text.digest())
        beginning.shape.require_divisible(current_run().description.get("parallel") or {})
        with train.start(seed=config["seed"]) as run:
            fit(run, text, beginning)
    except (UnusableText, UnusableShape, UnusableBeginning) as error:
        sys.stderr.write(f"lm: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
