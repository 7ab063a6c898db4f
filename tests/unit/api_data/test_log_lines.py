"""Lines are the same wherever one begins to read, and together they are the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.logs.lines import CUT_BYTES, Line, LineSplitter, find_start

# Short lines, lines about as long as a cut, very long ones; plain, with text of several bytes per
# character, and with bytes that are no text at all.
PIECES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"\n", b"x" * (CUT_BYTES - 2), "€".encode() * CUT_BYTES, b"\x80" * 70_000]),
)
LOGS = st.lists(PIECES, max_size=8).map(b"".join)


def split(log: bytes, sizes: list[int], start: int = 0) -> list[Line]:
    """Return the lines of `log` from `start` on, fed in pieces of these sizes, the rest last."""
    splitter = LineSplitter(start)
    lines, position = [], start
    for size in sizes:
        lines += splitter.feed(log[position : position + size])
        position += size
    lines += splitter.feed(log[position:])
    rest = splitter.find_rest()
    return lines if rest is None else [*lines, rest]


@given(log=LOGS)
def test_lines_put_together_are_the_log(log: bytes) -> None:
    lines = split(log, [])

    assert b"".join(line.data + b"\n" * line.has_newline for line in lines) == log


@given(log=LOGS, sizes=st.lists(st.integers(0, 100_000), max_size=6))
def test_the_pieces_in_which_a_log_comes_do_not_matter(log: bytes, sizes: list[int]) -> None:
    assert split(log, sizes) == split(log, [])


@given(log=LOGS, offset=st.integers(0, 300_000))
def test_who_begins_late_sees_the_same_lines(log: bytes, offset: int) -> None:
    offset = min(offset, len(log))
    late = LineSplitter(find_start(offset))
    late.feed(log[find_start(offset) : offset])

    seen = late.feed(log[offset:])

    whole = LineSplitter()
    assert seen == [line for line in whole.feed(log) if line.known_at > offset]
    assert late.find_rest() == whole.find_rest()


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param("é", id="two bytes"),
        pytest.param("€", id="three bytes"),
        pytest.param("😀", id="four bytes"),
    ],
)
def test_a_cut_never_tears_a_character(torn: str) -> None:
    width = len(torn.encode())
    for shift in range(width):
        log = b"x" * (CUT_BYTES - shift) + torn.encode() * 10

        first = split(log, [])[0]

        assert first.text == "x" * (CUT_BYTES - shift)


def test_what_is_no_text_is_shown_as_replacement_characters() -> None:
    (line,) = split(b"a\xffb\n", [])

    assert line.text == "a\ufffdb"
