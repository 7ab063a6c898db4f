"""Small networks in double precision, with the parts that make dividing a model hard."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainmaster.train.inner import plan

VOCABULARY, TOKENS, HEADS, WIDTH = 24, 6, 4, 16


class Attention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)  # by head, each its query, key and value
        self.out = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        heads = self.qkv(x).view(batch, tokens, -1, 3, WIDTH // HEADS)
        q, k, v = heads.permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1)))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.mlp = Attention(dropout), MLP()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Parameter(torch.randn(TOKENS, WIDTH) / 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.token(tokens) + self.position


class GPT(nn.Module):
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

    def __init__(self, *, tied: bool = False, dropout: float = 0.0, blocks: int = 3) -> None:
        super().__init__()
        self.embed = Embed()
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embed.token.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Odd(nn.Module):
    """Sizes that divide by nothing, a single number, a buffer that is written, one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in [(6, 7), (7, 5), (5, 1), (1, 11)])
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.randn(7))
        self.register_buffer("passes", torch.zeros(3))
        self.head = nn.Linear(11, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = tokens.to(self.shift.dtype) / VOCABULARY
        self.passes += 1
        for number, layer in enumerate(self.layers):
            x = torch.tanh(layer(x))
            if number == 0:
                x = x + self.shift * self.passes[0]
        return self.head(x * self.scale)[:, None].expand(-1, TOKENS, -1)


def make_network(name: str, seed: int = 11) -> nn.Module:
    torch.manual_seed(seed)
    makers: dict[str, Any] = {
        "gpt": GPT,
        "tied": lambda: GPT(tied=True),
        "dropout": lambda: GPT(dropout=0.2),
        "deep": lambda: GPT(blocks=6),
        "odd": Odd,
    }
    return makers[name]().double()


def make_batch(count: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    rows = torch.randint(0, VOCABULARY, (count, TOKENS + 1), generator=generator)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1))


def make_optimizer(
    name: str, network: nn.Module, *, is_foreach: bool | None = None
) -> torch.optim.Optimizer:
    decayed = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    if name == "adamw":
        # The bias of the keys has no gradient but rounding, which Adam divides by eps: at the usual
        # 1e-8 that alone makes differences of 1e-11.
        return torch.optim.AdamW(groups, lr=0.01, eps=1e-5, foreach=is_foreach)
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9 if name == "momentum" else 0.0)
