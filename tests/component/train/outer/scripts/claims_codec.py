"""Claims about compression; each function is one test."""

import sys

import torch

from trainmaster.train.outer.codec import BLOCK, CODECS, ErrorFeedback, make_codec

COMPRESSED = [name for name in CODECS if name != "none"]
SIZES = [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 5003]


def values(size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return numbers of very different sizes, zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(4 * torch.randn(size, generator=generator, dtype=dtype))
    return torch.randn(size, generator=generator, dtype=dtype).mul_(sizes).round(decimals=3)


def claim_what_is_sent_and_the_residual_are_the_value_exactly() -> None:
    for dtype in (torch.float64, torch.float32):
        for name in COMPRESSED:
            for size in SIZES:
                codec = make_codec(name)
                feedback = ErrorFeedback(codec, torch.zeros(size, dtype=dtype))
                for seed in range(8):
                    due = values(size, seed, dtype) + feedback.residual_P
                    sent = torch.empty_like(due)

                    codec.decode(feedback.encode(values(size, seed, dtype)), sent)

                    assert torch.equal(sent + feedback.residual_P, due), (name, size, seed)


def claim_no_number_is_lost_over_many_steps() -> None:
    for name in COMPRESSED:
        codec = make_codec(name)
        feedback = ErrorFeedback(codec, torch.zeros(700, dtype=torch.float64))
        total, arrived = torch.zeros(700).double(), torch.zeros(700).double()
        for seed in range(100):
            total += values(700, seed)
            sent = torch.empty_like(total)
            codec.decode(feedback.encode(values(700, seed)), sent)
            arrived += sent

        # Only the sums of 100 numbers round here; what is sent never does.
        assert (total - arrived - feedback.residual_P).abs().max() < 1e-9 * total.abs().max()


def claim_a_number_is_off_by_half_a_level_at_most() -> None:
    for name, levels in (("int8", 127), ("int4", 7)):
        for size in SIZES:
            value = values(size)
            arrived = torch.empty_like(value)

            codec = make_codec(name)
            codec.decode(codec.encode(value), arrived)

            for block, other in zip(value.split(BLOCK), arrived.split(BLOCK), strict=True):
                half = block.abs().max() / levels / 2
                assert (block - other).abs().max() <= half * (1 + 1e-6)


def claim_bytes_are_what_the_name_says_and_one_percent_at_most() -> None:
    value = values(1 << 16)
    bits = {"fp16": 16, "bf16": 16, "int8": 8, "int4": 4}
    for name in COMPRESSED:
        count = sum(part.numel() * part.element_size() for part in make_codec(name).encode(value))

        assert count <= value.numel() * bits[name] / 8 * (1.016 if name == "int4" else 1.008)


def claim_zeros_arrive_as_zeros_and_nan_as_nan() -> None:
    for name in CODECS:
        codec = make_codec(name)
        value = torch.zeros(2 * BLOCK)
        value[3] = torch.nan
        arrived = torch.empty_like(value)

        codec.decode(codec.encode(value), arrived)

        assert arrived[3].isnan()
        assert torch.equal(arrived[BLOCK:], torch.zeros(BLOCK))


def claim_an_unknown_name_is_refused() -> None:
    said = ""
    try:
        make_codec("int7")
    except ValueError as error:
        said = str(error)

    assert "int8" in said


if __name__ == "__main__":
    globals()[sys.argv[1]]()
