"""Text from strangers does nothing on a terminal."""

import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.cli.text import (
    clean_cell,
    clean_for_terminal,
    format_age,
    format_bytes,
    format_seconds,
    format_table,
    sparkline,
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;Y29weQ==\x1b\\after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bcreset", "reset"),
        ("\x1b[2J\x1b[H", ""),
        ("\x1bP+q\x1b\\x", "x"),
        ("a\x08b\x00c\x7fd\x9b31me", "abcd31me"),
        ("10%\r20%\r\nnext", "10%\n20%\nnext"),
        ("\u202eevil\u2066", "evil"),
        ("tab\tand ünïcode ✓ 漢字", "tab\tand ünïcode ✓ 漢字"),
    ],
)
def test_what_a_terminal_would_obey_is_gone(text: str, want: str) -> None:
    assert clean_for_terminal(text) == want


@given(st.text(st.characters(), max_size=60))
def test_nothing_that_is_left_is_a_control_character(text: str) -> None:
    clean = clean_for_terminal(text)

    assert {each for each in clean if unicodedata.category(each) == "Cc"} <= {"\t", "\n"}
    clean.encode()


@given(st.text(st.characters(), max_size=60))
def test_a_cell_is_one_line(text: str) -> None:
    assert len(clean_cell(text).splitlines()) <= 1 or "\u2028" in text or "\u2029" in text
    assert "\t" not in clean_cell(text)


def test_a_table_is_cut_on_a_terminal_and_whole_elsewhere() -> None:
    head, rows = ["ID", "WHY"], [["job_1", "because of everything"]]

    assert list(format_table(head, rows, width=None)) == ["ID\tWHY", "job_1\tbecause of everything"]
    assert list(format_table(head, rows, width=15)) == ["ID     WHY", "job_1  because…"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-1, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3725, "1 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_sizes_and_ages() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)

    assert [format_bytes(size) for size in (0, 1023, 1024, 5 * 1024**3)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
    ]
    assert format_age(now - timedelta(seconds=5), now=now) == "5 s"
    assert format_age(None) == "-"


def test_a_sparkline_shows_the_shape_and_the_gaps() -> None:
    assert sparkline([0, 1, 2, 3], width=3) == "▁▅█"
    assert sparkline([5, 5], width=9) == "▁▁"
    assert sparkline([0, float("nan"), 1, float("inf")], width=9) == "▁ █ "
    assert sparkline([float("nan")], width=9) == ""
