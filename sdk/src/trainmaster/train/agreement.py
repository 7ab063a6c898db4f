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
    from collections.abc import Callable

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
        self,
        run: Run,
        synchronization: Synchronization,
        accounting: Accounting,
        step: int,
        is_writing: Callable[[], bool],
    ) -> None:
        """`is_writing` tells whether a checkpoint is still on its way to the disk."""
        self._run = run
        self._is_writing = is_writing
        self._accounting = accounting
        self._synchronization = synchronization
        policy = run.description.get("checkpoint") or {}
        self._every_steps: int | None = policy.get("every_steps")
        self._every_s: float | None = policy.get("every_seconds")
        self._step = self._next_step = self._looked_step = step
        self._has_called = self._has_begun = False
        # Wishes for a checkpoint: heard here, and granted to anybody. One that is said to all ranks
        # reaches some of them before a meeting and some after it, and is granted once.
        self._num_heard = self._num_granted = 0
        self._asked_at_s = self._saved_at_s = time.monotonic()

    def ask(self, step: int, *, is_forced: bool) -> Answer:
        """Return what to do after a step; the same on every rank.

        Args:
            step: steps done.
            is_forced: ask the others now, on every rank.
        """
        answer = Answer(stop=False, save=False)
        in_step = self._synchronization.in_step
        self._catch_up()
        self._has_begun = True
        if not self._synchronization.may_meet(step):
            if not in_step:
                self._call_others(step)
            return answer
        self._has_called = False
        # Out of step all are here now, and nobody knows when again.
        is_forced = is_forced or not in_step or self._is_first_meeting(step)
        if self._synchronization.size == 1 or step >= self._next_step or is_forced:
            answer = self._ask_all(step)
        is_due = self._is_due(step)
        self._looked_step = step
        if answer.stop or answer.save or is_due:
            self._saved_at_s = time.monotonic()
            answer = Answer(stop=answer.stop, save=True)
        return answer

    @property
    def meet_in_s(self) -> float | None:
        """After how long this rank will want a checkpoint, by its clock; None if never."""
        if self._every_s is None or self._synchronization.rank != 0:
            return None
        pause_s = 1.0 if self._is_writing() else 0.0
        return max(pause_s, self._saved_at_s + self._every_s - time.monotonic())

    def _catch_up(self) -> None:
        """Be as far as the others, where this rank has found them at work."""
        found_step = self._synchronization.found_step
        if self._has_begun or found_step is None:
            return
        self._step = self._looked_step = found_step
        if self._synchronization.in_step:  # they looked when they could meet last
            while self._looked_step and not self._synchronization.may_meet(self._looked_step):
                self._looked_step -= 1

    def _is_first_meeting(self, step: int) -> bool:
        """Whether a replica that joined is here for the first time: it cannot know when others ask.

        In step all know when that is.
        """
        joined_step = self._synchronization.joined_step
        return joined_step is not None and self._looked_step <= joined_step < step

    def _call_others(self, step: int) -> None:
        """Ask replicas that do not go in step to meet, where this one has something to say."""
        is_wanted = (
            self._run.should_stop()
            or self._hear_wish() > 0
            or self._is_late()
            or self._is_due(step)
        )
        if is_wanted and not self._has_called:
            self._synchronization.want_to_meet()
            self._has_called = True

    def _hear_wish(self) -> int:
        """Return the number of a wish for a checkpoint that is not granted yet, else 0."""
        self._num_heard += self._run.checkpoint_requested()
        return self._num_heard if self._num_heard > self._num_granted else 0

    def _is_late(self) -> bool:
        """Whether the time for a checkpoint has come."""
        return (
            self._every_s is not None
            and self._synchronization.rank == 0
            and time.monotonic() - self._saved_at_s >= self._every_s
            and not self._is_writing()  # else all would wait for the disk
        )

    def _is_due(self, step: int) -> bool:
        every, since = self._every_steps, self._looked_step
        return every is not None and step // every > since // every

    def _ask_all(self, step: int) -> Answer:
        now = time.monotonic()
        stop = self._run.should_stop()
        # Who joined may count the steps to the next checkpoint otherwise.
        save = self._is_late() or self._is_due(step)
        wish = self._hear_wish()
        if self._synchronization.size == 1:
            self._num_granted = self._num_heard
            return Answer(stop=stop, save=save or wish > 0)
        interval = 0  # rank 0 alone chooses, with its own clock
        if self._synchronization.rank == 0:
            interval = plan_interval(max(1, step - self._step), now - self._asked_at_s)
        any_stops, any_saves, wish, interval, *largest = self._synchronization.maximum(
            [stop, save, wish, interval, *self._accounting.offer()]
        )
        self._num_granted = max(self._num_granted, wish)
        if self._synchronization.in_step:
            self._accounting.take(largest)
        self._step, self._next_step, self._asked_at_s = step, step + interval, now
        return Answer(stop=bool(any_stops), save=bool(any_saves) or wish > 0)
