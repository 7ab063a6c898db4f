"""Forecasts with intervals that are kept honest: what was said is compared with what came. Pure.

One of these lives as long as the scheduler does. It learns from every job that starts after it was
asked about, and from the durations that the state has seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.core.ahead import Lineup
from scheduler.core.calibration import Calibration, Interval
from scheduler.core.cluster import JobView
from scheduler.core.decisions import Decision, Start
from scheduler.core.durations import ENOUGH
from scheduler.core.forecast import Budget, Unknown, find_start, pick_relevant
from scheduler.core.state import State

_ASKED_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    stated: Interval
    point_ms: int
    asked_ms: int


class Forecaster:
    """Says when jobs start, and learns how well it does.

    Attributes:
        calibration: its record.
    """

    def __init__(self, *, budget: Budget | None = None, ahead_max: int = 1_000_000) -> None:
        self.calibration = Calibration()
        self._budget = budget or Budget()
        self._ahead_max = ahead_max
        self._asked: dict[str, _Asked] = {}

    def forecast(self, state: State, job_id: str, now_ms: int) -> Interval | Unknown:
        """Return when a waiting job starts; nothing in `state` is changed."""
        entry = state.jobs.get(job_id)
        if entry is None or entry.view.placement is not None:
            return Unknown(why="it does not wait")
        if state.durations.num_ended < ENOUGH:
            return Unknown(why=f"fewer than {ENOUGH} jobs have ended since the service started")
        point_ms = self.find_point(state, entry.view, now_ms)
        if isinstance(point_ms, Unknown):
            return point_ms
        return self.state_interval(job_id, point_ms, now_ms)

    def state_interval(self, job_id: str, point_ms: int, now_ms: int) -> Interval:
        """Return what is said of a job whose point is known, and remember it."""
        stated = self.calibration.widen(point_ms, now_ms)
        if job_id not in self._asked:
            while len(self._asked) >= _ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[job_id] = _Asked(stated=stated, point_ms=point_ms, asked_ms=now_ms)
        return stated

    def find_point(self, state: State, job: JobView, now_ms: int) -> int | Unknown:
        """Return when `job` would start if nothing else came, whether it is submitted or not."""
        jobs = pick_relevant(state, job, now_ms, self._ahead_max)
        if isinstance(jobs, Unknown):
            return jobs
        return find_start(state, jobs, job.job_id, now_ms, budget=self._budget)

    def find_point_before(
        self,
        state: State,
        job: JobView,
        now_ms: int,
        until_ms: int | None,
        is_over: Callable[[], bool] | None = None,
    ) -> int | Unknown:
        """Return the same where the lines of `state` are full, which is faster.

        Args:
            until_ms: a later start is of no interest; None: any is.
            is_over: see `Budget`.
        """
        lineup = Lineup(state, job, now_ms)
        if lineup.count() > self._ahead_max:
            return Unknown(why=f"more than {self._ahead_max} jobs wait before it")
        budget = dataclasses.replace(self._budget, is_over=is_over)
        jobs = lineup.pick()
        return find_start(state, jobs, job.job_id, now_ms, budget=budget, until_ms=until_ms)

    def learn(self, decisions: Sequence[Decision], now_ms: int) -> None:
        """Compare what was said with the starts of a plan."""
        for decision in decisions:
            if isinstance(decision, Start):
                asked = self._asked.pop(decision.job_id, None)
                if asked is not None:
                    self.calibration.judge(asked.stated, asked.point_ms, asked.asked_ms, now_ms)
