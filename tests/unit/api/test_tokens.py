"""Credentials as text: checksums, signatures, expiry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth import tokens

KEY = bytes(range(32))
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (tokens.new_api_key, "tml-"),
        (tokens.new_session_secret, "tms-"),
        (tokens.new_node_credential, "tmn-"),
    ],
)
def test_secrets_have_their_prefix_a_checksum_and_256_random_bits(
    make: Callable[[], str], prefix: str
) -> None:
    made = {make() for _ in range(200)}

    assert len(made) == 200
    assert all(one.startswith(prefix) and tokens.has_good_checksum(one) for one in made)
    assert {len(one) for one in made} == {len(prefix) + 48}


def test_a_changed_secret_is_refused_without_a_look_up() -> None:
    secret = tokens.new_api_key()

    for place in range(len(secret)):
        changed = secret[:place] + ("A" if secret[place] != "A" else "B") + secret[place + 1 :]
        assert not tokens.has_good_checksum(changed)
    assert not tokens.has_good_checksum("tmn-" + secret[4:])


@given(st.text())
def test_no_text_is_a_good_secret_by_accident(text: str) -> None:
    assert not tokens.has_good_checksum(text)
    assert tokens.verify_attempt_token(KEY, text, NOW) is None
    assert tokens.verify_attempt_token(KEY, "tma-" + text, NOW) is None


def _issue(expires_at: datetime, key: bytes = KEY) -> str:
    return tokens.issue_attempt_token(key, "att_1", "node_1", 3, expires_at)


def test_an_attempt_token_says_what_it_is_for() -> None:
    claims = tokens.verify_attempt_token(KEY, _issue(NOW + timedelta(minutes=10)), NOW)

    assert claims == tokens.AttemptClaims(
        attempt_id="att_1", node_id="node_1", epoch=3, expires_at=NOW + timedelta(minutes=10)
    )


def test_an_attempt_token_ends_when_it_says() -> None:
    token = _issue(NOW + timedelta(seconds=10))

    assert tokens.verify_attempt_token(KEY, token, NOW + timedelta(seconds=9)) is not None
    assert tokens.verify_attempt_token(KEY, token, NOW + timedelta(seconds=10)) is None


def test_a_token_of_another_key_or_with_another_letter_is_none() -> None:
    token = _issue(NOW + timedelta(minutes=1))

    assert tokens.verify_attempt_token(bytes(32), token, NOW) is None
    for place in range(4, len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert tokens.verify_attempt_token(KEY, changed, NOW) is None
