"""Which tensor travels in which flat section, and which server has it. Pure, but for `Flat`.

A section is one flat vector of P numbers: tensors of one group and type that one server has. All
that travels, is averaged or optimized is sections, so its cost does not depend on how many
tensors a model has.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["value", "mean", "first"]
"""Learned and maybe compressed; a buffer that is averaged; a buffer of which the first's is taken.
"""


@dataclass(frozen=True)
class Place:
    """One tensor before it is laid out.

    Attributes:
        name: unique among all.
        group: what is exchanged at the same time: a fragment, or an optimizer's name.
        kind: what becomes of it.
        shape: of the tensor.
        dtype: in which it travels and is averaged, such as "float32".
    """

    name: str
    group: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes uncompressed."""
        return self.numel * to_dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Section:
    """Tensors of one group, kind and type on one server, end to end."""

    group: str
    kind: Kind
    dtype: str
    server: int
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def numel(self) -> int:
        """Numbers in all of it."""
        return sum(map(math.prod, self.shapes))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Section:
        """Return the section that `to_dict` described."""
        names, shapes = tuple(values["names"]), tuple(tuple(each) for each in values["shapes"])
        return cls(**{**values, "names": names, "shapes": shapes})

    def empty(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return a flat vector of its size, with nothing in it."""
        return torch.empty(self.numel, dtype=to_dtype(self.dtype), device=device)

    def split(self, flat_P: torch.Tensor) -> list[torch.Tensor]:
        """Return views of a flat vector in the shapes of the tensors."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return [part.view(shape) for part, shape in zip(flat_P.split(sizes), self.shapes)]


class Flat:
    """A section of this replica: the live tensors, and their copy end to end."""

    def __init__(self, section: Section, tensors: Sequence[torch.Tensor]) -> None:
        self.section, self.tensors = section, list(tensors)
        device = tensors[0].device
        self.flat_P = section.empty(device)
        self._views = section.split(self.flat_P)

    def read(self) -> torch.Tensor:
        """Copy the tensors into the flat vector, and return it."""
        with torch.no_grad():
            for view, tensor in zip(self._views, self.tensors):
                view.copy_(tensor)
        return self.flat_P

    def write(self, flat_P: torch.Tensor) -> None:
        """Copy a flat vector into the tensors."""
        with torch.no_grad():
            for part, tensor in zip(self.section.split(flat_P), self.tensors):
                tensor.copy_(part)


def split_by_name(
    flats: Iterable[Flat], values: Iterable[torch.Tensor | None]
) -> dict[str, torch.Tensor]:
    """Return copies of flat vectors as tensors by name, of which any layout can be made."""
    return {
        name: view.to("cpu", copy=True)
        for flat, value_P in zip(flats, values)
        if value_P is not None
        for name, view in zip(flat.section.names, flat.section.split(value_P))
    }


def join_by_name(flat: Flat, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return one section of what `split_by_name` returned, on the CPU."""
    value_P = flat.section.empty()
    for view, name in zip(flat.section.split(value_P), flat.section.names):
        view.copy_(tensors[name])
    return value_P


def lay_out(places: Iterable[Place], num_servers: int) -> list[Section]:
    """Return the sections, in an order that depends on the places alone.

    Values go to the servers whole, the largest first, each to the server that has the fewest
    bytes by then; buffers are few and stay on the first.
    """
    listed = list(places)
    servers = [0] * len(listed)
    loads = [0] * num_servers
    values = [number for number, place in enumerate(listed) if place.kind == "value"]
    for number in sorted(values, key=lambda number: -listed[number].num_bytes):
        servers[number] = loads.index(min(loads))
        loads[servers[number]] += listed[number].num_bytes
    grouped: dict[tuple[str, Kind, str, int], list[Place]] = {}
    for place, server in zip(listed, servers):
        grouped.setdefault((place.group, place.kind, place.dtype, server), []).append(place)
    return [
        Section(*key, tuple(each.name for each in members), tuple(each.shape for each in members))
        for key, members in grouped.items()
    ]


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this rank has: all of it, unless it is sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def to_dtype(name: str) -> torch.dtype:
    """Return torch's type of that name.

    Raises:
        TypeError: torch has none.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no type of torch: run the same torch on all ranks")
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Return what `to_dtype` takes."""
    return str(dtype).removeprefix("torch.")
