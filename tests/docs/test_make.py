"""The commands that pages tell people to type into make exist, and `make` lists them."""

import re
import subprocess

from tests.docs.pages import ROOT, list_pages


def list_targets() -> set[str]:
    """Return what `make` alone lists."""
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"^  make ([a-z-]+) ", listed.stdout, re.MULTILINE))


def test_make_alone_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text()

    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))

    assert {"demo", "test", "check", "fix", "bench", "serve"} <= described
    assert list_targets() == described


def test_the_documented_commands_are_targets() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in list_pages())

    documented = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", text, re.MULTILINE))

    assert documented <= list_targets()
