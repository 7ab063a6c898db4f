"""The JSON that is taken, and that everything taken is what the standard parser says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import MalformedJson
from api.strict import DEPTH_MAX, parse_json

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(_DOCUMENTS, st.booleans())
def test_good_documents_come_through_unchanged(document: Any, ensure_ascii: bool) -> None:
    body = json.dumps(document, ensure_ascii=ensure_ascii).encode()

    assert parse_json(body) == document


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_refusal(body: bytes) -> None:
    try:
        document = parse_json(body)
    except MalformedJson:
        return

    assert parse_json(json.dumps(document, allow_nan=False).encode()) == document


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"0.1234567890123456789012345", 0.1234567890123456789),
        (b"1e308", 1e308),
        (b"1e-400", 0.0),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', r"\ud800"),
        (rb'"\\u0000"', r"\u0000"),
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, None),
        (b"[" + b"[],[]," * 500 + b"[]]", None),
    ],
)
def test_what_looks_suspicious_and_is_fine(body: bytes, document: Any) -> None:
    parsed = parse_json(body)

    if document is not None:
        assert parsed == document


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"[1,", "line 1"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e309", "64-bit floats"),
        (b"1" * 400 + b".0", "64-bit floats"),
        (b"9223372036854775808", "64 bits"),
        (b"1" * 5000, "digits"),
        (rb'"\udc00"', "surrogate"),
        (rb'{"\ud800": 1}', "surrogate"),
        (rb'["\u0000"]', "NUL"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b"\xc3\x28", "UTF-8"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "levels"),
        (b"[" * 500_000, "levels"),
    ],
)
def test_what_is_refused_says_why(body: bytes, words: str) -> None:
    with pytest.raises(MalformedJson, match=words):
        parse_json(body)
