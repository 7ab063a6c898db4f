"""Wake-ups inside one process: who waits for a topic hears when it was rung.

A ring carries no truth: whoever wakes reads the database. Rings are made by `Database.write()`
after the commit, so a message never outruns its row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

Listener = Callable[[frozenset[str]], None]

_TOPICS_MAX = 20_000


class Doorbell:
    """Topics that can be rung and waited for, from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings: dict[str, int] = {}  # topic → serial of its last ring, in order of ringing
        self._serial = 0
        self._listeners: list[Listener] = []

    def ring(self, topics: Iterable[str]) -> None:
        """Wake everybody who waits for one of `topics`."""
        rung = frozenset(topics)
        if not rung:
            return
        with self._condition:
            self._serial += 1
            for topic in rung:
                self._rings.pop(topic, None)
                self._rings[topic] = self._serial
            while len(self._rings) > _TOPICS_MAX:
                # The topic that was quiet longest is forgotten: a waiter looks at its next poll.
                del self._rings[next(iter(self._rings))]
            self._condition.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(rung)

    def count(self, topic: str) -> int:
        """Return the serial of its last ring; read it before looking, give it to `wait`."""
        with self._condition:
            return self._rings.get(topic, 0)

    def wait(self, topic: str, *, since: int, timeout_s: float) -> bool:
        """Block until `topic` has been rung after `since`; False when time ran out."""
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
