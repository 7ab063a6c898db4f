"""Makes a job's spec of a file and flags. Pure but for reading the file it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainmaster._errors import ConfigurationError

_USUAL_ENTRYPOINTS = ("train.py", "main.py")


def read_spec(path: Path) -> dict[str, Any]:
    """Return the spec in a JSON file, or on standard input for `-`.

    Raises:
        ConfigurationError: it cannot be read, or holds no JSON object.
    """
    import sys  # noqa: PLC0415  for `-` only

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        hint = ": YAML is not read, write JSON" if path.suffix in {".yaml", ".yml"} else ""
        raise ConfigurationError(f"{path} is not JSON ({error}){hint}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} holds no JSON object: a spec looks like {{…}}")
    return document


def parse_value(text: str) -> Any:
    """Return a value as JSON reads it (`3`, `0.1`, `true`, `[1,2]`), or else the text itself."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)  # NaN and infinities are no JSON: keep the word

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def parse_pairs(pairs: Iterable[str], *, option: str, values_are_text: bool) -> dict[str, Any]:
    """Return `name=value` flags as a mapping.

    Raises:
        ConfigurationError: one has no `=`, or no name.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option} {pair!r} has no value: write {option} name=value")
        result[name] = text if values_are_text else parse_value(text)
    return result


def set_path(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its dotted path, as in `sync.mode`, making objects on the way.

    Raises:
        ConfigurationError: the path runs through something that is no object.
    """
    *parents, last = path.split(".")
    place = spec
    for name in parents:
        child = place.get(name)
        if child is None:
            child = place[name] = {}
        if not isinstance(child, dict):
            raise ConfigurationError(f"--set {path}: {name} is no object, so it has no fields")
        place = child
    place[last] = value


def default_entrypoint(code: Path) -> str:
    """Return which script of the code to run when nobody said.

    Raises:
        ConfigurationError: it is not clear.
    """
    if code.is_file() and code.suffix == ".py":
        return code.name
    for name in _USUAL_ENTRYPOINTS:
        if (code / name).is_file():
            return name
    raise ConfigurationError(
        f"which file of {code} shall run? Say so with --entrypoint, as in --entrypoint train.py"
    )
