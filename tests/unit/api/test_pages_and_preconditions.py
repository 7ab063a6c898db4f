"""Cursors and ETags: what is ours is read, everything else refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import BadCursor, BadParameter, PreconditionFailed
from api.pages import cut_page, issue_cursor, read_cursor
from api.preconditions import check_version, is_unchanged
from api.suggest import did_you_mean

KEY = bytes(range(32))


@given(st.integers() | st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_gives_back_its_key(key: int | str) -> None:
    assert read_cursor(KEY, "jobs", issue_cursor(KEY, "jobs", key)) == key


@given(st.text(max_size=80))
def test_made_up_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        read_cursor(KEY, "jobs", cursor)


def test_a_cursor_of_another_list_or_service_is_refused() -> None:
    cursor = issue_cursor(KEY, "jobs", "job_1")

    for key, name in ((KEY, "keys"), (bytes(32), "jobs")):
        with pytest.raises(BadCursor):
            read_cursor(key, name, cursor)


def test_a_page_is_cut_where_the_next_begins() -> None:
    rows, has_more, cursor = cut_page(KEY, "l", ["a", "b", "c"], [1, 2, 3], 2)

    assert (list(rows), has_more) == (["a", "b"], True)
    assert cursor is not None
    assert read_cursor(KEY, "l", cursor) == 2
    assert cut_page(KEY, "l", ["a"], [1], 2) == (["a"], False, None)


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, False),
        ("*", True),
        ('"3.abc"', True),
        ('W/"3.abc"', True),
        ('"1.x", "3.abc"', True),
        ('"3.abd"', False),
        ('"3"', False),
    ],
)
def test_reads_compare_the_whole_etag(header: str | None, want: bool) -> None:
    assert is_unchanged(header, '"3.abc"') is want


@pytest.mark.parametrize("header", [None, "*", '"3"', '"3.0ab"', '"1.a", "3.b"'])
def test_changes_compare_the_version(header: str | None) -> None:
    check_version(header, "job", 3)


@pytest.mark.parametrize("header", ['"4"', '"33.a"', '""', '"x"', '"99999999999"'])
def test_changes_of_another_version_are_refused(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        check_version(header, "job", 3)


@pytest.mark.parametrize("header", ["3", "", '"3', '"3" "4"', "x"])
def test_what_is_no_etag_is_told(header: str) -> None:
    with pytest.raises(BadParameter):
        check_version(header, "job", 3)


@pytest.mark.parametrize(
    ("name", "known", "want"),
    [
        ("wrokers", ["workers", "name"], "did you mean workers?"),
        ("zzz", ["workers", "name"], "known: name, workers"),
        ("x", [], "there are none here, leave it out"),
        ("x" * 10_000, ["name"], "known: name"),
    ],
)
def test_a_mistyped_name_is_answered_with_what_is_known(
    name: str, known: list[str], want: str
) -> None:
    assert did_you_mean(name, known) == want
