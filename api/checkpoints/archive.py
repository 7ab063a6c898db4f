"""A checkpoint as one tar, made on the way out: no temporary file, and a length known before."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from datetime import datetime

from api.downloads import iter_blocks
from api.ranges import ByteRange
from api.storage import LocalStorage, ObjectKey
from models import CheckpointFile

_BLOCK_BYTES = 512
_END = b"\0" * (2 * _BLOCK_BYTES)


def measure_archive(files: Sequence[CheckpointFile], folder: str, made_at: datetime) -> int:
    """Return how many bytes `iter_archive` will yield."""
    return len(_END) + sum(
        len(_header(file, folder, made_at)) + file.size_bytes + _padding(file.size_bytes)
        for file in files
    )


def iter_archive(
    storage: LocalStorage,
    checkpoint_id: str,
    files: Sequence[CheckpointFile],
    folder: str,
    made_at: datetime,
) -> Iterator[bytes]:
    """Yield a tar in which all files lie below `folder`.

    Raises:
        NotFound: bytes are gone.
    """
    for file in files:
        yield _header(file, folder, made_at)
        with storage.open(ObjectKey(checkpoint_id, file.sha256)) as source:
            yield from iter_blocks(source, ByteRange(0, file.size_bytes))
        if padding := _padding(file.size_bytes):
            yield b"\0" * padding
    yield _END


def _header(file: CheckpointFile, folder: str, made_at: datetime) -> bytes:
    info = tarfile.TarInfo(f"{folder}/{file.path}")
    info.size, info.mode, info.mtime = file.size_bytes, 0o644, int(made_at.timestamp())
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK_BYTES
