"""How a flat tensor travels: as it is, or in fewer bits per number.

Tensors are flat: P numbers in B blocks, each with a scale of its own.
Everything is deterministic: the same numbers give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK = 512  # numbers per scale of 32 bits: 0.8 % more bytes at 8 bits per number


class Codec(Protocol):
    """A way to travel.

    Attributes:
        name: what a job's `compression` calls it.
        is_exact: whether what arrives is what was sent.
        num_parts: tensors that one becomes.
    """

    name: str
    is_exact: bool
    num_parts: int

    def encode(self, value_P: torch.Tensor) -> list[torch.Tensor]:
        """Return what travels; it may be the tensor itself."""

    def decode(self, parts: Sequence[torch.Tensor], out_P: torch.Tensor) -> None:
        """Write what has arrived."""


class Plain:
    """Every bit."""

    name, is_exact, num_parts = "none", True, 1

    def encode(self, value_P: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensor itself."""
        return [value_P]

    def decode(self, parts: Sequence[torch.Tensor], out_P: torch.Tensor) -> None:
        """Write what has arrived."""
        out_P.copy_(parts[0])


class Half:
    """Floating point of 16 bits, to the nearest; what is too large becomes the largest."""

    is_exact, num_parts = False, 1

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.name, self._dtype = name, dtype
        self._largest = torch.finfo(dtype).max

    def encode(self, value_P: torch.Tensor) -> list[torch.Tensor]:
        """Return the numbers in 16 bits."""
        return [value_P.clamp(-self._largest, self._largest).to(self._dtype)]

    def decode(self, parts: Sequence[torch.Tensor], out_P: torch.Tensor) -> None:
        """Write what has arrived."""
        out_P.copy_(parts[0])


class Blocks:
    """Integers of 8 or 4 bits, to the nearest, in units of the block's largest / `levels`.

    A block with a number that is not finite arrives as NaN: a training that has diverged should
    look like it.
    """

    is_exact, num_parts = False, 2

    def __init__(self, name: str, bits: int) -> None:
        self.name, self._bits = name, bits
        self._levels = 2 ** (bits - 1) - 1

    def encode(self, value_P: torch.Tensor) -> list[torch.Tensor]:
        """Return codes, two in a byte where they have 4 bits, and scales."""
        codes_P = torch.empty(value_P.numel(), dtype=torch.int8, device=value_P.device)
        scale_B = torch.empty(-(-value_P.numel() // BLOCK), device=value_P.device)
        for value, codes, scale in _iter_blocks(value_P, codes_P, scale_B):
            largest = value.abs().amax(dim=-1, keepdim=True)
            scale.copy_(torch.where(largest.isfinite(), largest / self._levels, torch.nan))
            unit = scale.to(value.dtype)
            scaled = value / torch.where(unit > 0, unit, 1)
            codes.copy_(scaled.round_().clamp_(-self._levels, self._levels).nan_to_num_(0))
        return [_pack(codes_P) if self._bits == 4 else codes_P, scale_B]

    def decode(self, parts: Sequence[torch.Tensor], out_P: torch.Tensor) -> None:
        """Write what has arrived."""
        codes_P, scale_B = parts
        if self._bits == 4:
            codes_P = _unpack(codes_P, out_P.numel())
        for out, codes, scale in _iter_blocks(out_P, codes_P, scale_B):
            torch.mul(codes.to(out.dtype), scale.to(out.dtype), out=out)


class ErrorFeedback:
    """Sends values one after another, each with what compression left out of the one before.

    Over all, what has been sent and the residual add up to what should have been. After each:
    sent + residual = value, exactly. (A sent number is either 0 or within a factor of two of its
    value, so their difference is a floating-point number: Sterbenz' lemma. Only a number that
    16 bits cannot hold for its size may lose some bits.)

    Attributes:
        residual_P: what is still to be sent; part of every checkpoint.

    Source:
        1-bit SGD (Seide et al., Interspeech 2014); that it converges for any such compression:
        Karimireddy et al., ICML 2019.
    """

    def __init__(self, codec: Codec, like_P: torch.Tensor) -> None:
        self._codec = codec
        self.residual_P = torch.zeros_like(like_P) if not codec.is_exact else None

    def encode(self, value_P: torch.Tensor) -> list[torch.Tensor]:
        """Return what travels for a value; the tensor is used as scratch space."""
        if self.residual_P is None:
            return self._codec.encode(value_P)
        value_P += self.residual_P
        parts = self._codec.encode(value_P)
        self._codec.decode(parts, self.residual_P)
        torch.sub(value_P, self.residual_P, out=self.residual_P)
        return parts


def make_codec(name: str | None) -> Codec:
    """Return the codec that a job's `compression` names."""
    if name in (None, "none"):
        return Plain()
    if name in _HALVES:
        return Half(name, _HALVES[name])
    if name in _BITS:
        return Blocks(name, _BITS[name])
    raise ValueError(f"compression {name!r} is none of {', '.join(CODECS)}: name one of those")


_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_BITS = {"int8": 8, "int4": 4}
CODECS = ("none", *_HALVES, *_BITS)
# What gradients are sent in; 4 bits have been measured in rounds only.
STEP_CODECS = ("none", *_HALVES, "int8")


def _iter_blocks(
    number_P: torch.Tensor, codes_P: torch.Tensor, scale_B: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield matching views: whole blocks as rows, then the rest as one row."""
    whole = number_P.numel() // BLOCK
    if whole:
        count = whole * BLOCK
        yield (
            number_P[:count].view(whole, BLOCK),
            codes_P[:count].view(whole, BLOCK),
            scale_B[:whole].view(whole, 1),
        )
    if whole < scale_B.numel():
        rest = slice(whole * BLOCK, None)
        yield number_P[rest].view(1, -1), codes_P[rest].view(1, -1), scale_B[whole:].view(1, 1)


def _pack(codes_P: torch.Tensor) -> torch.Tensor:
    """Return two codes of -7 to 7 per byte, the first in the low half."""
    if codes_P.numel() % 2:
        codes_P = torch.cat([codes_P, codes_P.new_zeros(1)])
    pairs = codes_P.view(torch.uint8).view(-1, 2)
    return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)


def _unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    pairs = torch.stack([packed & 15, packed >> 4], dim=1).view(torch.int8).reshape(-1)
    return ((pairs ^ 8) - 8)[:count]  # four bits with a sign
