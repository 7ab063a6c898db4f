"""Carries all open verifications on. Level-triggered: right when every wake-up is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm.exc import StaleDataError

from api.jobs.desk import Desk
from api.storage import LocalStorage
from api.verification.carry_on import carry_on, conclude
from api.verification.verdict import given_up
from models.queries.jobs import JOBS_TOPIC
from models.queries.verifications import VERIFICATIONS_TOPIC, list_open_ids
from scheduler.core.errors import ServiceError

log = structlog.get_logger()

# Jobs come and go by the hundred a second; nobody waits for a verdict that closely.
_BREATH_S = 0.2
FAILURES_MAX, FAILING_FOR = 5, timedelta(minutes=1)
"""So many looks in a row, over so long, may fail before a verification ends without an answer."""


class Verifier:
    """Looks at open verifications until it is told to stop."""

    def __init__(
        self, desk: Desk, storage: LocalStorage, clock: Callable[[], datetime], *, poll_s: float
    ) -> None:
        """`poll_s` is the longest time between two looks, however quiet the doorbell is."""
        self._desk, self._storage, self._clock, self._poll_s = desk, storage, clock, poll_s
        self._stopped = threading.Event()
        self._failures: dict[str, tuple[datetime, int]] = {}

    def run(self) -> None:
        """Look after look, until `stop`."""
        doorbell = self._desk.database.doorbell
        num_open = 0
        while not self._stopped.is_set():
            since = {topic: doorbell.count(topic) for topic in (JOBS_TOPIC, VERIFICATIONS_TOPIC)}
            try:
                num_open = self.run_once()
            except Exception:
                log.exception("looking at verifications failed; trying again")
            self._stopped.wait(_BREATH_S)
            # A job that ends rings for whoever may take its place; without one to wait for, only
            # a new verification is of interest.
            topic = JOBS_TOPIC if num_open else VERIFICATIONS_TOPIC
            doorbell.wait(topic, since=since[topic], timeout_s=self._poll_s)

    def stop(self) -> None:
        """End `run` at the next opportunity."""
        self._stopped.set()
        self._desk.database.doorbell.ring([JOBS_TOPIC, VERIFICATIONS_TOPIC])

    @property
    def failing_ids(self) -> frozenset[str]:
        """The open verifications whose last look failed."""
        return frozenset(self._failures)

    def run_once(self) -> int:
        """Carry each on as far as it goes now; return how many are open afterwards."""
        with self._desk.database.read() as session:
            ids = list_open_ids(session)
        for verification_id in ids:
            try:
                error = self._try_to_carry_on(verification_id)
                if error is None:
                    self._failures.pop(verification_id, None)
                else:
                    self._note_failure(verification_id, error)
            except (StaleDataError, IntegrityError):
                log.info("overtaken; the next look sees why", verification=verification_id)
        with self._desk.database.read() as session:
            open_ids = frozenset(list_open_ids(session))
        # One that failed may have ended otherwise since, by being called off for one.
        self._failures = {one: seen for one, seen in self._failures.items() if one in open_ids}
        return len(open_ids)

    def _try_to_carry_on(self, verification_id: str) -> Exception | None:
        """Carry one on as far as it goes; return what keeps it from that by its own fault.

        Raises:
            StaleDataError, IntegrityError: another process was faster.
            OperationalError, InterfaceError: the database is away: that is nobody's verdict.
        """
        try:
            while carry_on(self._desk, self._storage, verification_id, now=self._clock()):
                log.info("verification carried on", verification=verification_id)
        except (StaleDataError, IntegrityError, OperationalError, InterfaceError):
            raise
        except Exception as error:
            # The others are not to wait for one that cannot be carried on.
            log.exception("a verification fails", verification=verification_id)
            # Nor does it end for what somebody else will mend, such as a disk that is full.
            is_passing = isinstance(error, ServiceError) and error.is_retryable
            return None if is_passing else error
        return None

    def _note_failure(self, verification_id: str, error: Exception) -> None:
        """Try it again at the next look, but not for ever: whoever waits is to get an answer."""
        now = self._clock()
        first_at, count = self._failures.get(verification_id, (now, 0))
        self._failures[verification_id] = (first_at, count + 1)
        if count + 1 >= FAILURES_MAX and now >= first_at + FAILING_FOR:
            conclude(self._desk, verification_id, given_up(error, count + 1), now=now)
