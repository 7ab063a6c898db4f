"""What a language model begins as: its shape, its vocabulary, and the weights of another training.

A checkpoint brings all three, so a job that goes on from one need not repeat them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from trainmaster.recipes._language_model import Shape, UnusableShape
from trainmaster.recipes._sizes import LANGUAGE_SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from trainmaster.run import Run

GPT2_VOCABULARY = 50_257
PAIRS_VOCABULARY = 4096


class UnusableBeginning(ValueError):
    """The training cannot begin as it was told; the message says what to change."""


@dataclass(frozen=True)
class Beginning:
    """Where a training starts from.

    Attributes:
        shape: of the model.
        tokens: "bytes" or "bpe".
        weights: folder of a checkpoint whose weights alone are wanted, if they are.
        facts: what this training tells of itself in its own checkpoints.
    """

    shape: Shape
    tokens: str
    weights: Path | None
    facts: dict[str, Any]

    def load_weights(self, model: nn.Module) -> None:
        """Give a model the weights of the other training."""
        assert self.weights is not None
        tensors = load_file(self.weights / "model.safetensors")
        model.load_state_dict({**tensors, "head.weight": tensors["embed.token.weight"]})

    def load_tokens(self) -> dict[str, Any]:
        """Return the state of the other training's vocabulary."""
        assert self.weights is not None
        state = torch.load(self.weights / "state.pt", weights_only=True, mmap=True)
        kept: dict[str, Any] = state["kept"]["tokens"]
        return kept


def find_beginning(run: Run, text_digest: str) -> Beginning:
    """Return how a run begins; afterwards the run has a checkpoint only to go on from.

    With `begin` = "weights", a checkpoint of this very training is gone on from, and of any other
    the weights and the vocabulary are taken. It is this training if it has the id of our job, or
    our configuration and text.

    Raises:
        UnusableBeginning: there is no such checkpoint, or none of this recipe.
        UnusableShape: the configuration and the checkpoint do not go together.
    """
    config = run.config
    found = run.latest_checkpoint()
    theirs = _read_facts(found.path) if found else {}
    ours = {"training": _digest(config, text_digest), "job_id": run.description.get("job_id")}
    weights = None
    if config["begin"] == "weights":
        if found is None:
            raise UnusableBeginning(
                'config.begin is "weights", but no checkpoint was named: give the job one to '
                "resume_from"
            )
        is_ours = ours["training"] == theirs.get("training") or (
            ours["job_id"] is not None and ours["job_id"] == theirs.get("job_id")
        )
        if not is_ours:
            weights = found.path
            run.begin_anew()
    tokens = _choose_tokens(config, theirs)
    shape = _choose_shape(config, tokens, theirs)
    facts = {**ours, "shape": shape.to_dict(), "tokens": tokens, "config": dict(config)}
    return Beginning(shape, tokens, weights, facts)


def _read_facts(folder: Path) -> dict[str, Any]:
    """Return what a language model's checkpoint tells of itself."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        facts: dict[str, Any] = meta["facts"]
        Shape(**facts["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableBeginning(
            f"the checkpoint to begin with is none of the recipe lm ({error!r}): name another"
        ) from error
    return facts


def _choose_tokens(config: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    wanted: str = config["tokens"]
    there: str | None = theirs.get("tokens")
    if wanted == "auto":
        return there or ("bpe" if config["model"].startswith("gpt2") else "bytes")
    if there not in (None, wanted):
        raise UnusableBeginning(
            f"config.tokens is {wanted}, the checkpoint was trained on {there}: leave it out"
        )
    return wanted


def _choose_shape(config: Mapping[str, Any], tokens: str, theirs: Mapping[str, Any]) -> Shape:
    there = Shape(**theirs["shape"]) if theirs else None
    name = config["model"]
    if name == "auto" and there:
        sizes = [there.layers, there.heads, there.width, there.context]
    else:
        sizes = list(LANGUAGE_SHAPES["tiny" if name == "auto" else name])
    keys = ("layers", "heads", "width", "context")
    chosen = {key: config[key] or size for key, size in zip(keys, sizes)}
    shape = Shape(**chosen, vocabulary=_choose_vocabulary(config, tokens, there))
    if there and shape != there:
        differing = [
            f"{key} {value} instead of {there.to_dict()[key]}"
            for key, value in shape.to_dict().items()
            if value != there.to_dict()[key]
        ]
        raise UnusableShape(
            f"the configuration asks for another model than the checkpoint has "
            f"({', '.join(differing)}): leave model, layers, heads, width, context and "
            "vocabulary out"
        )
    return shape


def _choose_vocabulary(config: Mapping[str, Any], tokens: str, there: Shape | None) -> int:
    wanted: int = config["vocabulary"]
    if tokens == "bytes":
        if wanted not in (0, 256):
            raise UnusableShape(
                f"config.vocabulary is {wanted}, and there are 256 bytes: leave it out, or set "
                'config.tokens to "bpe"'
            )
        return 256
    if wanted == 0 and there:
        return there.vocabulary
    default = GPT2_VOCABULARY if config["model"].startswith("gpt2") else PAIRS_VOCABULARY
    wanted = wanted or default
    if wanted <= 256:
        raise UnusableShape(
            f"config.vocabulary is {wanted}, and the bytes alone are 256: ask for more, or set "
            'config.tokens to "bytes"'
        )
    return wanted


def _digest(config: Mapping[str, Any], text_digest: str) -> str:
    words = json.dumps([dict(config), text_digest], sort_keys=True)
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
