"""Credentials as text: how they are made, hashed and checked. Knows no row and no HTTP.

Four kinds, told apart by prefix: `tml-` keys of people and programs, `tms-` cookies of browsers,
`tmn-` credentials of nodes, `tma-` tokens of attempts. The first three are 256 random bits with a
checksum and are stored as SHA-256 only; the last is signed, says what it is for, and expires.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

KEY_PREFIX = "tml-"
SESSION_PREFIX = "tms-"
NODE_PREFIX = "tmn-"
ATTEMPT_PREFIX = "tma-"

_SECRET_BYTES = 32
_CHECKSUM_BYTES = 4
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptClaims:
    """What an attempt token says."""

    attempt_id: str
    node_id: str
    epoch: int
    expires_at: datetime


def new_api_key() -> str:
    """Return a new key of a person or program."""
    return _new_secret(KEY_PREFIX)


def new_session_secret() -> str:
    """Return a new value of a browser's cookie."""
    return _new_secret(SESSION_PREFIX)


def new_node_credential() -> str:
    """Return a new credential of a node."""
    return _new_secret(NODE_PREFIX)


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret: its SHA-256, in hexadecimal.

    A fast hash suffices: the secret has 256 random bits, so there is nothing to guess.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def has_good_checksum(secret: str) -> bool:
    """Whether the checksum fits: a mistyped or made-up secret is refused without a look-up."""
    prefix, text = secret[:4], secret[4:]
    raw = _decode(text)
    if raw is None or len(raw) != _SECRET_BYTES + _CHECKSUM_BYTES:
        return False
    return raw[_SECRET_BYTES:] == _checksum(prefix, raw[:_SECRET_BYTES])


def issue_attempt_token(
    key: bytes, attempt_id: str, node_id: str, epoch: int, expires_at: datetime
) -> str:
    """Return a token for one node's part of one attempt, good until `expires_at`."""
    payload = f"{attempt_id} {node_id} {epoch} {int(expires_at.timestamp())}".encode()
    return ATTEMPT_PREFIX + _encode(_sign(key, payload) + payload)


def verify_attempt_token(key: bytes, token: str, now: datetime) -> AttemptClaims | None:
    """Return what the token says, or None when it is not ours or has expired."""
    raw = _decode(token.removeprefix(ATTEMPT_PREFIX))
    if raw is None or len(raw) <= _MAC_BYTES:
        return None
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _sign(key, payload)):
        return None
    attempt_id, node_id, epoch, expires = payload.decode().split(" ")
    expires_at = datetime.fromtimestamp(int(expires), UTC)
    if expires_at <= now:
        return None
    return AttemptClaims(
        attempt_id=attempt_id, node_id=node_id, epoch=int(epoch), expires_at=expires_at
    )


def _new_secret(prefix: str) -> str:
    raw = secrets.token_bytes(_SECRET_BYTES)
    return prefix + _encode(raw + _checksum(prefix, raw))


def _checksum(prefix: str, raw: bytes) -> bytes:
    return zlib.crc32(prefix.encode() + raw).to_bytes(_CHECKSUM_BYTES, "big")


def _sign(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, b"attempt-token\0" + payload, "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    # One text per secret: trailing bits that decode to nothing are refused.
    return raw if _encode(raw) == text else None
