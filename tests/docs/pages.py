"""Reads the documentation: code blocks with their markers, links, headings. Runs nothing.

Every block of commands says how it is tested, in a comment on the line before it:

    <!-- run -->                              run by tests/docs, its output compared
    <!-- tested in tests/e2e/test_x.py::test_y -->    run by that test
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LANGUAGES = frozenset({"console", "bash", "sh", "shell"})

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
_MARKER = re.compile(r"^\s*<!--\s*(?P<text>.*?)\s*-->\s*$")
_TESTED_IN = re.compile(r"^tested in (?P<path>\S+)::(?P<name>\w+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Step:
    """One command as typed at the prompt, and what the page shows it to print."""

    command: str
    output: str


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    path: str
    line: int
    language: str
    marker: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.marker == "run"

    @property
    def tested_in(self) -> tuple[str, str] | None:
        """The file and the name of the test that runs this block."""
        found = _TESTED_IN.match(self.marker)
        return (found["path"], found["name"]) if found else None

    @property
    def steps(self) -> list[Step]:
        """The commands in order. Without a prompt (`$ `), the block is one script."""
        if not self.text.startswith("$ "):
            return [Step(self.text, "")]
        steps: list[Step] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], ""))
                continue
            last = steps[-1]
            if line.startswith("> ") or (last.command.endswith("\\") and not last.output):
                steps[-1] = Step(f"{last.command}\n{line.removeprefix('> ')}", "")
            else:
                steps[-1] = Step(last.command, f"{last.output}{line}\n")
        return steps


def list_pages() -> list[Path]:
    """Return every page of the documentation."""
    return sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sdk/*.md")})


def parse_blocks(path: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    blocks: list[Block] = []
    fence: re.Match[str] | None = None
    start, marker, content = 0, "", list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is None:
            fence = _FENCE.match(line)
            start, content = number, []
            if fence is None and line.strip():
                comment = _MARKER.match(line)
                marker = comment["text"] if comment else ""
        elif line.strip() == "```":
            body = "\n".join(content) + "\n"
            blocks.append(Block(path, start, fence["language"], marker, body))
            fence, marker = None, ""
        else:
            content.append(line.removeprefix(fence["indent"]))
    return blocks


def parse_links(text: str) -> list[str]:
    """Return the targets of the links of a page, code left out."""
    return [found["target"] for found in _LINK.finditer(_without_code(text))]


def parse_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _without_code(text, spans=False), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def _without_code(text: str, *, spans: bool = True) -> str:
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text) if spans else text
