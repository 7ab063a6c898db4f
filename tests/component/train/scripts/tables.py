"""Feeds the reader of tables; prints one JSON object with what came of each file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainmaster.recipes._tables import UnusableTable, load_file, load_shipped
from trainmaster.recipes._tables_encoding import Encoder
from trainmaster.recipes.tabular import split_rows

HEADER = "size,colour,price\n"
ROWS = "".join(f"{number},{'red' if number % 3 else 'blue'},{number / 4}\n" for number in range(40))


def save(name: str, content: bytes | str) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def savez(name: str, **arrays: Any) -> Path:
    np.savez(f"{name}.npz", **arrays)
    return Path(f"{name}.npz")


def describe(table: Any) -> Any:
    kinds = {column.name: "text" if column.is_text else "numbers" for column in table.columns}
    return [kinds, table.target, table.labels, table.y_N[:4].tolist()]


def outcome(path: Path, target: str = "", task: str = "auto") -> Any:
    try:
        return describe(load_file(path, target, task))
    except UnusableTable as error:
        return str(error)


def failure(run: Any) -> str:
    try:
        run()
    except UnusableTable as error:
        return str(error)
    return ""


def encode(text: str) -> Any:
    table = load_file(save("encode.csv", text), "", "auto")
    return Encoder(table.columns, np.arange(len(table.y_N)))


x, y = np.arange(80.0).reshape(40, 2), np.arange(40) % 3
plain = save("plain.csv", HEADER + ROWS)
BAD = {
    "no file": outcome(Path("nowhere")),
    "bytes": outcome(save("bytes", b"\xff\xfe\x00" * 9)),
    "a header alone": outcome(save("header.csv", HEADER)),
    "an uneven row": outcome(save("uneven.csv", HEADER + ROWS + "1,red\n")),
    "equal names": outcome(save("equal.csv", "a,a,b\n1,2,3\n")),
    "one column": outcome(save("one.csv", "a\n1\n2\n")),
    "an unknown target": outcome(plain, "weight"),
    "a missing target": outcome(save("missing.csv", HEADER + ROWS + "1,red,\n")),
    "text as a quantity": outcome(plain, "colour", "regression"),
    "one class": outcome(save("class.csv", "a,b\n1,x\n2,x\n")),
    "no y": outcome(savez("no_y", x=x)),
    "objects": outcome(savez("objects", x=x, y=np.array([None] * 40, dtype=object))),
    "other shapes": outcome(savez("shapes", x=x, y=y[:39])),
    "too few rows": failure(
        lambda: split_rows(
            load_file(save("few.csv", "a,b\n1,2.5\n2,3.5\n"), "", "auto"), 0.1, 0.2, 0
        )
    ),
    "too many words": failure(
        lambda: encode("id,b\n" + "".join(f"n{number},{number}\n" for number in range(1500)))
    ),
    "an empty column": failure(lambda: encode("a,b\n,1\n,2\n")),
    "infinity": failure(lambda: encode("a,b\ninf,1\n2,2\n")),
}


GOOD = {
    "a quantity": outcome(plain),
    "text": outcome(plain, "colour"),
    "classes on request": outcome(plain, "size", "classification")[2][:3],
    "a quantity on request": outcome(savez("arrays", x=x, y=y), "", "regression"),
    "arrays": outcome(Path("arrays.npz")),
    "text in arrays": outcome(savez("words", x=x, y=np.array(["no", "yes"] * 20))),
    "semicolons, quotes, a mark": outcome(
        save("semicolons.csv", '\ufeff"a, b";c\r\n"1";yes\r\n2;no\r\n')
    ),
    "no header": outcome(save("bare.csv", "1,2,0.5\n3,4,1.5\n")),
    "missing cells": outcome(save("holes.csv", "a,b,c\n1,x,1\n,NA,2\n?,y,3\n")),
}
table = load_file(save("few.csv", "a,b,c,y\n1,p,5,0\n3,q,5,1\n,p,5,0\n100,r,5,1\n"), "", "auto")
encoder = Encoder(table.columns, np.array([0, 1, 2]))
regression = load_shipped("diabetes")
parts = split_rows(regression, 0.1, 0.2, 0)
print(
    json.dumps(
        {
            "bad": BAD,
            "good": GOOD,
            "encoded": encoder.encode(np.arange(4)).tolist(),
            "facts": encoder.facts,
            "width": encoder.width,
            "shipped": {
                name: [len(load_shipped(name).columns), *describe(load_shipped(name))[1:]]
                for name in ("breast-cancer", "wine", "iris", "diabetes")
            },
            "split": [len(part) for part in vars(parts).values()],
            "each row once": sorted(np.concatenate(list(vars(parts).values())).tolist())
            == list(range(442)),
        }
    )
)
