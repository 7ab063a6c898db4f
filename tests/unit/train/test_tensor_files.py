"""Safetensors files, piece by piece, held against the format as it is written down."""

import json
import struct
from pathlib import Path

import pytest

from trainmaster.recipes._tensor_files import (
    BadTensorFile,
    Slot,
    order_slots,
    read_header,
    render_header,
)


def write_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    slots = order_slots(
        [Slot("b", "BF16", (2,), 4), Slot("é", "F32", (2, 2), 16), Slot("none", "F32", (0,), 0)]
    )
    data = bytes(range(20))
    (tmp_path / "a.safetensors").write_bytes(render_header(slots, {"format": "pt"}) + data)

    tensors, metadata = read_header(tmp_path / "a.safetensors")

    assert metadata == {"format": "pt"}
    assert {one.name: (one.dtype, one.shape) for one in tensors} == {
        "é": ("F32", (2, 2)),
        "b": ("BF16", (2,)),
        "none": ("F32", (0,)),
    }
    assert {one.name: b"".join(one.read(3)) for one in tensors} == {
        "é": data[:16],
        "b": data[16:],
        "none": b"",
    }


def test_large_items_come_first_so_that_all_are_aligned() -> None:
    slots = [Slot("a", "U8", (3,), 3), Slot("z", "F64", (1,), 8), Slot("m", "F16", (1,), 2)]

    header = render_header(order_slots(slots), {"b": "2", "a": "1"})

    assert [slot.name for slot in order_slots(slots)] == ["z", "m", "a"]
    assert len(header) % 8 == 0
    assert header == render_header(order_slots(reversed(slots)), {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        pytest.param({}, b"", 1 << 62, id="longer than the file"),
        pytest.param(b"[1]", b"", None, id="no object"),
        pytest.param(b"\xff", b"", None, id="no text"),
        pytest.param({"a": {"dtype": "F32", "shape": [1]}}, b"1234", None, id="no place"),
        pytest.param(
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"123",
            None,
            id="a tensor beyond the end",
        ),
        pytest.param(
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, 4]}},
            b"1234",
            None,
            id="a tensor before the beginning",
        ),
        pytest.param(
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
            b"1234",
            None,
            id="a tensor that ends before it begins",
        ),
    ],
)
def test_a_broken_file_is_told_not_believed(
    tmp_path: Path, header: object, data: bytes, length: int | None
) -> None:
    path = write_file(tmp_path / "a.safetensors", header, data, length=length)

    with pytest.raises(BadTensorFile, match=r"a\.safetensors"):
        read_header(path)


def test_an_empty_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")

    with pytest.raises(BadTensorFile, match="is no safetensors file"):
        read_header(tmp_path / "a.safetensors")
