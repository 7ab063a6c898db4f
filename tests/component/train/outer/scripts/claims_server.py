"""Claims about servers as processes and as hosts; each function is one test."""

import contextlib
import errno
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.mutations import exchange
from tests.component.train.outer.scripts.replicas import Training, make_plan
from trainmaster._job_errors import RunError
from trainmaster.train.outer import serve
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.joined import Joined, Seat
from trainmaster.train.outer.joining import make_joined
from trainmaster.train.outer.link import ServerLost, Wires
from trainmaster.train.outer.serve import Settings, start_server
from trainmaster.train.outer.server import Server

TOKEN = "00" * 32
LIMIT_S = 60.0


class Listener:
    """A listening socket that cannot accept at first."""

    def __init__(self, *errors: OSError) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._errors = list(errors)
        self.getsockname, self.close = self._socket.getsockname, self._socket.close

    def accept(self) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return self._socket.accept()


@contextlib.contextmanager
def serving(
    num_replicas: int, grace_s: float = 30.0, start_limit_s: float = 900.0, listener: Any = None
) -> Iterator[tuple[tuple[str, int], threading.Thread]]:
    """Run a server in this process; give its address and its thread."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    server = Server(
        listener,
        bytes.fromhex(TOKEN),
        0,
        num_replicas,
        grace_s=grace_s,
        start_limit_s=start_limit_s,
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield listener.getsockname(), thread


def join(address: tuple[str, int], replica: int, num_replicas: int, **sync: object) -> Joined:
    link = Wires([address], bytes.fromhex(TOKEN), replica, 0)
    return make_joined({"mode": "local_sgd", "every": 4, **sync}, link, Seat(replica, num_replicas))


def refused(kind: type[Exception], what: str, action: Callable[[], object]) -> None:
    said = ""
    try:
        action()
    except kind as error:
        said = str(error)
    assert what in said, said


def claim_who_does_not_know_the_token_is_not_let_in_and_harms_nobody() -> None:
    with serving(1) as (address, thread):
        wrong = bytes.fromhex("11" * 32)
        refused(ServerLost, "does not let us in", lambda: Wires([address], wrong, 0, 0))
        with socket.create_connection(address) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1000) == b""

        joined = join(address, 0, 1)
        assert joined.maximum([3]) == [3]
        joined.close()
        thread.join(LIMIT_S)

    assert not thread.is_alive()


def claim_a_replica_with_another_model_or_other_settings_is_told_so() -> None:
    with serving(2) as (address, _):
        plan = make_plan(96, 16, 1)
        one = Training(join(address, 0, 2), 0, 2, "sgd", plan)
        one.hand_over()
        threading.Thread(target=one.run, daemon=True).start()
        time.sleep(0.5)  # the first to come is the one to agree with
        other = Training(join(address, 1, 2), 1, 2, "sgd", plan, has_norm=True)
        other.hand_over()
        refused(RunError, "run the same script", other.run)
        other = Training(join(address, 1, 2, compression="int8"), 1, 2, "sgd", plan)
        other.hand_over()
        refused(RunError, "run the same script", other.run)


def claim_a_server_that_goes_away_is_named() -> None:
    with serving(1) as (address, _):
        link = Wires([address], bytes.fromhex(TOKEN), 0, 0)
        link._connections[0].close()

        refused(ServerLost, "is gone", lambda: link.ask(Message({"op": "talk"}), "talk"))


def claim_a_server_that_fails_tells_everybody_who_waits() -> None:
    with serving(1) as (address, _):
        link = Wires([address], bytes.fromhex(TOKEN), 0, 0)

        nonsense = Message({"op": "talk", "kind": "nonsense"})
        refused(RunError, "the server failed: KeyError", lambda: link.ask(nonsense, "talk"))


def claim_a_server_does_not_linger_when_nobody_comes_back() -> None:
    with serving(2, grace_s=0.2) as (address, thread):
        link = Wires([address], bytes.fromhex(TOKEN), 0, 0)
        link._connections[0].close()  # as a replica that is killed
        thread.join(LIMIT_S)

    assert not thread.is_alive()


def claim_a_replica_that_never_comes_is_named_after_a_while() -> None:
    with serving(3, start_limit_s=1.0) as (address, _):
        others = [Training(join(address, each, 3), each, 3, "sgd", make_plan(96, 16, 1))
                  for each in (0, 2)]  # fmt: skip
        for each in others:
            each.hand_over()
        said: list[str] = []
        threads = [
            threading.Thread(target=lambda each=each: said.append(error_of(each.run)))
            for each in others
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)

        assert len(said) == 2, "they wait for ever"
        for reason in said:
            assert "replica 1 has not come within 1 s of the others: its log tells why" in reason
        # Who asks later is told at once, too.
        assert "replica 1 has not come" in error_of(lambda: others[0].outer.maximum([1]))


def claim_replicas_that_came_are_not_hurried() -> None:
    with serving(2, start_limit_s=0.5) as (address, _):
        plan = make_plan(96, 16, 1)
        both = [Training(join(address, each, 2), each, 2, "sgd", plan) for each in range(2)]
        for each in both:
            each.hand_over()
        threads = [threading.Thread(target=each.run, daemon=True) for each in both]
        threads[0].start()
        time.sleep(1.0)  # the other loads its data
        threads[1].start()
        for thread in threads:
            thread.join(LIMIT_S)

        assert not any(thread.is_alive() for thread in threads)
        assert both[0].parameters() == both[1].parameters()


def claim_a_server_short_of_descriptors_goes_on() -> None:
    passing = [OSError(errno.EMFILE, "too many"), OSError(errno.ECONNABORTED, "given up")]
    with serving(1, listener=Listener(*passing)) as (address, _):
        assert join(address, 0, 1).maximum([3]) == [3]


def claim_a_server_that_can_let_nobody_in_says_so() -> None:
    listener = Listener()
    with serving(2, listener=listener) as (address, _):
        joined = join(address, 0, 2)
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(error_of(lambda: joined.maximum([3]))))
        thread.start()
        time.sleep(0.5)  # until it waits
        listener._errors.append(OSError(errno.EBADF, "no such socket"))
        # Who calls next is let in still; then the listener fails.
        with socket.create_connection(address):
            thread.join(LIMIT_S)

    assert len(said) == 1, "it waits for ever"
    assert "the server can let nobody in" in said[0]


def claim_a_server_that_can_let_nobody_in_does_not_disturb_those_who_are_in() -> None:
    listener = Listener()
    with serving(2, grace_s=2 * LIMIT_S, listener=listener) as (address, server):
        plan = make_plan(96, 16, 2)
        both = [Training(join(address, each, 2), each, 2, "sgd", plan) for each in range(2)]
        for each in both:
            each.hand_over()
        is_deaf = threading.Event()
        both[1].at_epoch_end = lambda: assert_set(is_deaf)
        threads = [threading.Thread(target=each.run, daemon=True) for each in both]
        for thread in threads:
            thread.start()
        until(lambda: both[0].used, "they train")
        listener._errors.append(OSError(errno.EBADF, "no such socket"))
        with socket.create_connection(address), socket.create_connection(address):
            until(lambda: not listener._errors, "the listener has failed")
            is_deaf.set()
            for thread in threads:
                thread.join(LIMIT_S)

            assert not any(thread.is_alive() for thread in threads)
            assert both[0].parameters() == both[1].parameters()
            assert both[0].ends == 2
        for each in both:
            each.outer.close()
        server.join(LIMIT_S)

        assert not server.is_alive()


def assert_set(event: threading.Event) -> None:
    assert event.wait(LIMIT_S)


def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.005)


def claim_a_server_listens_on_an_address_of_one_link_only() -> None:
    seen: list[Any] = []
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 7))]
    exchange(serve, "socket", Recorder(found, seen))

    serve._listen("fe80::1%seven", 0)

    assert seen == [("fe80::1", 0, 0, 7)]


class Recorder:
    """What `socket` is to who looks up an address and listens there."""

    SOCK_STREAM = socket.SOCK_STREAM

    def __init__(self, found: list[Any], seen: list[Any]) -> None:
        self._found, self._seen = found, seen

    def getaddrinfo(self, *_asked: Any, **_more: Any) -> list[Any]:
        return self._found

    def create_server(self, address: Any, **_more: Any) -> None:
        self._seen.append(address)


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except RunError as error:
        return str(error)
    return ""


def claim_a_server_is_forked_where_that_is_safe_and_else_begun_anew() -> None:
    assert serve._may_fork()
    stop = threading.Event()
    busy = threading.Thread(target=stop.wait, daemon=True)
    busy.start()
    assert not serve._may_fork()

    # In the current folder is a json.py that must not be taken for Python's own.
    Path("json.py").write_text("raise RuntimeError('this is not json')\n")
    port = start_server(Settings(0, 1, TOKEN, "127.0.0.1", None, 5.0))
    joined = join(("127.0.0.1", port), 0, 1)

    assert joined.maximum([4]) == [4]
    joined.close()
    stop.set()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
