"""What the service takes as a checkpoint: names, number and sizes of its files, its metrics. Pure.

The same rules as the service's own: what is committed here must never be refused there.
"""

from __future__ import annotations

from typing import Any

from workers.supervisor.spool import spell

FILES_MAX = 10_000
FILE_BYTES_MAX = 50 * 1024**3
METRICS_MAX = 256
_PATH_CHARS_MAX = 512
_PART_BYTES_MAX = 255
_DEPTH_MAX = 32
_NAME_CHARS_MAX = 128
_SPELLED = ("NaN", "Infinity", "-Infinity")


class BadCheckpoint(ValueError):
    """What a rank wants to commit cannot be a checkpoint; the message says why."""


def check_path(path: str) -> None:
    """Check the path of a file, relative to the checkpoint.

    Raises:
        BadCheckpoint: the service would refuse it.
    """
    shown = ascii(path[:80])
    if not path.isprintable() or "\\" in path:
        raise BadCheckpoint(
            f"the name {shown} holds a backslash or a character that cannot be printed: "
            "rename the file"
        )
    parts = path.split("/")
    if len(path) > _PATH_CHARS_MAX or any(len(part.encode()) > _PART_BYTES_MAX for part in parts):
        raise BadCheckpoint(
            f"the name {shown}… is too long: at most {_PART_BYTES_MAX} bytes for a name and "
            f"{_PATH_CHARS_MAX} characters for a path; rename the file"
        )
    if len(parts) > _DEPTH_MAX:
        raise BadCheckpoint(f"{shown}… lies more than {_DEPTH_MAX} folders deep: flatten the tree")


def check_step(value: Any) -> int:
    """Return the step.

    Raises:
        BadCheckpoint: it is no integer from 0 to 10^12 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadCheckpoint(f"the step must be an integer, not a {type(value).__name__}")
    if not 0 <= value < 10**12:
        raise BadCheckpoint("the step must be from 0 to 10^12 - 1")
    return value


def read_metrics(value: Any) -> dict[str, float | str]:
    """Return the numbers among the metrics as the service takes them, at most 256.

    Raises:
        BadCheckpoint: one has a name that the service would refuse, or is beyond all floats.
    """
    kept: dict[str, float | str] = {}
    for name, number in value.items() if isinstance(value, dict) else ():
        if not isinstance(number, (int, float)) and number not in _SPELLED:
            continue
        if not 1 <= len(name) <= _NAME_CHARS_MAX or not name.isprintable():
            raise BadCheckpoint(
                f"a metric is named {name[:40]!a}: use 1 to {_NAME_CHARS_MAX} printable characters"
            )
        try:
            kept[name] = number if isinstance(number, str) else spell(number)
        except OverflowError as error:
            raise BadCheckpoint(
                f"the metric {name} is beyond the range of a float: give its logarithm"
            ) from error
        if len(kept) == METRICS_MAX:
            break
    return kept
