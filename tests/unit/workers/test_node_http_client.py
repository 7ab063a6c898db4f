"""The client of the worker protocol against servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from workers.supervisor.http import Backoff, Client, Refused, Unreachable

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": 12}'


@contextmanager
def serving(*connections: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve the connections one after another, each as its function says."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for behave in connections:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

    thread = threading.Thread(target=run)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)
    listener.close()
    assert not thread.is_alive()


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """Answer so many requests with these bytes, then close."""

    def behave(connection: socket.socket) -> None:
        for answer in answers:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            connection.sendall(answer)

    return behave


def test_one_connection_carries_many_calls() -> None:
    with serving(answering(OK, OK, OK)) as url:
        client = Client(url)
        assert [client.call("GET", "/x") for _ in range(3)] == [{"a": 12}] * 3
        client.close()


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    with serving(answering(OK), answering(OK)) as url:
        client = Client(url)
        assert [client.call("GET", "/x") for _ in range(2)] == [{"a": 12}] * 2
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12", id="half an answer"),
        pytest.param(b"no http at all\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="no JSON"),
        pytest.param(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n", id="503"),
        pytest.param(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", id="a redirect"),
    ],
)
def test_what_is_no_answer_means_try_again(answer: bytes) -> None:
    with serving(answering(answer)) as url:
        client = Client(url)
        with pytest.raises(Unreachable):
            client.call("GET", "/x")
        client.close()


def test_a_refusal_carries_its_problem() -> None:
    body = b'{"code": "offset_mismatch", "length": 7, "detail": "no"}'
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    with serving(answering(answer)) as url:
        client = Client(url)
        with pytest.raises(Refused) as caught:
            client.call("PUT", "/x", body=b"x", size_bytes=1)
        client.close()

    assert (caught.value.status, caught.value.code) == (409, "offset_mismatch")
    assert caught.value.problem["length"] == 7
    assert not caught.value.is_stale


def test_an_answer_that_never_comes_is_given_up_in_time() -> None:
    done = threading.Event()

    def say_nothing(_connection: socket.socket) -> None:
        done.wait(10)

    with serving(say_nothing) as url:
        client = Client(url)
        with pytest.raises(Unreachable):
            client.call("GET", "/x", timeout_s=0.2)
        done.set()
        client.close()


def test_a_download_cut_short_is_an_error() -> None:
    pieces: list[bytes] = []

    with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")) as url:
        client = Client(url)
        with pytest.raises(Unreachable):
            client.download("/x", pieces.append)
        client.close()


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(Unreachable):
        Client(url).call("GET", "/x")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "nonsense"])
def test_only_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(url)


def test_pauses_double_up_to_a_limit_and_honour_the_service() -> None:
    backoff = Backoff(first_s=1.0, max_s=8.0)

    pauses = [backoff.pause_s(failures) for failures in (1, 2, 3, 4, 50)]

    for pause, most in zip(pauses, (1, 2, 4, 8, 8), strict=True):
        assert most / 2 <= pause <= most
    assert backoff.pause_s(1, retry_after_s=20.0) == 20.0
    assert backoff.pause_s(1, retry_after_s=1e9) == 30.0
