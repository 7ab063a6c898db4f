"""Wake, look, decide, apply. Level-triggered: right when every wake-up is lost, doubled or late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm.exc import StaleDataError

from models.database import Database
from models.queries.jobs import JOBS_TOPIC
from scheduler.core.decisions import Decision, Preempt, Start
from scheduler.core.state import State
from scheduler.core.step import step
from scheduler.shell.apply import apply_decisions
from scheduler.shell.leader import try_lead
from scheduler.shell.observer import Observer
from scheduler.shell.reconcile import reconcile
from scheduler.shell.snapshot import Sight, hold_still

log = structlog.get_logger()

_BREATH_S_MAX = 0.1
# What one transaction does at most: the lock is held for 50 ms or so, and others write in between.
_STARTS_MAX = 200
_DECISIONS_MAX = 1000

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
        sight = Sight(silence_max=config.silence_max, lease=config.lease)
        self._observer = Observer(sight)
        self._state = State()
        self._is_sure = False
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
            except Exception:
                # The next pass reads everything anew, whatever went wrong in this one.
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
            self._is_sure = False
            return None
        self._reconcile(now)
        if not self._is_sure:
            # After a start, a failure, or somebody else's lead: what was remembered is a guess.
            self._observer.forget()
            self._state = State()
        self._is_sure = False
        with self._database.read() as session:
            hold_still(session)
            deltas = self._observer.look(session, now=now)
        now_ms = round(now.timestamp() * 1000)
        self._state, plan = step(self._state, deltas, now_ms)
        num_dropped = self._apply(plan.decisions, now)
        self._is_sure = True
        return now_ms if num_dropped else plan.next_wakeup_ms

    def _apply(self, decisions: Sequence[Decision], now: datetime) -> int:
        """Write the decisions; return how many jobs were not as the pass saw them."""
        num_started = num_dropped = 0
        for part in _cut(decisions):
            with self._database.write() as session:
                applied = apply_decisions(session, part, now=now, lease=self._config.lease)
            self._observer.doubt(applied.dropped)
            num_started += applied.num_started
            num_dropped += len(applied.dropped)
        if num_started:
            log.info("gangs started", started=num_started)
        return num_dropped

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


def _cut(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    """Yield the decisions in parts for one transaction each.

    All about one job stay together, and so do victims and those they make room for: nobody is
    asked to go whose place is not kept.
    """
    part: list[Decision] = []
    num_starts = 0
    for bundle in _bundle(decisions):
        part.extend(bundle)
        num_starts += sum(isinstance(decision, Start) for decision in bundle)
        if num_starts >= _STARTS_MAX or len(part) >= _DECISIONS_MAX:
            yield part
            part, num_starts = [], 0
    if part:
        yield part


def _bundle(decisions: Sequence[Decision]) -> Iterable[list[Decision]]:
    joined: dict[str, str] = {}

    def find(job_id: str) -> str:
        while job_id in joined:
            job_id = joined[job_id]
        return job_id

    for decision in decisions:
        if isinstance(decision, Preempt) and find(decision.job_id) != find(decision.for_job):
            joined[find(decision.job_id)] = find(decision.for_job)
    bundles: dict[str, list[Decision]] = {}
    for decision in decisions:
        bundles.setdefault(find(decision.job_id), []).append(decision)
    return bundles.values()
