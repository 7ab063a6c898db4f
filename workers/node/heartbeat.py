"""Tell the service what runs here, and do what it answers, over and over."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from workers.node.config import NodeConfig
from workers.node.registration import CannotRegister, find_credential, register
from workers.node.runs import Runs
from workers.supervisor.http import Backoff, Client, Refused, Unreachable

_log = logging.getLogger("trainmaster.node")
_ANSWER_MARGIN_S = 10.0
# When an answer brings nothing new although it came at once: a stop that takes its time.
_REPEAT_PAUSE_S = 0.25
_REFUSED_PAUSE_S = 10.0


class Heartbeat:
    """The conversation with the service, on its own thread."""

    def __init__(self, config: NodeConfig, facts: dict[str, Any]) -> None:
        """`facts`: boot_id, version, address and capacity, as the heartbeat has them."""
        self._config, self._facts = config, facts
        self._client = Client(config.url)
        self._node_id = ""
        self._heard_at_s = time.monotonic()
        self._backoff = Backoff(first_s=0.25, max_s=config.heartbeat_s)

    def identify(self, stop: threading.Event) -> str:
        """Return the node's id, registering if need be, however long the service is away.

        Empty if told to stop before, or forsaken.

        Raises:
            CannotRegister: there is neither a credential nor a key.
            Refused: the service does not take the key.
        """
        failures = 0
        while not stop.is_set() and not self.is_forsaken():
            try:
                self._node_id, self._client.token = find_credential(self._config) or register(
                    self._config
                )
                self._heard_at_s = time.monotonic()
                break
            except Unreachable as error:
                failures += 1
                _log.info("service unreachable: %s", error)
                stop.wait(self._backoff.pause_s(failures, error.retry_after_s))
        return self._node_id

    def is_forsaken(self) -> bool:
        """Say whether the service that this daemon belongs to has been away for too long."""
        away_s = time.monotonic() - self._heard_at_s
        return self._config.is_embedded and away_s > self._config.forsaken_s

    def run(self, runs: Runs, stop: threading.Event) -> None:
        """Go on until told to stop."""
        failures = 0
        while not stop.is_set():
            try:
                pause_s = self._beat(runs)
                failures, self._heard_at_s = 0, time.monotonic()
            except Unreachable as error:
                failures += 1
                if failures == 1:
                    _log.warning("service unreachable: %s", error)
                pause_s = self._backoff.pause_s(failures, error.retry_after_s)
            except Refused as error:
                self._heard_at_s = time.monotonic()
                pause_s = self._answer_refusal(error)
            stop.wait(pause_s)

    def _beat(self, runs: Runs) -> float:
        """Send one heartbeat, apply its answer, return how long to wait before the next."""
        supervisors, ended = runs.describe()
        wait_s = 0.0 if ended else self._config.heartbeat_s
        answer = self._client.call(
            "POST",
            f"/v1/nodes/{self._node_id}/heartbeat?wait={wait_s:g}",
            {**self._facts, "supervisors": supervisors, "ended": ended, "health": {}},
            timeout_s=wait_s + _ANSWER_MARGIN_S,
        )
        runs.forget_ended(ended)
        assignments, stops = answer["assignments"], answer["stops"]
        is_new = runs.apply(supervisors, assignments, stops)
        runs.wake(answer.get("nudges", ()))
        return _REPEAT_PAUSE_S if (assignments or stops) and not is_new else 0.0

    def _answer_refusal(self, error: Refused) -> float:
        if error.status not in (401, 403, 404):
            _log.error("heartbeat refused: %s", error)
            return _REFUSED_PAUSE_S
        try:
            self._node_id, self._client.token = register(self._config)
        except CannotRegister:
            _log.error("the node's credential is no longer good, and there is no key for another")
            return _REFUSED_PAUSE_S
        except (Refused, Unreachable) as again:
            _log.error("not registered again: %s", again)
            return _REFUSED_PAUSE_S
        return 0.0
