"""Works of several threads in one transaction: each gets its own result or its own error."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from sqlalchemy.orm import Session

from models.together import TOGETHER_MAX, Together


class Ledger:
    """A database that keeps a list: what was added in a transaction is kept when it commits."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.commits = 0
        self.gate = threading.Lock()

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        with self.gate:
            added: list[int] = []
            yield cast(Session, added)
            self.kept += added
            self.commits += 1


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()


def _add(number: int) -> Callable[[Any], int]:
    def do(added: Any) -> int:
        added.append(number)
        if number < 0:
            raise ValueError(str(number))
        return number

    return do


def _run_at_once(ledger: Ledger, together: Together, numbers: list[int]) -> dict[int, Any]:
    """Run `_add` of all numbers in a thread each; they meet while the gate is shut."""
    outcomes: dict[int, Any] = {}

    def run(number: int) -> None:
        try:
            outcomes[number] = together.run(_add(number))
        except ValueError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    with ledger.gate:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        # The one that has the turn waits for the gate, all others wait for their turn.
        while len(together._waiting) < len(numbers) - 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    return outcomes


def test_one_alone_is_a_transaction_of_its_own(ledger: Ledger) -> None:
    together = Together(ledger.write)

    assert together.run(_add(5)) == 5
    with pytest.raises(ValueError, match="-1"):
        together.run(_add(-1))

    assert (ledger.kept, ledger.commits) == ([5], 1)


def test_those_that_wait_are_committed_together(ledger: Ledger) -> None:
    numbers = list(range(1, 31))

    outcomes = _run_at_once(ledger, Together(ledger.write), numbers)

    assert outcomes == {number: number for number in numbers}
    assert sorted(ledger.kept) == numbers
    assert ledger.commits == 2  # the first alone, then all that had come meanwhile


def test_one_that_fails_takes_nobody_along(ledger: Ledger) -> None:
    numbers = [1, 2, -3, 4, -5, 6]

    outcomes = _run_at_once(ledger, Together(ledger.write), numbers)

    assert {number for number, one in outcomes.items() if one == number} == {1, 2, 4, 6}
    assert {str(one) for one in outcomes.values() if isinstance(one, ValueError)} == {"-3", "-5"}
    assert sorted(ledger.kept) == [1, 2, 4, 6]


def test_more_than_fit_into_one_transaction_all_have_their_turn(ledger: Ledger) -> None:
    numbers = list(range(1, 2 * TOGETHER_MAX + 10))

    outcomes = _run_at_once(ledger, Together(ledger.write), numbers)

    assert outcomes == {number: number for number in numbers}
    assert sorted(ledger.kept) == numbers
    assert 3 <= ledger.commits <= 6
