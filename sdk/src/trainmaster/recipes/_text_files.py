"""Text from a file, from the files of a directory, or from Python's own library; and its split.

Knows nothing of tokens and of training. A text is an array of bytes; where it has several
documents, each but the last ends with a byte 0.
"""

# ruff: noqa: N815  the shape is part of an array's name

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BYTES_MAX = 16 << 30  # of the files of a directory, which are read into memory
DIGEST_BYTES = 1 << 20  # of a long text, this much of each end makes its digest
_BINARY_BYTES = 8192  # a 0 among the first of a file means that it is no text
_NOT_PROGRAMS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})


class UnusableText(ValueError):
    """The text cannot be trained on; the message names the place and the way out."""


@dataclass(frozen=True)
class Text:
    """Bytes to train on and bytes held out.

    Attributes:
        train_N, validation_N: bytes; of one long file, mapped and not read.
        num_documents: files that they come from.
    """

    train_N: np.ndarray[Any, Any]
    validation_N: np.ndarray[Any, Any]
    num_documents: int

    def digest(self) -> str:
        """Return what tells this text and split from others."""
        digest = hashlib.blake2b(digest_size=16)
        for part_N in (self.train_N, self.validation_N):
            digest.update(f"{len(part_N)}/".encode())
            digest.update(part_N[:DIGEST_BYTES].tobytes())
            digest.update(part_N[-DIGEST_BYTES:].tobytes())
        return digest.hexdigest()


def load_text(path: Path | None, validation_fraction: float, seed: int) -> Text:
    """Return the text of a file or of a directory; without a path, of Python's own library.

    Files are divided by the seed and their names. Of a single file, the end is held out.

    Raises:
        UnusableText: there is none, or too much.
    """
    if path is None:
        library = Path(sysconfig.get_path("stdlib"))
        return _load_files(library, _is_program, validation_fraction, seed)
    if path.is_dir():
        return _load_files(path, lambda name: True, validation_fraction, seed)
    if not path.is_file():
        raise UnusableText(f"the input `text` is not there: {path}: name a file or a directory")
    return _load_file(path, validation_fraction)


def _load_file(path: Path, validation_fraction: float) -> Text:
    size = path.stat().st_size
    if size < 2:
        raise UnusableText(f"the input `text` has {size} bytes: give more text")
    bytes_N = np.memmap(path, dtype=np.uint8, mode="r")
    held_out = max(1, round(size * validation_fraction))
    return Text(bytes_N[: size - held_out], bytes_N[size - held_out :], 1)


def _load_files(
    root: Path, is_wanted: Callable[[Path], bool], validation_fraction: float, seed: int
) -> Text:
    documents: list[tuple[str, bytes]] = []
    total = 0
    for name in _iter_names(root):
        if not is_wanted(Path(name)):
            continue
        document = (root / name).read_bytes()
        if not document or b"\0" in document[:_BINARY_BYTES]:
            continue
        total += len(document)
        if total > BYTES_MAX:
            raise UnusableText(
                f"the files of the input `text` have more than {BYTES_MAX >> 30} GiB, which are "
                "read into memory: join them into one file, which is not"
            )
        documents.append((name, document.replace(b"\0", b"")))
    if len(documents) < 2:
        raise UnusableText(
            f"the input `text` has {len(documents)} files of text: give at least two, so that "
            "one can be held out, or name a single file as the input"
        )
    # By rank among the hashes, not by a threshold: of few files neither part may be empty.
    order = sorted(documents, key=lambda each: _hash_name(seed, each[0]))
    held_out = min(len(order) - 1, max(1, round(len(order) * validation_fraction)))
    parts = (sorted(order[held_out:]), sorted(order[:held_out]))
    train_N, validation_N = (
        np.frombuffer(b"\0".join(document for _, document in part), dtype=np.uint8)
        for part in parts
    )
    return Text(train_N, validation_N, len(documents))


def _iter_names(root: Path) -> Iterator[str]:
    """Yield the regular files below a directory, as paths from it, hidden ones left out."""
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(root).as_posix()


def _is_program(name: Path) -> bool:
    return name.suffix == ".py" and _NOT_PROGRAMS.isdisjoint(name.parts)


def _hash_name(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
