"""A transformer language model of the architecture of GPT-2, and its sizes. Knows no training.

Pre-norm blocks, learned positions, GELU in its tanh form, biases everywhere, the head tied to the
token table. The model is a chain of modules, and its plan says how they may be spread over ranks:
the outputs of `qkv` are ordered by head, so that equal pieces are whole heads, and a block counts
the heads that it was left.

Shapes: B windows, T positions, D width, H heads (of this rank), E width of a head, V vocabulary.
"""

# ruff: noqa: N812  F is what everybody calls it

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainmaster.recipes._sizes import count_inner_parameters, round_up_rows, size_transformer
from trainmaster.train.inner.plan import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

DEVIATION = 0.02


class UnusableShape(ValueError):
    """No model has this shape; the message says which number to change."""


@dataclass(frozen=True)
class Shape:
    """What a model is made of.

    Attributes:
        layers: number of blocks.
        heads: of each block's attention.
        width: of the residual stream, in numbers.
        context: positions that the model can tell apart.
        vocabulary: tokens that occur; the tables have a few more rows, see `rows`.
    """

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            UnusableShape: with the way out.
        """
        if self.width % self.heads:
            raise UnusableShape(
                f"config.width is {self.width} and config.heads is {self.heads}: "
                "the width must be a multiple of the heads"
            )

    @property
    def rows(self) -> int:
        """Rows of the token table: the vocabulary, rounded up."""
        return round_up_rows(self.vocabulary)

    @property
    def num_parameters(self) -> int:
        """Parameters, the positions and the rows that only round up left out."""
        inner = count_inner_parameters(layers=self.layers, width=self.width)
        return self.vocabulary * self.width + inner

    def require_divisible(self, ranks: Mapping[str, int | None]) -> None:
        """Refuse a layout whose tensor ranks could not divide the heads among them.

        Args:
            ranks: as the job's `parallel`.

        Raises:
            UnusableShape: with the way out.
        """
        tensor = ranks.get("tensor") or 1
        if self.heads % tensor:
            raise UnusableShape(
                f"blocks.*.attention has {self.heads} heads, which {tensor} tensor ranks cannot "
                "divide among them: set parallel.tensor to a number that divides the heads, or "
                "change config.heads"
            )

    def to_dict(self) -> dict[str, int]:
        """Return plain values for a checkpoint."""
        return asdict(self)


class LanguageModel(nn.Module):
    """From the tokens so far to the odds of the next one."""

    train_plan = plan(
        tensor={
            "embed.token": "vocab",
            "blocks.*.attention.qkv": "column",
            "blocks.*.attention.out": "row",
            "blocks.*.mlp.up": "column",
            "blocks.*.mlp.down": "row",
            "head": "vocab",
        },
        pipeline=["embed", "blocks", "norm", "head"],
    )

    def __init__(
        self, shape: Shape, *, dropout: float = 0.0, recompute_activations: bool = False
    ) -> None:
        """Draw the weights from torch's generator.

        Args:
            shape: what it is made of.
            dropout: share of what each part adds that is left out in training.
            recompute_activations: keep only what goes into each block, and compute the rest again
                on the way back: less memory, a third more work.
        """
        super().__init__()
        # What tensor and pipeline ranks send depends on more than the number of parameters.
        self.train_size = size_transformer(
            layers=shape.layers, width=shape.width, context=shape.context, rows=shape.rows
        )
        self.embed = Embedding(shape, dropout)
        self.blocks = nn.ModuleList(
            Block(shape, dropout, is_recomputed=recompute_activations) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.rows, bias=False)
        self.head.weight = self.embed.token.weight
        self.apply(_draw_weights)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                # Each block adds twice to the stream: its variance is to stay that of one.
                nn.init.normal_(parameter, std=DEVIATION / math.sqrt(2 * shape.layers))

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return logits_BTV: of each next token."""
        stream_BTD = self.embed(tokens_BT)
        for block in self.blocks:
            stream_BTD = block(stream_BTD)
        return self.head(self.norm(stream_BTD))


def next_token_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of telling the tokens that came, in nats."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


class Embedding(nn.Module):
    """What each token means, and where it stands."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.rows, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return the stream that the blocks add to.

        Where autocast computes in a narrow type, so is the stream: every block reads and writes it
        several times, which costs as long as it is wide (6 % of a step on an H100).
        """
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        stream_BTD = self.dropout(self.token(tokens_BT) + self.position(places_T))
        kind = stream_BTD.device.type
        if torch.is_autocast_enabled(kind):
            return stream_BTD.to(torch.get_autocast_dtype(kind))
        return stream_BTD


class Block(nn.Module):
    """Attention and a small network, each adding to the stream."""

    def __init__(self, shape: Shape, dropout: float, *, is_recomputed: bool) -> None:
        super().__init__()
        self.is_recomputed = is_recomputed
        self.norm_attention = nn.LayerNorm(shape.width)
        self.attention = Attention(shape, dropout)
        self.norm_mlp = nn.LayerNorm(shape.width)
        self.mlp = Perceptron(shape, dropout)

    def forward(self, stream_BTD: torch.Tensor) -> torch.Tensor:
        """Return the stream with what this block adds."""
        if self.is_recomputed and self.training:
            return checkpoint(self._add, stream_BTD, use_reentrant=False)
        return self._add(stream_BTD)

    def _add(self, stream_BTD: torch.Tensor) -> torch.Tensor:
        stream_BTD = stream_BTD + self.attention(self.norm_attention(stream_BTD))
        return stream_BTD + self.mlp(self.norm_mlp(stream_BTD))


class Attention(nn.Module):
    """Every position looks at itself and those before it."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.head_width = shape.width // shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return what attention adds to each position."""
        batch, length, _ = x_BTD.shape
        qkv = self.qkv(x_BTD).view(batch, length, -1, 3, self.head_width)
        q_BHTE, k_BHTE, v_BHTE = (part.transpose(1, 2) for part in qkv.unbind(3))
        mixed_BHTE = F.scaled_dot_product_attention(
            q_BHTE,
            k_BHTE,
            v_BHTE,
            is_causal=True,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed_BTD = mixed_BHTE.transpose(1, 2).reshape(batch, length, -1)
        return self.dropout(self.out(mixed_BTD))


class Perceptron(nn.Module):
    """A hidden layer of four times the width, at each position alone."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return what the network adds to each position."""
        return self.dropout(self.down(F.gelu(self.up(x_BTD), approximate="tanh")))


def group_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters for an optimizer: matrices decay, biases and norms do not."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
