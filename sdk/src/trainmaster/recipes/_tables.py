"""Tables with a column to predict: from a CSV file, from arrays, or those scikit-learn ships.

Knows nothing of training. Arrays are named N rows, F columns.
"""

# ruff: noqa: N815  the shape is part of an array's name

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BYTES_MAX = 4 << 30
CLASSES_MAX = 10_000
WHOLE_NUMBERS_MAX = 20  # as many different ones are taken for classes, more for quantities
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_SHIPPED = {"breast-cancer": "breast_cancer.csv", "wine": "wine_data.csv", "iris": "iris.csv"}
_DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


class UnusableTable(ValueError):
    """The table cannot be trained on; the message names the column and the way out."""


@dataclass(frozen=True)
class Column:
    """One column to predict from: numbers with NaN where one is missing, or text.

    Attributes:
        values_N: float64, or text of which "" is missing.
    """

    name: str
    values_N: np.ndarray[Any, Any]

    @property
    def is_text(self) -> bool:
        """Whether the values are names of categories."""
        return self.values_N.dtype.kind == "U"


@dataclass(frozen=True)
class Table:
    """Columns to predict from, and what is to be predicted.

    Attributes:
        target: its name.
        y_N: class of each row, from 0, as an index into `labels`; or a quantity, float64.
        labels: what the classes are called; None for a quantity.
    """

    columns: list[Column]
    target: str
    y_N: np.ndarray[Any, Any]
    labels: list[Any] | None


def load_shipped(name: str) -> Table:
    """Return a table that scikit-learn ships: breast-cancer, wine, iris or diabetes.

    Reads the package's files without importing the package, which would take longer than the
    training.

    Raises:
        UnusableTable: scikit-learn is not there.
    """
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or []) if found else []
    folder = Path(folders[0], "datasets", "data") if folders else None
    if folder is None or not folder.is_dir():
        raise UnusableTable(
            f"the table {name} comes with scikit-learn, which this environment lacks: add "
            "scikit-learn to environment.requirements, or give the job its own input `data`"
        )
    if name == "diabetes":
        with gzip.open(folder / "diabetes_data_raw.csv.gz", "rt", encoding="ascii") as file:
            x_NF = np.loadtxt(file)
        with gzip.open(folder / "diabetes_target.csv.gz", "rt", encoding="ascii") as file:
            y_N = np.loadtxt(file)
        columns = [Column(each, x_NF[:, number]) for number, each in enumerate(_DIABETES)]
        return Table(columns, "progression", y_N, None)
    with (folder / _SHIPPED[name]).open(encoding="ascii") as lines:
        _, _, *labels = next(lines).strip().split(",")
        rows = np.loadtxt(lines, delimiter=",")
    columns = [Column(f"x{number}", rows[:, number]) for number in range(rows.shape[1] - 1)]
    return Table(columns, "class", rows[:, -1].astype(np.int64), list(labels))


def load_file(path: Path, target: str, task: str) -> Table:
    """Return the table in a CSV file, or the arrays x and y of an .npz file.

    Args:
        path: the file; its content says which of both it is.
        target: name of the column to predict; "" for the last.
        task: "classification", "regression", or "auto" to tell by the column.

    Raises:
        UnusableTable: it is neither, or cannot be used.
    """
    try:
        if path.stat().st_size > BYTES_MAX:
            raise UnusableTable(
                f"the input `data` has {path.stat().st_size / 2**30:.1f} GiB; at most "
                f"{BYTES_MAX >> 30} GiB: use a script of your own"
            )
        columns, wanted = _read_npz(path) if zipfile.is_zipfile(path) else _read_csv(path, target)
    except OSError as error:
        raise UnusableTable(f"the input `data` cannot be read: {error}") from error
    if not columns:
        raise UnusableTable(f"there is only the column {wanted.name}, and none to predict it from")
    y_N, labels = _read_target(wanted, task)
    return Table(columns, wanted.name, y_N, labels)


