"""How fast a language model trains: tokens per second, and the share of the device's peak.

Knows nothing of the model but its shape.
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainmaster.recipes._language_model import Shape

# Dense bf16 products, by the maker's data sheets, in operations per second.
PEAK_OF = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
SLOWER_BOARDS = frozenset({"PCIe", "PCIE", "NVL", "MIG"})  # of the same names, with other peaks
STEPS_AHEAD_MAX = 2


def operations_per_token(shape: Shape, length: int) -> float:
    """Return the operations that training on one token takes, in windows of `length`.

    Source:
        6N + 12·L·D·T (Chowdhery and others, "PaLM", 2022, appendix B), N without the positions
        and without the rows that round the table up. Recomputed activations do not count, and the
        half of attention that the causal mask leaves out does, as usual.
    """
    return 6 * shape.num_parameters + 12 * shape.layers * shape.width * length


def find_peak(device: torch.device) -> float | None:
    """Return a device's peak in operations per second, or None where we do not know it."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    if SLOWER_BOARDS & set(words):
        return None
    return next((peak for name, peak in PEAK_OF.items() if name in words), None)


class Stopwatch:
    """Tokens per second between two readings; keeps the CPU from running far ahead of a GPU.

    Two steps ahead keep the GPU busy. More would make the time of the CPU no measure of anything,
    and a wish to stop would wait for all of them.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._events: collections.deque[torch.cuda.Event] = collections.deque()
        self._tokens = 0
        self._began_at_s = time.perf_counter()

    def step(self, tokens: int) -> None:
        """Count the tokens of a step that was given to the device."""
        self._tokens += tokens
        if self._is_cuda:
            event = torch.cuda.Event(blocking=True)
            event.record()
            self._events.append(event)
            if len(self._events) > STEPS_AHEAD_MAX:
                self._events.popleft().synchronize()

    def read(self) -> float:
        """Return tokens per second since the last reading, and begin anew."""
        now_s = time.perf_counter()
        rate = self._tokens / max(1e-9, now_s - self._began_at_s)
        self._tokens, self._began_at_s = 0, now_s
        return rate

    def skip(self) -> None:
        """Begin anew: what was done since the last reading was not training."""
        self.read()
