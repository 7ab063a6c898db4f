"""Claims about messages on a wire; each function is one test."""

import json
import socket
import struct
import sys
import threading
from typing import Any

import torch

from trainmaster.train.outer import frames
from trainmaster.train.outer.frames import (
    BrokenFrame,
    Connection,
    Message,
    PeerLost,
    RefusedToken,
    greet_replica,
    greet_server,
)
from trainmaster.train.outer.tree import flatten, unflatten

TOKEN = b"the job's token"


def connected() -> tuple[socket.socket, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    listener.close()
    return one, other


def raised(kind: type[BaseException], action: Any, *arguments: Any) -> str:
    try:
        action(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def claim_tensors_of_every_type_arrive_as_they_were() -> None:
    one, other = map(Connection, connected())
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randint(0, 2, (count,), generator=generator).to(dtype)
        for dtype in frames._DTYPES.values()
        for count in (0, 1, 7, 1000)
    ]

    sender = threading.Thread(target=one.send, args=(Message({"a": [1, None]}, tensors),))
    sender.start()
    received = other.receive()
    sender.join()

    assert received.head == {"a": [1, None]}
    assert len(received.tensors) == len(tensors)
    for sent, got in zip(tensors, received.tensors, strict=True):
        assert got.dtype == sent.dtype
        assert torch.equal(sent, got)
    assert one.bytes_sent == other.bytes_received


def claim_a_message_larger_than_any_buffer_arrives_whole() -> None:
    one, other = map(Connection, connected())
    large = torch.arange(8_000_000, dtype=torch.float32)

    sender = threading.Thread(target=one.send, args=(Message({}, [large]),))
    sender.start()
    received = other.receive().tensors[0].clone()
    sender.join()

    assert torch.equal(received, large)


def claim_the_buffer_is_used_again() -> None:
    one, other = map(Connection, connected())
    for number in range(3):
        one.send(Message({}, [torch.full((100,), number)]))
    places = {other.receive().tensors[0].data_ptr() for _ in range(3)}

    assert len(places) == 1


def claim_what_is_no_message_is_refused_before_anything_is_allocated() -> None:
    wrong = {
        b"GET / HTTP/1.1\r\n\r\n": "no message begins",
        struct.pack(">4sIQ", b"TMF1", frames.HEAD_BYTES_MAX + 1, 0): "no message begins",
        struct.pack(">4sIQ", b"TMF1", 2, frames.PAYLOAD_BYTES_MAX + 1): "no message begins",
        frame("not json", 0): "cannot be read",
        frame(json.dumps([]), 0): "cannot be read",
        frame(json.dumps({"head": {}, "tensors": [["f32", 10**9]]}), 64): "are announced",
        frame(json.dumps({"head": {}, "tensors": [["f32", -1]]}), 0): "cannot be read",
        frame(json.dumps({"head": {}, "tensors": [["object", 1]]}), 8): "cannot be read",
        frame(json.dumps({"head": 3, "tensors": []}), 0): "cannot be read",
    }
    for content, what in wrong.items():
        one, other = connected()
        one.sendall(content)
        one.shutdown(socket.SHUT_WR)

        assert what in raised(BrokenFrame, Connection(other).receive), content


def frame(text: str, payload: int) -> bytes:
    raw = text.encode()
    return struct.pack(">4sIQ", b"TMF1", len(raw), payload) + raw


def claim_a_message_cut_short_is_a_lost_peer() -> None:
    one, other = connected()
    one.sendall(struct.pack(">4sIQ", b"TMF1", 100, 0) + b"{")
    one.close()

    raised(PeerLost, Connection(other).receive)


def claim_both_sides_know_the_token_or_neither_goes_on() -> None:
    for ours, theirs, is_let_in in ((TOKEN, TOKEN, True), (TOKEN, b"another", False)):
        one, other = connected()
        outcome: list[Any] = []

        def serve(sock: socket.socket = other, outcome: list[Any] = outcome) -> None:
            try:
                greet_replica(sock, TOKEN)
                outcome.append("let in")
            except RefusedToken as error:
                outcome.append(error)
                sock.close()

        server = threading.Thread(target=serve)
        server.start()
        if is_let_in:
            greet_server(one, ours)
        else:
            raised(RefusedToken, greet_server, one, theirs)
        server.join()

        assert (outcome == ["let in"]) == is_let_in


def claim_an_answer_sent_back_to_the_server_proves_nothing() -> None:
    one, other = connected()
    caught: list[Any] = []
    server = threading.Thread(
        target=lambda: caught.append(raised(RefusedToken, greet_replica, other, TOKEN))
    )
    server.start()
    # Without the token: repeat the server's own nonce, then guess that its proof is ours.
    one.sendall(frames._HELLO + bytes(32))
    one.recv(len(frames._HELLO) + 32)
    one.sendall(bytes(32))
    server.join()

    assert caught


def claim_a_server_without_the_token_is_found_out() -> None:
    one, other = connected()

    def pretend() -> None:
        other.recv(4096)
        other.sendall(frames._HELLO + bytes(32))
        other.recv(4096)
        other.sendall(bytes(32))

    threading.Thread(target=pretend).start()

    raised(RefusedToken, greet_server, one, TOKEN)


def claim_a_stranger_is_sent_away_with_nothing_read_but_his_hello() -> None:
    one, other = connected()
    one.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n")

    raised(BrokenFrame, greet_replica, other, TOKEN)


def claim_nested_states_survive_the_trip_without_pickle() -> None:
    state = {
        "tensor": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        3: [1, 2.5, None, True, "text", (1, torch.tensor(4.0))],
        "bytes": b"\x00\xff",
        "inf": float("inf"),
        "empty": {"list": [], "tensor": torch.empty(0, 3)},
    }

    described, tensors = flatten(state)
    back = unflatten(json.loads(json.dumps(described)), tensors)

    assert str(back) == str(state)
    assert back["tensor"].dtype == torch.bfloat16
    assert isinstance(back[3][5], tuple)
    raised(TypeError, flatten, {"thing": object()})


if __name__ == "__main__":
    globals()[sys.argv[1]]()
