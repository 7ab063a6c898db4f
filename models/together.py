"""Works of several threads in one transaction: one sync of the disk for all who wait. No tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

from sqlalchemy.orm import Session

T = TypeVar("T")

TOGETHER_MAX = 64


class Together:
    """Whoever gets the turn first writes for all who wait; the others find their work done."""

    def __init__(self, write: Callable[[], AbstractContextManager[Session]]) -> None:
        self._write = write
        self._turn = threading.Lock()
        self._waiting_lock = threading.Lock()
        self._waiting: list[_Work[Any]] = []

    def run(self, do: Callable[[Session], T]) -> T:
        """Return what `do` returns, once it is committed; raise what it raises.

        `do` may run twice: when one of several fails, all of them are undone and each is run again
        on its own. It sees what those before it in the same transaction have written.
        """
        mine = _Work(do)
        with self._waiting_lock:
            self._waiting.append(mine)
        with self._turn:
            while not mine.is_done:
                with self._waiting_lock:
                    works = self._waiting[:TOGETHER_MAX]
                    del self._waiting[:TOGETHER_MAX]
                self._run_all(works)
        return mine.take()

    def _run_all(self, works: Sequence[_Work[Any]]) -> None:
        if len(works) > 1 and self._try_all(works):
            return
        for work in works:
            try:
                with self._write() as session:
                    work.result = work.do(session)
            except BaseException as error:  # noqa: BLE001  it belongs to the thread that asked
                work.error = error
            work.is_done = True

    def _try_all(self, works: Sequence[_Work[Any]]) -> bool:
        try:
            with self._write() as session:
                for work in works:
                    work.result = work.do(session)
        except Exception:  # noqa: BLE001  whose it is shows when each is run again on its own
            return False
        for work in works:
            work.is_done = True
        return True


class _Work(Generic[T]):
    """One thread's part."""

    __slots__ = ("do", "error", "is_done", "result")

    def __init__(self, do: Callable[[Session], T]) -> None:
        self.do = do
        self.is_done = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def take(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.result)
