"""docs/modes.md shows the table that the rules of a spec make, and explains each refusal in it."""

from pathlib import Path

from tests.modes.cells import iter_cells, render_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "modes.md"


def test_the_page_shows_the_table_of_the_rules() -> None:
    assert render_table() in PAGE.read_text(), "python -m tests.modes.cells prints the new one"


def test_every_refusal_is_explained() -> None:
    text = PAGE.read_text()
    codes = {problem.code for cell in iter_cells() for problem in cell.problems}

    assert [code for code in sorted(codes) if f"| `{code}` |" not in text] == []
