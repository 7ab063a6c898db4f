"""From a secret to who stands behind it. Remembers good answers for seconds, never bad ones.

A revoked key works for `TTL_SECONDS` more at most; in the process that revoked it, not at all.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from sqlalchemy import select

from api.auth.callers import AttemptCaller, Caller, NodeCaller, Principal
from api.auth.tokens import (
    ATTEMPT_PREFIX,
    KEY_PREFIX,
    NODE_PREFIX,
    SESSION_PREFIX,
    has_good_checksum,
    hash_secret,
    verify_attempt_token,
)
from models import ApiKey, BrowserSession, Database, Node, Project

TTL_SECONDS = 3.0
_REMEMBERED_MAX = 10_000


class Credentials:
    """Looks secrets up; safe to use from any thread."""

    def __init__(self, database: Database, signing_key: bytes) -> None:
        self._database = database
        self._signing_key = signing_key
        self._lock = threading.Lock()
        self._remembered: dict[str, tuple[float, Principal]] = {}

    def recall(self, secret: str) -> Principal | None:
        """Return who stands behind `secret` if that is known without asking the database."""
        if secret.startswith(ATTEMPT_PREFIX):
            claims = verify_attempt_token(self._signing_key, secret, datetime.now(UTC))
            if claims is None:
                return None
            return AttemptCaller(
                attempt_id=claims.attempt_id, node_id=claims.node_id, epoch=claims.epoch
            )
        with self._lock:
            found = self._remembered.get(secret)
        if found is None or found[0] < time.monotonic():
            return None
        return found[1]

    def look_up(self, secret: str) -> Principal | None:
        """Return who stands behind `secret`, None when nobody does (any more)."""
        if not has_good_checksum(secret):
            return None
        remember_until = time.monotonic() + TTL_SECONDS
        principal = self._find(secret, datetime.now(UTC))
        if principal is not None:
            with self._lock:
                if len(self._remembered) >= _REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[secret] = (remember_until, principal)
        return principal

    def forget_all(self) -> None:
        """Ask the database again for every secret: one of them may have been revoked."""
        with self._lock:
            self._remembered.clear()

    def _find(self, secret: str, now: datetime) -> Principal | None:
        digest = hash_secret(secret)
        with self._database.read() as session:
            if secret.startswith(NODE_PREFIX):
                node_id = session.scalar(select(Node.id).where(Node.credential_sha256 == digest))
                return NodeCaller(node_id=node_id) if node_id is not None else None
            statement = select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id)
            session_id = None
            if secret.startswith(KEY_PREFIX):
                statement = statement.where(ApiKey.secret_sha256 == digest)
            elif secret.startswith(SESSION_PREFIX):
                browser = session.scalar(
                    select(BrowserSession).where(BrowserSession.secret_sha256 == digest)
                )
                if browser is None or browser.expires_at <= now:
                    return None
                session_id = browser.id
                statement = statement.where(ApiKey.id == browser.key_id)
            else:
                return None
            row = session.execute(statement).one_or_none()
        if row is None or not _is_good(row[0], now):
            return None
        key, project = row
        return Caller(
            key_id=key.id,
            project_id=key.project_id,
            project=project,
            role=key.role,
            session_id=session_id,
        )


def _is_good(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
