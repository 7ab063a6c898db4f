"""What all tables share: naming, identifiers, instants. Knows no table."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    String,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

ID_LENGTH = 40
Id = String(ID_LENGTH)
Name = String(128)
# Of rows that come by the thousand a second. SQLite counts in 64 bits, but only under this name.
Serial = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant in UTC; naive ones are refused, on SQLite and PostgreSQL alike."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; SQLite keeps no zone, so none is given to it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("instants carry their zone: use datetime.now(UTC)")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware instant."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it as a class attribute
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_last = (0, 0)
_lock = threading.Lock()


def new_id(prefix: str) -> str:
    """Return `prefix_` and a ULID in lower case: sortable by creation, 80 random bits.

    Within one process ids of the same millisecond still ascend, so submit order is id order.
    """
    global _last  # noqa: PLW0603  the generator's only state
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        last_ms, last_random = _last
        if now_ms <= last_ms:
            # The clock stood still or went back: stay ascending.
            now_ms, random = last_ms, last_random + 1 + int.from_bytes(os.urandom(4), "big")
        else:
            # The top bit is left free so that counting up never overflows.
            random = int.from_bytes(os.urandom(10), "big") >> 1
        _last = (now_ms, random)
    value = (now_ms << 80) | random
    return f"{prefix}_{''.join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))}"
