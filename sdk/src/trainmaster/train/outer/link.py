"""How a replica speaks to the servers: over wires, or, where it is alone, to a hub of its own."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

from trainmaster._job_errors import RunError
from trainmaster.train.outer.counters import Counters
from trainmaster.train.outer.frames import Connection, Message, WireError, greet_server
from trainmaster.train.outer.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONNECT_TIMEOUT_S = 30.0


class ServerLost(RunError):
    """A server of the outer group is gone, and with it what the replicas share."""


class Link:
    """Says something to some servers at once, and waits for their answers.

    Attributes:
        num_servers: how many there are.
        counters: what has been said and waited so far.
    """

    has_wires = True

    def __init__(self, num_servers: int) -> None:
        self.num_servers = num_servers
        self.counters = Counters()

    def ask(self, message: Message, phase: str, *, server: int = 0) -> Message:
        """Say something to one server."""
        return self.exchange({server: message}, phase)[server]

    def exchange(
        self, messages: Mapping[int, Message], phase: str, *, is_gated: bool = False
    ) -> dict[int, Message]:
        """Say something to each of some servers and return what they answer.

        Args:
            messages: by number of the server.
            phase: what the bytes are counted under.
            is_gated: whether a server lets us wait because we are ahead, not for the others.

        Raises:
            ServerLost: one is gone.
            RunError: one refuses.
        """
        counters = self.counters
        begun_s = time.monotonic()
        answers = self._exchange(messages)
        took_s = time.monotonic() - begun_s
        for answer in answers.values():
            if "error" in answer.head:
                raise RunError(answer.head["error"])
        if self.has_wires:
            counters.sent[phase] += sum(each.payload_bytes for each in messages.values())
            counters.received[phase] += sum(each.payload_bytes for each in answers.values())
        waited_s = min(took_s, max(answer.head["waited_s"] for answer in answers.values()))
        counters.transfer_s += took_s - waited_s
        if is_gated:
            counters.gate_s += waited_s
        else:
            counters.straggler_s += waited_s
        return answers

    def _exchange(self, messages: Mapping[int, Message]) -> dict[int, Message]:
        raise NotImplementedError

    def close(self) -> None:
        """Say goodbye."""


class Wires(Link):
    """One connection to each server."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], token: bytes, replica: int, slot: int
    ) -> None:
        super().__init__(len(addresses))
        self._addresses = addresses
        self._connections: list[Connection] = []
        hello: dict[str, Any] = {"slot": slot, "replica": replica, "life": secrets.token_hex(8)}
        for address in addresses:
            self._connections.append(_connect(address, token))
            self._connections[-1].send(Message(hello))

    def _exchange(self, messages: Mapping[int, Message]) -> dict[int, Message]:
        answers: dict[int, Message] = {}
        server = 0
        try:
            for server, message in messages.items():
                self._connections[server].send(message)
            for server in messages:
                answers[server] = self._connections[server].receive()
        except WireError as error:
            host, port = self._addresses[server]
            raise ServerLost(
                f"server {server} of the outer group, at {host}:{port}, is gone ({error}): "
                "start again from the last checkpoint"
            ) from error
        counters = self.counters
        counters.framed_sent = sum(each.bytes_sent for each in self._connections)
        counters.framed_received = sum(each.bytes_received for each in self._connections)
        return answers

    def close(self) -> None:
        """Say goodbye, so that the servers know that nobody is missing."""
        for connection in self._connections:
            with contextlib.suppress(WireError):
                connection.send(Message({"op": "bye"}))
            connection.close()


class Alone(Link):
    """A hub in this process, for one replica: the same computation, and no bytes on any wire."""

    has_wires = False

    def __init__(self, num_servers: int = 1) -> None:
        super().__init__(num_servers)
        self._answers: list[Message] = []
        self._hubs = [Hub(server, 1, time.monotonic) for server in range(num_servers)]
        self._peers = [hub.connect(0, 0, "alone", self._answers.append) for hub in self._hubs]

    def _exchange(self, messages: Mapping[int, Message]) -> dict[int, Message]:
        answers: dict[int, Message] = {}
        for server, message in messages.items():
            self._hubs[server].receive(self._peers[server], message)
            answers[server] = self._answers.pop()
        return answers


def _connect(address: tuple[str, int], token: bytes) -> Connection:
    host, port = address
    try:
        sock = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ServerLost(
            f"no server of the outer group answers at {host}:{port} ({error}): see that this "
            "machine can reach that port, and that the rank beside the server runs"
        ) from error
    try:
        greet_server(sock, token)
    except WireError as error:
        sock.close()
        raise ServerLost(f"the server at {host}:{port} does not let us in: {error}") from error
    return Connection(sock)
