"""Wake, look, decide, apply. Level-triggered: right when every wake-up is lost, doubled or late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError

from models.database import Database
from models.queries.jobs import JOBS_TOPIC
from scheduler.core.cluster import ClusterView
from scheduler.core.step import Observed, step
from scheduler.shell.apply import apply_decisions
from scheduler.shell.leader import try_lead
from scheduler.shell.reconcile import reconcile
from scheduler.shell.snapshot import read_cluster

log = structlog.get_logger()

_BREATH_S_MAX = 0.1

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How patient the scheduler is.

    Attributes:
        poll: the longest time between two looks, however quiet the doorbell is.
        lease: how long a supervisor may be silent before its attempt is lost.
        leader_lease: how long a silent scheduler keeps the lead.
        silence_max: how long a node may be silent and still get new work.
        reconcile_every: the least time between two looks for what nobody reports.
        debounce_s: the least time between two passes.
    """

    holder: str
    poll: timedelta
    lease: timedelta
    leader_lease: timedelta
    silence_max: timedelta
    reconcile_every: timedelta = timedelta(seconds=1)
    debounce_s: float = 0.01


class Scheduler:
    """Runs passes until it is told to stop."""

    def __init__(self, database: Database, config: SchedulerConfig, clock: Clock) -> None:
        self._database, self._config, self._clock = database, config, clock
        self._stopped = threading.Event()
        self._view = ClusterView()
        self._judged_from = clock() + config.lease
        self._leads_until: datetime | None = None
        self._reconciled_at: datetime | None = None

    def run(self) -> None:
        """Pass after pass, until `stop`."""
        while not self._stopped.is_set():
            since = self._database.doorbell.count(JOBS_TOPIC)
            wait_s = self._config.poll.total_seconds()
            began_s = time.thread_time()
            try:
                next_wakeup_ms = self.run_once()
            except SQLAlchemyError:
                log.exception("pass failed; trying again")
                self._stopped.wait(1.0)
                continue
            if next_wakeup_ms is not None:
                until_s = next_wakeup_ms / 1000 - self._clock().timestamp()
                wait_s = min(wait_s, max(0.0, until_s))
            # Requests share this interpreter: however often it is rung, two thirds are theirs.
            took_s = time.thread_time() - began_s
            self._stopped.wait(max(self._config.debounce_s, min(2 * took_s, _BREATH_S_MAX)))
            self._database.doorbell.wait(JOBS_TOPIC, since=since, timeout_s=wait_s)

    def stop(self) -> None:
        """End `run` at the next opportunity."""
        self._stopped.set()
        self._database.doorbell.ring([JOBS_TOPIC])

    def run_once(self) -> int | None:
        """Make one pass; return when the next is due, in milliseconds since the epoch."""
        now = self._clock()
        if not self._leads(now):
            return None
        self._reconcile(now)
        with self._database.read() as session:
            view = read_cluster(session, now=now, silence_max=self._config.silence_max)
        now_ms = round(now.timestamp() * 1000)
        self._view, plan = step(self._view, [Observed(view=view)], now_ms)
        if plan.decisions:
            with self._database.write() as session:
                started = apply_decisions(
                    session, plan.decisions, now=now, lease=self._config.lease
                )
            if started:
                log.info("gangs started", started=started, waiting=len(self._view.waiting))
        return plan.next_wakeup_ms

    def _reconcile(self, now: datetime) -> None:
        last = self._reconciled_at
        if last is not None and last <= now < last + self._config.reconcile_every:
            return
        try:
            with self._database.write() as session:
                reconcile(session, now=now, judged_from=self._judged_from)
        except StaleDataError:
            log.info("reconciling was overtaken; the next pass looks again")
            return
        self._reconciled_at = now

    def _leads(self, now: datetime) -> bool:
        # Renewed at a third of its life: the row is not written in every pass.
        if self._leads_until is not None and now < self._leads_until:
            return True
        leads = try_lead(
            self._database,
            name="scheduler",
            holder=self._config.holder,
            now=now,
            duration=self._config.leader_lease,
        )
        self._leads_until = now + self._config.leader_lease / 3 if leads else None
        return leads
