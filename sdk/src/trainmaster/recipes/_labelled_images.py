"""Labelled images from an .npz file, or the digits that scikit-learn ships; checked and split.

Knows nothing of training. Arrays are named N images, C channels, H rows, W columns, F features.
"""

# ruff: noqa: N815  the shape is part of a tensor's name

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BYTES_MAX = 16 << 30  # of one array, unpacked
CLASSES_MAX = 100_000
_DIGITS = Path("datasets", "data", "digits.csv.gz")


class UnusableImages(ValueError):
    """The data cannot be trained on; the message names the array and the way out."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with the number of the class of each.

    Attributes:
        x: [N, C, H, W], or [N, F] for plain features; any real dtype.
        y_N: class of each, from 0, as an index into `labels`.
        labels: what the classes are called in the data.
    """

    x: np.ndarray[Any, Any]
    y_N: np.ndarray[Any, Any]
    labels: list[Any]


@dataclass(frozen=True)
class Split:
    """Row numbers of each part; together every row once."""

    train: np.ndarray[Any, Any]
    validation: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]


def load_digits() -> LabelledImages:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8, values 0 to 16.

    Reads the package's data file without importing the package, which would take longer than the
    first hundred training steps.
    """
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or []) if found else []
    path = Path(folders[0], _DIGITS) if folders else None
    if path is None or not path.is_file():
        raise UnusableImages(
            "the digits come with scikit-learn, which this environment lacks: add scikit-learn "
            "to environment.requirements, or give the job its own images as the input `data`"
        )
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.array([line.split(",") for line in file], dtype=np.float32)
    return _checked(table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64))


def load_npz(path: Path) -> LabelledImages:
    """Return the arrays x and y of an .npz file.

    Raises:
        UnusableImages: it is none, or the arrays are not images and labels.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: entry.file_size for entry in archive.infolist()}
        missing = [name for name in ("x", "y") if f"{name}.npy" not in members]
        if missing:
            there = ", ".join(sorted(Path(name).stem for name in members)) or "nothing"
            raise UnusableImages(
                f"the input `data` has no array {missing[0]} (it has: {there}): "
                "save it with numpy.savez(path, x=images, y=labels)"
            )
        for name in ("x", "y"):
            if members[f"{name}.npy"] > BYTES_MAX:
                raise UnusableImages(
                    f"array {name} has {members[f'{name}.npy'] / 2**30:.1f} GiB; at most "
                    f"{BYTES_MAX >> 30} GiB: use a smaller dtype, or a script of your own"
                )
        with np.load(path, allow_pickle=False) as arrays:
            x, y = _read(arrays, "x"), _read(arrays, "y")
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UnusableImages(
            f"the input `data` is not an .npz file ({error}): "
            "save it with numpy.savez(path, x=images, y=labels)"
        ) from error
    return _checked(x, y)


def split_by_class(
    y_N: np.ndarray[Any, Any], validation_fraction: float, test_fraction: float, seed: int
) -> Split:
    """Divide the rows so that every part has the classes in the same proportions.

    Each class gives its rounded share to the test and the validation part and keeps at least one
    row for training.

    Raises:
        UnusableImages: a part would be empty.
    """
    generator = np.random.default_rng(seed)
    parts: dict[str, list[Any]] = {"test": [], "validation": [], "train": []}
    for label in np.unique(y_N):
        rows = generator.permutation(np.flatnonzero(y_N == label))
        num_test = min(round(len(rows) * test_fraction), len(rows) - 1)
        num_validation = min(round(len(rows) * validation_fraction), len(rows) - 1 - num_test)
        parts["test"].append(rows[:num_test])
        parts["validation"].append(rows[num_test : num_test + num_validation])
        parts["train"].append(rows[num_test + num_validation :])
    joined = {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}
    for name in ("test", "validation"):
        if len(joined[name]) == 0:
            raise UnusableImages(
                f"the {name} part would be empty: no class has enough of the {len(y_N)} rows; "
                f"give more data or a larger {name}_fraction"
            )
    return Split(**joined)


def _read(arrays: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = arrays[name]
    except ValueError as error:  # numpy's answer to an array that would have to be unpickled
        raise UnusableImages(
            f"array {name} cannot be read: {error}. "
            "Arrays of Python objects are refused; save numbers, or labels as text"
        ) from error
    return array


def _checked(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> LabelledImages:
    if x.ndim not in (2, 3, 4):
        raise UnusableImages(
            f"array x has the shape {x.shape}: give [N, height, width], "
            "[N, channels, height, width] or [N, features]"
        )
    if x.dtype.kind not in "buif":
        raise UnusableImages(f"array x has dtype {x.dtype}: give integers or floats")
    if y.ndim != 1:
        raise UnusableImages(f"array y has the shape {y.shape}: give one label per row, [N]")
    if len(x) != len(y):
        raise UnusableImages(
            f"array x has {len(x)} rows and array y has {len(y)}: give one label per row"
        )
    if y.dtype.kind not in "buiUS":
        raise UnusableImages(
            f"array y has dtype {y.dtype}: give integers or text, for example y.astype(int)"
        )
    if x.size == 0:
        raise UnusableImages(f"array x is empty (shape {x.shape}): give at least one image")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        rows = int((~np.isfinite(x.reshape(len(x), -1)).all(axis=1)).sum())
        raise UnusableImages(
            f"array x has NaN or infinite values in {rows} rows: leave them out or fill them in"
        )
    labels, y_N = np.unique(y, return_inverse=True)
    if not 2 <= len(labels) <= CLASSES_MAX:
        raise UnusableImages(
            f"array y has {len(labels)} classes; between 2 and {CLASSES_MAX} can be told apart"
        )
    images = x[:, None] if x.ndim == 3 else x
    names = [
        label.decode("utf-8", "replace") if isinstance(label, bytes) else label
        for label in labels.tolist()
    ]
    return LabelledImages(images, y_N.reshape(-1).astype(np.int64), names)
