"""Buffers, such as running statistics, kept the same on all ranks that take different samples.

As DistributedDataParallel does, the first rank's count. Only buffers that have changed since the
last pass are sent: constants, such as masks, cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class BufferSync:
    """Sends a module's changed buffers before each forward pass in training."""

    def __init__(self, module: nn.Module, groups: Sequence[dist.ProcessGroup]) -> None:
        """Groups are gone through in order; the first rank of each sends."""
        self._module = module
        self._groups = groups
        self._seen = self._look()
        if self._seen:
            module.register_forward_pre_hook(self._before_forward)

    def _before_forward(self, module: nn.Module, _inputs: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self.send()

    def send(self) -> None:
        """Make all ranks agree; every rank must call it, after the same passes."""
        found = self._look()
        with torch.no_grad():
            for name, buffer in self._module.named_buffers():
                if found[name] != self._seen.get(name):
                    for group in self._groups:
                        dist.broadcast(buffer, dist.get_global_rank(group, 0), group=group)
        self._seen = self._look()

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return which tensor each buffer is, and how often it was written to."""
        return {
            name: (id(each), each._version)
            for name, each in self._module.named_buffers()
            if not each.is_meta
        }
