"""Losses that are NaN or infinite: which numbers count, and what is said about one. Pure."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from trainmaster._job_errors import NonFiniteLoss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainmaster._spool import Number

_NO_LETTER = re.compile(r"[^a-z]+")


def find_bad_loss(values: Mapping[str, Number]) -> str | None:
    """Return the name of a loss that is no finite number; None if all are, or none is a loss.

    A loss has the word in its name, as in "loss", "train/loss" or "val_loss". Other metrics may be
    anything: a score that is not defined, a norm that overflows under a gradient scaler.
    """
    for name, value in values.items():
        if not math.isfinite(value) and "loss" in _NO_LETTER.split(name.lower()):
            return name
    return None


def complain(what: str, step: int) -> NonFiniteLoss:
    """Return the exception that ends the run.

    Args:
        what: such as "train/loss is nan".
        step: the step it was seen at.
    """
    return NonFiniteLoss(
        f"{what} at step {step}. Use a lower learning rate, a longer warm-up or clipped gradients, "
        "bf16 where it uses fp16, or look at the samples of that step; health.on_nan = ignore "
        "trains on through it."
    )
