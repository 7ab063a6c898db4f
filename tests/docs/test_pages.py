"""The documentation's links, words and tables are true."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from api.settings import CHECKOUT, Settings
from tests.docs.pages import ROOT, list_pages, parse_anchors, parse_links

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
# Promises that nobody can check, and work that is not done.
FORBIDDEN = re.compile(
    r"\b(blazing\w*|seamless\w*|effortless\w*|revolution\w*|game-chang\w*|cutting-edge|world-class"
    r"|TODO|FIXME|XXX|TBD|coming soon|lorem ipsum)\b",
    re.IGNORECASE,
)

PAGES = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in list_pages()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    assert not find_dead_links(page)


@pytest.mark.parametrize("page", PAGES)
def test_pages_promise_only_what_can_be_checked(page: Path) -> None:
    assert not FORBIDDEN.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_no_folder_of_the_machine_they_were_written_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert str(ROOT) not in text
    assert not re.search(r"(?<![\w.])/(home|Users)/\w+", text)


def test_the_settings_page_lists_every_setting_as_it_is() -> None:
    rows = [
        line
        for line in SETTINGS_PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `TRAINMASTER_")
    ]

    assert rows == render_settings(), "the table should be:\n" + "\n".join(render_settings())


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](missing.md)", ["missing.md"]),
        ("[a](#nowhere)", ["#nowhere"]),
        ("[a](other.md#nowhere)", ["other.md#nowhere"]),
        ("[a](http://example.org/)", ["http://example.org/"]),
        ("# Set up\n[a](#set-up) [b](other.md#what-else) [c](https://example.org/)", []),
        ("`[a](missing.md)`\n\n```\n[a](missing.md)\n```\n", []),
    ],
)
def test_a_dead_link_is_found(tmp_path: Path, text: str, dead: list[str]) -> None:
    (tmp_path / "other.md").write_text("# What else?\n")
    (tmp_path / "page.md").write_text(text)

    assert find_dead_links(tmp_path / "page.md") == dead


def find_dead_links(page: Path) -> list[str]:
    """Return the links that lead nowhere; what is elsewhere must at least be https."""
    dead: list[str] = []
    for target in parse_links(page.read_text(encoding="utf-8")):
        if re.match(r"https://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in parse_anchors(file.read_text())):
            dead.append(target)
    return dead


def render_settings() -> list[str]:
    """Return the rows of the settings table, made from the settings themselves."""
    rows: list[str] = []
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        rows.append(
            f"| `TRAINMASTER_{name.upper()}` | {show(field.default)} | {field.description} |"
        )
    return rows


def show(default: object) -> str:
    """Return a default as the page shows it: nothing for nothing, paths from the checkout."""
    match default:
        case None | ():
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case Path() if default.is_relative_to(CHECKOUT):
            return f"`{default.relative_to(CHECKOUT)}`"
        case tuple():
            return f"`{','.join(default)}`"
        case _:
            return f"`{default}`"
