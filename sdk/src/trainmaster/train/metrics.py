"""Metrics of a training loop: values may be tensors that a GPU has yet to compute.

Reading a tensor waits for the device, and a wait at every step would cost more than the metric is
worth. So values on a device are copied in its own order and recorded once they have arrived.
"""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainmaster._spool import clean_step, clean_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainmaster._spool import Number

WAITING_MAX = 256


@dataclass(frozen=True)
class _Entry:
    step: int
    time_s: float
    values: Mapping[str, Any]
    arrived: torch.cuda.Event | None


class MetricLog:
    """Records values in the order in which they were logged.

    Attributes:
        latest: the last recorded value of each name.
    """

    def __init__(self, record: Callable[[int, float, Mapping[str, Number]], None]) -> None:
        self._record = record
        self._waiting: collections.deque[_Entry] = collections.deque()
        self.latest: dict[str, Number] = {}

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Take the values of a step; never waits for a device, unless it falls far behind."""
        arrived = None
        on_device = {
            name: value.detach().to("cpu", non_blocking=True)
            for name, value in values.items()
            if isinstance(value, torch.Tensor) and value.is_cuda and value.ndim == 0
        }
        if on_device:
            arrived = torch.cuda.Event()
            arrived.record()
        entry = _Entry(clean_step(step), time.time(), {**values, **on_device}, arrived)
        self._waiting.append(entry)
        while self._waiting and (
            len(self._waiting) > WAITING_MAX or _has_arrived(self._waiting[0])
        ):
            self._record_first()

    def flush(self) -> None:
        """Record everything, waiting for the device where need be."""
        while self._waiting:
            self._record_first()

    def _record_first(self) -> None:
        entry = self._waiting.popleft()
        if entry.arrived is not None:
            entry.arrived.synchronize()
        values = clean_values(entry.values)
        self.latest.update(values)
        self._record(entry.step, entry.time_s, values)


def _has_arrived(entry: _Entry) -> bool:
    return entry.arrived is None or entry.arrived.query()
