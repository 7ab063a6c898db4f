"""Which files of a folder stay at home: patterns as in .gitignore. Pure: touches no disk.

Supported: comments, `!` to take back, a trailing `/` for folders only, a leading or inner `/` to
anchor at the top, `*`, `?`, `[…]` and `**`. The last pattern that matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

IGNORE_FILE = ".trainmasterignore"

# What is never wanted in a job, or must not leave by accident. `!` in the file takes back.
DEFAULT_PATTERNS = (
    ".git", ".hg", ".svn", "__pycache__/", "*.py[co]", ".venv/", "venv/", "node_modules/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/", ".ipynb_checkpoints/", ".DS_Store",
    ".env", IGNORE_FILE,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One line of an ignore file."""

    regex: re.Pattern[str]
    folders_only: bool
    takes_back: bool


def parse_patterns(lines: Iterable[str]) -> list[Pattern]:
    """Return the patterns of an ignore file; empty lines and comments are none."""
    parsed = (_parse_pattern(line.rstrip("\r\n")) for line in lines)
    return [pattern for pattern in parsed if pattern is not None]


def is_ignored(path: str, patterns: Iterable[Pattern], *, is_folder: bool) -> bool:
    """Whether the path, relative to the top and with `/`, stays at home.

    Its parents are not looked at: who walks a tree does not enter an ignored folder.
    """
    ignored = False
    for pattern in patterns:
        if pattern.folders_only and not is_folder:
            continue
        if pattern.regex.fullmatch(path):
            ignored = not pattern.takes_back
    return ignored


def _parse_pattern(line: str) -> Pattern | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    takes_back = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    anchored = "/" in text
    regex = _translate(text.lstrip("/"))
    return Pattern(
        regex=re.compile(regex if anchored else f"(?:.*/)?{regex}", re.DOTALL),
        folders_only=folders_only,
        takes_back=takes_back,
    )


_TOKEN = re.compile(
    r"(?P<deep>\*\*/)|(?P<rest>/\*\*$)|(?P<star>\*+)|(?P<one>\?)|(?P<set>\[[^\]/]+\])"
)


def _translate(text: str) -> str:
    out, position = "", 0
    for match in _TOKEN.finditer(text):
        out += re.escape(text[position : match.start()])
        position = match.end()
        if match["deep"]:
            out += "(?:.*/)?"
        elif match["rest"]:
            out += "/.*"
        elif match["star"]:
            out += "[^/]*"
        elif match["one"]:
            out += "[^/]"
        else:
            inner = match["set"][1:-1].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[^{inner[1:]}]" if inner[0] in "!^" and len(inner) > 1 else f"[{inner}]"
    return out + re.escape(text[position:])
