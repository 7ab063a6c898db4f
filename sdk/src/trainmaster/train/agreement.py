"""When the ranks stop and save: every rank comes to the same answer at the same step.

Anybody may be told to stop, and rank 0's clock says when to save; but a rank that acted alone
would leave the others waiting in their next collective. So they ask each other, at steps that all
of them know, about four times a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainmaster._pace import plan_interval

if TYPE_CHECKING:
    from trainmaster.run import Run
    from trainmaster.train.accounting import Accounting
    from trainmaster.train.synchronization import Synchronization


@dataclass(frozen=True)
class Answer:
    """What all ranks do now."""

    stop: bool
    save: bool


class Agreement:
    """The question, and when it is asked next."""

    def __init__(
        self, run: Run, synchronization: Synchronization, accounting: Accounting, step: int
    ) -> None:
        self._run = run
        self._accounting = accounting
        self._synchronization = synchronization
        policy = run.description.get("checkpoint") or {}
        self._every_steps: int | None = policy.get("every_steps")
        self._every_s: float | None = policy.get("every_seconds")
        self._step = self._next_step = self._looked_step = step
        self._asked_at_s = self._saved_at_s = time.monotonic()

    def ask(self, step: int, *, is_forced: bool) -> Answer:
        """Return what to do after a step; the same on every rank.

        Args:
            step: steps done.
            is_forced: ask the others now, on every rank.
        """
        answer = Answer(stop=False, save=False)
        if not self._synchronization.may_meet(step):
            return answer
        if self._synchronization.size == 1 or step >= self._next_step or is_forced:
            answer = self._ask_all(step)
        every, since = self._every_steps, self._looked_step
        is_due = every is not None and step // every > since // every
        self._looked_step = step
        if answer.stop or answer.save or is_due:
            self._saved_at_s = time.monotonic()
            answer = Answer(stop=answer.stop, save=True)
        return answer

    def _ask_all(self, step: int) -> Answer:
        now = time.monotonic()
        stop, save = self._run.should_stop(), self._run.checkpoint_requested()
        if self._every_s is not None and self._synchronization.rank == 0:
            save = save or now - self._saved_at_s >= self._every_s
        if self._synchronization.size == 1:
            return Answer(stop=stop, save=save)
        interval = 0  # rank 0 alone chooses, with its own clock
        if self._synchronization.rank == 0:
            interval = plan_interval(max(1, step - self._step), now - self._asked_at_s)
        any_stops, any_saves, interval, *largest = self._synchronization.maximum(
            [stop, save, interval, *self._accounting.offer()]
        )
        if self._synchronization.in_step:
            self._accounting.take(largest)
        self._step, self._next_step, self._asked_at_s = step, step + interval, now
        return Answer(stop=bool(any_stops), save=bool(any_saves))
