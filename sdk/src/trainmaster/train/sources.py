"""From a dataset and an order to the batches of one rank, on the rank's device.

Knows which samples a rank takes; what is done with them is the user's.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from trainmaster._order import order_keys, permute_bits, share_of
from trainmaster.train.randomness import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from trainmaster._order import Batch, Plan

BLOCK_SAMPLES = 8192  # shuffled at once: small enough to begin at once, large enough to be cheap


class ShuffledOrder:
    """The samples at the positions of an epoch's order, computed a block at a time."""

    def __init__(self, seed: int, size: int, *, is_shuffled: bool) -> None:
        self._seed, self._size, self._is_shuffled = seed, size, is_shuffled
        self._epoch, self._first = -1, 0
        self._block = torch.empty(0, dtype=torch.int64)

    def take(self, epoch: int, first: int, stop: int) -> torch.Tensor:
        """Return the samples at positions `first` to `stop` (not included) of an epoch."""
        begin = first - self._first
        is_inside = epoch == self._epoch and begin >= 0 and stop <= self._first + len(self._block)
        if not is_inside:
            end = min(self._size, max(stop, first + BLOCK_SAMPLES))
            self._block = self._compute(epoch, first, end)
            self._epoch, self._first, begin = epoch, first, 0
        return self._block[begin : begin + stop - first]

    def _compute(self, epoch: int, first: int, stop: int) -> torch.Tensor:
        positions = torch.arange(first, stop)
        if not self._is_shuffled:
            return positions
        keys = order_keys(self._seed, epoch)
        indices = permute_bits(positions, self._size, keys)
        while (outside := indices >= self._size).any():
            indices[outside] = permute_bits(indices[outside], self._size, keys)
        return indices


class Share:
    """Which samples of a global batch this rank computes on."""

    def __init__(self, plan: Plan, share: tuple[int, int]) -> None:
        """`share` is the number of this rank's share, and how many there are."""
        seed, size, is_shuffled = plan.order
        self.seed = seed
        self._order = ShuffledOrder(seed, size, is_shuffled=is_shuffled)
        self._share = share

    def count(self, batch: Batch) -> int:
        """Return how many samples of a batch are this rank's."""
        return len(share_of(batch.count, *self._share))

    def indices(self, batch: Batch) -> torch.Tensor:
        """Return them; a rank that has none borrows the batch's first, to compute in step."""
        share = share_of(batch.count, *self._share)
        first, stop = (share.start, share.stop) if len(share) else (0, 1)
        return self._order.take(batch.epoch, batch.first + first, batch.first + stop)


def size_of(dataset: Any) -> int:
    """Return the number of samples.

    Raises:
        TypeError: it is nothing that we can take samples from by number.
        ValueError: it is empty, or its columns differ in length.
    """
    columns = _find_columns(dataset)
    if columns is None:
        _require_map_style(dataset)
        size = len(dataset)
    else:
        sizes = {len(column) for column in columns}
        if len(sizes) > 1:
            raise ValueError(
                f"the columns of the dataset have {sorted(sizes)} samples: give equally many"
            )
        size = sizes.pop()
    if size == 0:
        raise ValueError("the dataset is empty")
    return size


def iter_batches(
    dataset: Any, batches: Iterator[Batch], share: Share, device: torch.device, workers: int
) -> Generator[tuple[Batch, Any], None, None]:
    """Yield what is left of a loop: each global batch with this rank's part of its samples.

    Args:
        dataset: as `size_of` accepts it.
        batches: what is left of the loop.
        share: which samples are this rank's.
        device: where the samples are wanted.
        workers: processes that load samples ahead; 0 loads them here.
    """
    if workers > 0 and _find_columns(dataset) is None:
        batches, ahead = itertools.tee(batches)
        loader = DataLoader(
            _SeededSamples(dataset, share.seed),
            batch_sampler=_SampleLists(ahead, share),
            num_workers=workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # ours, so that loading draws nothing from the rank's
        )
        for batch, samples in zip(batches, loader):
            yield batch, to_device(samples, device)
        return
    fetch = _fetcher(dataset)
    for batch in batches:
        yield batch, to_device(fetch(share.indices(batch)), device)


def to_device(samples: Any, device: torch.device) -> Any:
    """Return the same structure with every tensor in it on the device."""
    if isinstance(samples, torch.Tensor):
        if device.type == "cuda" and samples.device.type == "cpu":
            # A copy from any other memory waits for all that the GPU has to do before.
            samples = samples.pin_memory()
        return samples.to(device, non_blocking=True)
    if isinstance(samples, dict):
        return {name: to_device(value, device) for name, value in samples.items()}
    if isinstance(samples, tuple) and hasattr(samples, "_fields"):
        return type(samples)(*(to_device(value, device) for value in samples))
    if isinstance(samples, (tuple, list)):
        return type(samples)(to_device(value, device) for value in samples)
    return samples


class _SampleLists:
    """What a DataLoader asks for: epoch and number of the samples of each batch to come."""

    def __init__(self, batches: Iterator[Batch], share: Share) -> None:
        self._batches, self._share = batches, share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches:
            yield [(batch.epoch, index) for index in self._share.indices(batch).tolist()]


class _SeededSamples(Dataset[Any]):
    """A dataset whose samples draw the same random numbers whichever worker loads them.

    Otherwise what a sample looks like would depend on how many workers there are, and on where
    the run was resumed.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, sample: tuple[int, int]) -> Any:
        epoch, index = sample
        seed_everything(self._seed, epoch, index)
        return self._dataset[index]


def _find_columns(dataset: Any) -> list[Any] | None:
    """Return the tensors or arrays that hold the samples by rows, or None if it is map-style."""
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    if isinstance(dataset, (torch.Tensor, np.ndarray)):
        return [dataset]
    values = dataset.values() if isinstance(dataset, dict) else dataset
    if isinstance(dataset, (tuple, dict)) and len(dataset) > 0:
        columns = list(values)
        if all(isinstance(column, (torch.Tensor, np.ndarray)) for column in columns):
            return columns
    return None


def _require_map_style(dataset: Any) -> None:
    is_sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, (IterableDataset, dict, DataLoader)) or not is_sized:
        raise TypeError(
            f"a {type(dataset).__name__} gives no sample by its number: pass a tuple of tensors "
            "or arrays, or a dataset with __len__ and __getitem__"
        )


def _fetcher(dataset: Any) -> Callable[[torch.Tensor], Any]:
    columns = _find_columns(dataset)
    if columns is None:
        return lambda indices: _fetch_samples(dataset, indices.tolist())
    tensors = [torch.as_tensor(column) for column in columns]
    if isinstance(dataset, (torch.Tensor, np.ndarray)):
        return lambda indices: tensors[0][indices]
    if isinstance(dataset, dict):
        names = list(dataset)
        return lambda indices: {name: tensor[indices] for name, tensor in zip(names, tensors)}
    return lambda indices: tuple(tensor[indices] for tensor in tensors)


def _fetch_samples(dataset: Dataset[Any], indices: list[int]) -> Any:
    fetch_many = getattr(dataset, "__getitems__", None)  # torch's own name for a batched read
    samples = fetch_many(indices) if fetch_many else [dataset[index] for index in indices]
    return default_collate(samples)
