"""Feeds the image classifier's reader; prints one JSON object with what came of each file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainmaster.recipes._labelled_images import (
    LabelledImages,
    UnusableImages,
    load_digits,
    load_npz,
    split_by_class,
)

x = np.arange(40 * 4 * 4, dtype=np.uint8).reshape(40, 4, 4)
y = np.repeat([3, 7], 20)
holed = x.astype(np.float32)
holed[5, 0, 0] = np.nan


def save(name: str, **arrays: Any) -> Path:
    np.savez(f"{name}.npz", **arrays)
    return Path(f"{name}.npz")


Path("text.npz").write_text("hello")
np.save("one.npy", x)
save("whole", x=x, y=y)
Path("torn.npz").write_bytes(Path("whole.npz").read_bytes()[:-40])
FILES = {
    "no zip file": Path("text.npz"),
    "a lone array": Path("one.npy"),
    "a torn file": Path("torn.npz"),
    "no file": Path("nowhere.npz"),
    "no x": save("no_x", images=x, y=y),
    "no y": save("no_y", x=x),
    "nothing": save("nothing"),
    "objects in x": save("objects_x", x=np.array([{}] * 40, dtype=object), y=y),
    "objects in y": save("objects_y", x=x, y=np.array([None] * 40, dtype=object)),
    "one dimension": save("flat", x=np.zeros(40), y=y),
    "five dimensions": save("deep", x=np.zeros((40, 1, 1, 2, 2)), y=y),
    "text in x": save("text_x", x=np.array([["a"]] * 40), y=y),
    "complex x": save("complex_x", x=x.astype(complex), y=y),
    "y of two dimensions": save("y2", x=x, y=np.zeros((40, 2), int)),
    "another length": save("length", x=x, y=y[:39]),
    "fractions in y": save("fractions", x=x, y=y / 2),
    "no images": save("empty", x=x[:0], y=y[:0]),
    "images without pixels": save("hollow", x=np.zeros((40, 0, 4)), y=y),
    "holes": save("holes", x=holed, y=y),
    "one class": save("one_class", x=x, y=np.zeros(40, int)),
}


def describe(images: LabelledImages) -> Any:
    return [list(images.x.shape), str(images.x.dtype), images.labels, images.y_N[[0, -1]].tolist()]


def outcome(path: Path) -> Any:
    try:
        return describe(load_npz(path))
    except UnusableImages as error:
        return str(error)


GOOD = {
    "grey images": save("grey", x=x, y=y),
    "colour images": save("colour", x=np.zeros((40, 3, 4, 4), np.float32), y=y),
    "features": save("features", x=np.zeros((40, 9)), y=y),
    "text labels": save("labels", x=x, y=np.where(y == 3, "cat", "dog")),
    "byte labels": save("bytes", x=x, y=np.where(y == 3, b"cat", b"dog")),
    "truth values": save("truth", x=x > 9, y=y == 7),
}
many = np.repeat([0, 1, 2], [100, 10, 1])
split = split_by_class(many, 0.1, 0.2, seed=0)
other = split_by_class(many, 0.1, 0.2, seed=1)
try:
    split_by_class(np.array([0, 1]), 0.1, 0.2, seed=0)
    too_small = ""
except UnusableImages as error:
    too_small = str(error)
rows = np.sort(np.concatenate([split.train, split.validation, split.test]))
print(
    json.dumps(
        {
            "bad": {name: outcome(path) for name, path in FILES.items()},
            "good": {name: outcome(path) for name, path in GOOD.items()},
            "digits": [*describe(load_digits()), float(load_digits().x.max())],
            "split": {
                "counts": {
                    name: np.bincount(many[part], minlength=3).tolist()
                    for name, part in vars(split).items()
                },
                "each row once": bool((rows == np.arange(111)).all()),
                "seed matters": not np.array_equal(split.test, other.test),
                "too small": too_small,
            },
        }
    )
)
