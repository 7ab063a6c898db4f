"""Safetensors files, read and written piece by piece: no tensor is ever whole in memory.

A file is the length of its header in eight bytes, the header as JSON, then the bytes of all
tensors without a gap. Nothing in it is ever executed. Standard library only; knows numbers of
bytes, not what they mean.

Source:
    https://huggingface.co/docs/safetensors, "Format". The order of the tensors in a file is that
    of the reference implementation: largest items first, so that all are aligned.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

METADATA = "__metadata__"
_HEADER_BYTES_MAX = 100_000_000  # as the reference implementation has it
_LENGTH = struct.Struct("<Q")


class BadTensorFile(Exception):
    """The file is not what its name says."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: where its bytes are, and what they are called there.

    Attributes:
        dtype: as the header has it, such as F32 or BF16.
        offset: of its first byte, from the beginning of the file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def num_items(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def read(self, piece_bytes: int) -> Iterator[bytearray]:
        """Yield its bytes in pieces of this size, the last one shorter."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.size_bytes
            while left:
                piece = bytearray(file.read(min(piece_bytes, left)))
                if not piece:
                    raise BadTensorFile(f"{self.path.name} ends within tensor {self.name}")
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class Slot:
    """One tensor of a file that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def item_bytes(self) -> int:
        """Bytes of one number; 1 where there is none."""
        return self.size_bytes // max(1, math.prod(self.shape)) or 1


def read_header(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """Return the tensors of a file and its metadata.

    Raises:
        BadTensorFile: it is no safetensors file, or a broken one.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH.size)
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
        if not 0 < length <= min(_HEADER_BYTES_MAX, size_bytes - _LENGTH.size):
            raise BadTensorFile(f"{path.name} is no safetensors file")
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = {str(key): str(value) for key, value in header.pop(METADATA, {}).items()}
        base = _LENGTH.size + length
        tensors = [_read_entry(path, base, name, entry) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTensorFile(f"the header of {path.name} cannot be read: {error}") from error
    for tensor in tensors:
        if tensor.size_bytes < 0 or tensor.offset + tensor.size_bytes > size_bytes:
            raise BadTensorFile(f"{path.name} is shorter than its header says")
    return tensors, metadata


def order_slots(slots: Iterable[Slot]) -> list[Slot]:
    """Return the slots as they follow one another in a file."""
    return sorted(slots, key=lambda slot: (-slot.item_bytes, slot.name))


def render_header(ordered: Iterable[Slot], metadata: Mapping[str, str]) -> bytes:
    """Return everything that stands before the tensors; same bytes for the same arguments."""
    header: dict[str, Any] = {METADATA: {key: metadata[key] for key in sorted(metadata)}}
    end = 0
    for slot in ordered:
        start, end = end, end + slot.size_bytes
        header[slot.name] = {
            "dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text


def _read_entry(path: Path, base: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    start, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if start < 0 or any(size < 0 for size in shape):
        raise ValueError(f"tensor {name} has a negative size")
    return StoredTensor(path, name, str(entry["dtype"]), shape, base + start, end - start)
