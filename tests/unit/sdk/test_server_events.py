"""Server-sent events are read the same, however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster._stream import ServerEvent, iter_server_events

STREAM = (
    b"\xef\xbb\xbf: welcome\n\n"
    b'id: 1\nevent: log\ndata: {"text": "caf\xc3\xa9 \xe2\x9c\x93"}\n\n'
    b"id:2\r\nevent:log\r\ndata:one\r\ndata: two\r\n\r\n"
    b"retry: 2000\rdata\rdata: x\r\r"
    b": heartbeat\n\n"
    b"event: empty\n\n"
    b"data: a\xe2\x80\xa8b\x0bc\n\n"
    b"data: no end"
)
EVENTS = [
    ServerEvent(event="log", data='{"text": "café ✓"}', id="1"),
    ServerEvent(event="log", data="one\ntwo", id="2"),
    ServerEvent(event="message", data="\nx"),
    ServerEvent(event="message", data="a\u2028b\x0bc"),
]


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM))))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:stop] for start, stop in itertools.pairwise(places)]

    assert list(iter_server_events(pieces)) == EVENTS


@given(st.binary())
def test_no_bytes_are_too_odd(data: bytes) -> None:
    list(iter_server_events([data]))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(
            b"id: 1\n\ndata: x\n\n", [ServerEvent(event="message", data="x")], id="own id"
        ),
        pytest.param(b"id: a\0b\ndata: x\n\n", [ServerEvent(event="message", data="x")], id="NUL"),
        pytest.param(b"data:  x\n\n", [ServerEvent(event="message", data=" x")], id="one blank"),
        pytest.param(b"unknown: x\n\n", [], id="unknown fields"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_fields_are_read_as_the_standard_says(text: bytes, want: list[ServerEvent]) -> None:
    assert list(iter_server_events([text])) == want
