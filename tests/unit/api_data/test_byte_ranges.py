"""One range is served, several are not, and nothing outside of the bytes is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ranges import ByteRange, Unsatisfiable, matches_etag, parse_range


@pytest.mark.parametrize(
    ("header", "want"),
    [
        pytest.param(None, None, id="no header: the whole"),
        pytest.param("bytes=0-0", ByteRange(0, 1), id="the first byte"),
        pytest.param("bytes=2-", ByteRange(2, 10), id="from an offset on"),
        pytest.param("bytes=-3", ByteRange(7, 10), id="the last three"),
        pytest.param("bytes=-99", ByteRange(0, 10), id="more than there are from the end"),
        pytest.param("bytes=5-99", ByteRange(5, 10), id="beyond the end"),
        pytest.param("BYTES = 1 - 2", ByteRange(1, 3), id="spaces and capitals"),
        pytest.param("bytes=0-1,4-5", None, id="several: the whole"),
        pytest.param("bytes=5-2", None, id="backwards: the whole"),
        pytest.param("bytes=-", None, id="nothing said: the whole"),
        pytest.param("lines=0-1", None, id="another unit: the whole"),
        pytest.param("bytes=0-" + "9" * 30, None, id="an absurd number: the whole"),
    ],
)
def test_a_range_header_is_read_as_the_rfc_has_it(
    header: str | None, want: ByteRange | None
) -> None:
    assert parse_range(header, 10) == want


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_outside_of_the_bytes_is_refused(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 10)


@given(header=st.text(max_size=30), size_bytes=st.integers(0, 100))
def test_whatever_the_header_says_the_range_lies_inside(header: str, size_bytes: int) -> None:
    try:
        found = parse_range(f"bytes={header}", size_bytes)
    except Unsatisfiable:
        return

    assert found is None or 0 <= found.start < found.stop <= size_bytes


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
    ],
)
def test_validators_are_compared_weakly(header: str | None, want: bool) -> None:
    assert matches_etag(header, '"a"') is want
