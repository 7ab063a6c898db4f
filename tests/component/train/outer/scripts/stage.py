"""Replicas and a hub in one process, without sockets, in an order that can be played again."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.hub import Hub
from trainmaster.train.outer.joined import Joined, Seat
from trainmaster.train.outer.joining import make_joined
from trainmaster.train.outer.link import Link

LIMIT_S = 120.0


class Stage:
    """A hub that hears one replica at a time, and remembers who spoke when.

    Attributes:
        order: number of each replica that spoke, in order.
    """

    def __init__(self, num_replicas: int, order: list[int] | None = None) -> None:
        self.hub = Hub(0, num_replicas, lambda: 0.0)
        self.num_replicas = num_replicas
        self.order: list[int] = []
        self._script = None if order is None else list(reversed(order))
        self._turn = threading.Condition()

    def join(self, sync: dict[str, Any], replica: int) -> Joined:
        return make_joined(sync, StageLink(self, replica), Seat(replica, self.num_replicas))

    def speak(self, replica: int, action: Callable[[], None]) -> None:
        with self._turn:
            is_mine = lambda: self._script is None or self._script[-1:] == [replica]  # noqa: E731  a name for a condition
            assert self._turn.wait_for(is_mine, LIMIT_S)
            if self._script is not None:
                self._script.pop()
            self.order.append(replica)
            action()
            self._turn.notify_all()

    def act(self, act: Callable[[int], None]) -> None:
        """Let each replica act in a thread of its own."""
        failures: list[BaseException] = []

        def guarded(replica: int) -> None:
            try:
                act(replica)
            except BaseException as failure:  # noqa: BLE001  raised again below
                failures.append(failure)

        threads = [
            threading.Thread(target=guarded, args=(replica,), daemon=True)
            for replica in range(self.num_replicas)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        if failures:
            raise failures[0]
        assert not any(thread.is_alive() for thread in threads)


class StageLink(Link):
    """What one replica says."""

    def __init__(self, stage: Stage, replica: int) -> None:
        super().__init__(1)
        self._stage, self._replica = stage, replica
        self._answers: queue.Queue[Message] = queue.Queue()
        self._peer = stage.hub.connect(0, replica, f"life {replica}", self._answers.put)

    def _exchange(self, messages: Mapping[int, Message]) -> dict[int, Message]:
        self._stage.speak(self._replica, lambda: self._stage.hub.receive(self._peer, messages[0]))
        return {0: self._answers.get(timeout=LIMIT_S)}
