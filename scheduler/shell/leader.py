"""One scheduler leads: a lease row with a term.

Leading only avoids wasted work. Every decision is compare-and-set, so two leaders are harmless.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from models.database import Database
from models.node import Lease


def try_lead(
    database: Database, *, name: str, holder: str, now: datetime, duration: timedelta
) -> bool:
    """Take or renew the lease `name` for `holder`; False while another one holds it."""
    try:
        with database.write() as session:
            lease = session.get(Lease, name)
            if lease is None:
                session.add(Lease(name=name, holder=holder, term=1, expires_at=now + duration))
                return True
            if lease.holder != holder and lease.expires_at > now:
                return False
            term = lease.term + (lease.holder != holder)
            taken = session.execute(
                update(Lease)
                .where(Lease.name == name, Lease.holder == lease.holder, Lease.term == lease.term)
                .values(holder=holder, term=term, expires_at=now + duration)
                .execution_options(synchronize_session=False)
            )
            return bool(taken.rowcount)  # type: ignore[attr-defined]  # an UPDATE gives a cursor result
    except IntegrityError:
        return False  # somebody inserted the row first
