"""Every pattern that a request is held against can be said in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api import shapes

ROOT = Path(__file__).resolve().parents[3]


def _patterns(value: Any) -> set[str]:
    if isinstance(value, list):
        return {found for part in value for found in _patterns(part)}
    if not isinstance(value, dict):
        return set()
    own = {value["pattern"]} if isinstance(value.get("pattern"), str) else set()
    return own | {found for part in value.values() for found in _patterns(part)}


def test_every_pattern_of_the_document_has_words() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())

    assert _patterns(document) - set(shapes.WORDS) == set()


@pytest.mark.parametrize("words", shapes.WORDS.values())
def test_words_show_no_pattern(words: str) -> None:
    assert not re.search(r"[\^$\[\]{}]", words)


@pytest.mark.parametrize("text", ["", "é x", "日本", "a'b\"c"])
def test_names_may_be_in_any_script(text: str) -> None:
    assert re.fullmatch(shapes.TEXT, text)


@pytest.mark.parametrize("text", ["\0", "\n", "\x1b[2J", "\x85", "\u2028", "\u202e", "\ufeff"])
def test_names_hide_and_turn_nothing(text: str) -> None:
    assert not re.fullmatch(shapes.TEXT, f"a{text}b")


@pytest.mark.parametrize("header", ['"4.ab"', 'W/"4"', "*", ' "a" , W/"b"'])
def test_entity_tags_are_those_of_rfc_9110(header: str) -> None:
    assert re.fullmatch(shapes.ENTITY_TAGS, header)
