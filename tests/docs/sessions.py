"""Runs the commands of a page in one shell and compares what they print with what it shows."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import Step

_MARK = "--- step-ended "
# What differs from run to run is compared by its kind.
_KINDS = (
    r"\.\.\.|…",
    r"\b(?:job|att|ckpt|file|node|key|quo|evt|req)_[0-9a-z]+",
    r"\b[0-9a-f]{64}\b",
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?",
    r"\b\d+\.\d+\b",
)
_VARYING = re.compile("|".join(f"({kind})" for kind in _KINDS))


@dataclass(frozen=True)
class Outcome:
    """What one step printed (both streams) and its exit code; None when it was not reached."""

    step: Step
    printed: str
    code: int | None

    @property
    def is_as_shown(self) -> bool:
        return self.code == 0 and prints_as_shown(self.step.output, self.printed)

    def __str__(self) -> str:
        return (
            f"$ {self.step.command}\n[exit code {self.code}] printed:\n{self.printed}"
            f"the page shows:\n{self.step.output}"
        )


def run_steps(
    steps: Sequence[Step], *, folder: Path, environment: Mapping[str, str], timeout_s: float
) -> list[Outcome]:
    """Run the steps in one bash, so that variables and folders carry over; stop at a failure."""
    script = "".join(
        f'{step.command}\ncode=$?; echo "{_MARK}$code"; [ $code = 0 ] || exit 0\n' for step in steps
    )
    try:
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as expired:
        done = expired.stdout or b""
    parts = re.split(rf"{re.escape(_MARK)}(\d+)\n", done.decode(errors="replace"))
    printed, codes = parts[::2], [int(code) for code in parts[1::2]]
    return [
        Outcome(
            step,
            printed[place] if place < len(printed) else "",
            codes[place] if place < len(codes) else None,
        )
        for place, step in enumerate(steps)
    ]


def prints_as_shown(shown: str, printed: str) -> bool:
    """Return whether the text is what a page shows, up to ids, times, fractions and `...`.

    A page that shows nothing promises nothing.
    """
    if not shown.strip():
        return True
    pattern, end = "", 0
    for found in _VARYING.finditer(shown.strip()):
        assert found.lastindex is not None
        pattern += _literal(shown.strip()[end : found.start()]) + _kind(found)
        end = found.end()
    pattern += _literal(shown.strip()[end:])
    # What is left out may be nothing: of what is followed live, logs and states come as they come.
    pattern = pattern.replace(r"\s+.*?\s+", r"\s+(?:.*?\s+)?")
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def _kind(found: re.Match[str]) -> str:
    if found.lastindex == 1:
        return ".*?"
    if found.lastindex == 2:
        prefix = found.group().partition("_")[0]
        return rf"{prefix}_[0-9a-z]+"
    assert found.lastindex is not None
    return f"(?:{_KINDS[found.lastindex - 1]})"


def _literal(text: str) -> str:
    # Columns are as wide as the widest id of the day.
    return r"\s+".join(re.escape(word) for word in re.split(r"\s+", text))