def _read_npz(path: Path) -> tuple[list[Column], Column]:
    advice = "save it with numpy.savez(path, x=table, y=targets)"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ("x", "y") if name not in arrays]
            if missing:
                raise UnusableTable(f"the input `data` has no array {missing[0]}: {advice}")
            x, y = arrays["x"], arrays["y"]
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, UnusableTable):
            raise
        raise UnusableTable(f"the input `data` cannot be read ({error}): {advice}") from error
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.dtype.kind not in "buif":
        raise UnusableTable(
            f"array x is {x.dtype} {x.shape} and array y {y.dtype} {y.shape}: give numbers [N, F] "
            "and one target per row, [N]"
        )
    columns = [
        Column(f"x{number}", x[:, number].astype(np.float64)) for number in range(x.shape[1])
    ]
    if y.dtype.kind in "US":
        return columns, Column("y", y.astype(str))
    if y.dtype.kind not in "buif":
        raise UnusableTable(f"array y has dtype {y.dtype}: give numbers or text")
    return columns, Column("y", y.astype(np.float64))


def _read_csv(path: Path, target: str) -> tuple[list[Column], Column]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableTable(
            f"the input `data` is neither an .npz file nor UTF-8 text ({error}): save it as CSV "
            "in UTF-8"
        ) from error
    unquoted = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    delimiter = max(",;\t", key=unquoted.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise UnusableTable(f"the input `data` is no CSV file: {error}") from error
    if len(rows) < 2:
        raise UnusableTable(f"the input `data` has {len(rows)} rows: give a header and more")
    names = [cell.strip() for cell in rows[0]]
    if all(_is_number(name) for name in names):
        names = [f"x{number}" for number in range(len(names))]
    else:
        rows = rows[1:]
    uneven = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if uneven is not None:
        raise UnusableTable(
            f"row {uneven + 1} of the input `data` has {len(rows[uneven])} cells, and there are "
            f"{len(names)} columns: fill it in, or quote the cells that hold a {delimiter!r}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UnusableTable(f"two columns are called {twice!r}: rename one")
    target = target or names[-1]
    if target not in names:
        raise UnusableTable(
            f"config.target is {target!r}, and the columns are {', '.join(names)}: name one of them"
        )
    columns = {
        name: _make_column(name, [row[number].strip() for row in rows])
        for number, name in enumerate(names)
    }
    wanted = columns.pop(target)
    return list(columns.values()), wanted


def _make_column(name: str, cells: list[str]) -> Column:
    is_missing = [cell.lower() in MISSING for cell in cells]
    if all(missing or _is_number(cell) for cell, missing in zip(cells, is_missing)):
        numbers = [np.nan if missing else float(cell) for cell, missing in zip(cells, is_missing)]
        return Column(name, np.array(numbers, dtype=np.float64))
    words = ["" if missing else cell for cell, missing in zip(cells, is_missing)]
    return Column(name, np.array(words, dtype=np.str_))


def _read_target(column: Column, task: str) -> tuple[np.ndarray[Any, Any], list[Any] | None]:
    values_N = column.values_N
    missing_N = (values_N == "") if column.is_text else ~np.isfinite(values_N)
    if missing_N.any():
        raise UnusableTable(
            f"the target {column.name} is missing or infinite in {int(missing_N.sum())} rows: "
            "leave them out"
        )
    if task == "regression" and column.is_text:
        raise UnusableTable(
            f"the target {column.name} is text: set config.task to classification, or name "
            "another column as config.target"
        )
    is_whole = not column.is_text and bool((values_N == np.round(values_N)).all())
    is_few = is_whole and len(np.unique(values_N)) <= WHOLE_NUMBERS_MAX
    if task == "regression" or (task == "auto" and not column.is_text and not is_few):
        return values_N, None
    kinds, y_N = np.unique(values_N, return_inverse=True)
    if not 2 <= len(kinds) <= CLASSES_MAX:
        raise UnusableTable(
            f"the target {column.name} has {len(kinds)} classes; between 2 and {CLASSES_MAX} can "
            "be told apart"
        )
    labels = [int(kind) if is_whole else kind for kind in kinds.tolist()]
    return y_N.reshape(-1).astype(np.int64), labels


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
