"""Wake-ups inside one process: who waits for a topic hears when it was rung.

A ring carries no truth: whoever wakes reads the database. Rings are made by `Database.write()`
after the commit, so a message never outruns its row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

Listener = Callable[[frozenset[str]], None]


class Doorbell:
    """Topics that can be rung and waited for, from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings: dict[str, int] = {}
        self._listeners: list[Listener] = []

    def ring(self, topics: Iterable[str]) -> None:
        """Wake everybody who waits for one of `topics`."""
        rung = frozenset(topics)
        if not rung:
            return
        with self._condition:
            for topic in rung:
                self._rings[topic] = self._rings.get(topic, 0) + 1
            self._condition.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(rung)

    def count(self, topic: str) -> int:
        """Return how often `topic` has been rung; read it before looking, give it to `wait`."""
        with self._condition:
            return self._rings.get(topic, 0)

    def wait(self, topic: str, *, since: int, timeout_s: float) -> bool:
        """Block until `topic` has been rung more than `since` times; False when time ran out."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._rings.get(topic, 0) > since, timeout=timeout_s
            )

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the topics of every ring, in the ringing thread.

        Returns:
            A function that ends it. Listeners must not block.
        """
        with self._condition:
            self._listeners.append(listener)

        def end() -> None:
            with self._condition:
                self._listeners.remove(listener)

        return end
