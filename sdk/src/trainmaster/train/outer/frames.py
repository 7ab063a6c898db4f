"""Messages over one connection: a head of JSON, then tensors as they lie in memory.

    "TMF1" | bytes of the head, u32 | bytes of the payload, u64 | head | payload

The head names type and length of each tensor; in the payload each begins at a multiple of 64
bytes. Nothing is pickled, and nothing is read from a peer that does not know the job's token.
What the messages mean is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import torch

HEAD_BYTES_MAX = 8 << 20  # the names and shapes of some 50,000 parameters
PAYLOAD_BYTES_MAX = 1 << 40
HANDSHAKE_TIMEOUT_S = 20.0
# A peer that has died says so at once; one whose machine has died does not, and is given this.
SILENCE_MAX_S = 60

_PREFIX = struct.Struct(">4sIQ")
_MAGIC = b"TMF1"
_HELLO = b"trainmaster-outer-1\n"
_NONCE_BYTES = 32
_ALIGNMENT = 64
_PARTS_MAX = 512  # of one call to sendmsg; Linux takes 1,024
_PADDING = bytes(_ALIGNMENT)

_DTYPES: dict[str, Any] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
    "c64": torch.complex64,
    "c128": torch.complex128,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class WireError(ConnectionError):
    """The connection is of no more use."""


class PeerLost(WireError):
    """The other side is gone."""


class BrokenFrame(WireError):
    """What came is no message of ours."""


class RefusedToken(WireError):
    """The other side does not know the job's token."""


@dataclass(frozen=True)
class Message:
    """What is said at once.

    Attributes:
        head: JSON values.
        tensors: flat, on the CPU. Those of a received message are views of the connection's
            buffer, and good until the next message is received.
    """

    head: dict[str, Any]
    tensors: list[torch.Tensor] = field(default_factory=list)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the tensors alone."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


class Connection:
    """One end of a connection on which the handshake is done.

    One thread may send while another receives.

    Attributes:
        bytes_sent: everything given to the socket by `send`.
        bytes_received: everything taken from it by `receive`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self.bytes_sent = self.bytes_received = 0
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", SILENCE_MAX_S // 4),
            ("TCP_KEEPINTVL", SILENCE_MAX_S // 12),
            ("TCP_KEEPCNT", 9),
            ("TCP_USER_TIMEOUT", SILENCE_MAX_S * 1000),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: Message) -> None:
        """Send a message whole; its tensors must not change before this returns.

        Raises:
            PeerLost: the other side is gone.
        """
        parts = _render(message)
        self.bytes_sent += sum(len(part) for part in parts)
        try:
            while parts:
                sent = self._socket.sendmsg(parts[:_PARTS_MAX])
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if sent:
                    parts[0] = parts[0][sent:]
        except OSError as error:
            raise PeerLost(f"could not send: {error}") from error

    def receive(self) -> Message:
        """Wait for a message, however long it takes.

        Raises:
            PeerLost: the other side is gone.
            BrokenFrame: it sent something else.
        """
        prefix = bytearray(_PREFIX.size)
        self._fill(memoryview(prefix))
        magic, head_bytes, payload_bytes = _PREFIX.unpack(prefix)
        if magic != _MAGIC or head_bytes > HEAD_BYTES_MAX or payload_bytes > PAYLOAD_BYTES_MAX:
            raise BrokenFrame(f"no message begins with {bytes(prefix).hex()}")
        text = bytearray(head_bytes)
        self._fill(memoryview(text))
        head, places = _parse_head(text, payload_bytes)
        if payload_bytes > self._buffer.numel():
            self._buffer = torch.empty(payload_bytes, dtype=torch.uint8)
        if payload_bytes:
            self._fill(memoryview(self._buffer.numpy())[:payload_bytes])
        tensors = [
            self._buffer[first:stop].view(dtype) if stop > first else torch.empty(0, dtype=dtype)
            for dtype, first, stop in places
        ]
        return Message(head, tensors)

    def close(self) -> None:
        """Let go of the connection; who waits in `receive` is told `PeerLost`."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _fill(self, view: memoryview) -> None:
        self.bytes_received += len(view)
        _receive_into(self._socket, view)


def greet_server(sock: socket.socket, token: bytes) -> None:
    """Show a server that we know the token, and see that it does.

    Raises:
        RefusedToken: one of us does not.
        PeerLost: it went away, or said nothing for `HANDSHAKE_TIMEOUT_S`.
    """
    sock.settimeout(HANDSHAKE_TIMEOUT_S)
    nonce = os.urandom(_NONCE_BYTES)
    _send_all(sock, _HELLO + nonce)
    hello = _receive(sock, len(_HELLO))
    if hello != _HELLO:
        raise BrokenFrame(
            f"what answers there is no server of ours: {bytes(hello)!r}; see what else listens at "
            "that port, and that all ranks have the same version of trainmaster"
        )
    theirs = _receive(sock, _NONCE_BYTES)
    _send_all(sock, _prove(token, b"replica", nonce, theirs))
    try:
        proof = _receive(sock, hashlib.sha256().digest_size)
    except PeerLost as error:
        raise RefusedToken(
            "the server refused us: its token is another than ours, so it belongs to another job, "
            "or another start of this one: give each a MASTER_PORT of its own"
        ) from error
    if not hmac.compare_digest(proof, _prove(token, b"server", nonce, theirs)):
        raise RefusedToken(
            "what answers there does not know the job's token: it is no server of this job, so "
            "give the job another MASTER_PORT"
        )


def greet_replica(sock: socket.socket, token: bytes) -> None:
    """The same from the server's side; who does not know the token learns nothing.

    Raises:
        RefusedToken: the other side does not know it.
        BrokenFrame: it speaks another language.
        PeerLost: it went away, or said nothing for `HANDSHAKE_TIMEOUT_S`.
    """
    sock.settimeout(HANDSHAKE_TIMEOUT_S)
    if _receive(sock, len(_HELLO)) != _HELLO:
        raise BrokenFrame("somebody called who is no replica")
    theirs = _receive(sock, _NONCE_BYTES)
    nonce = os.urandom(_NONCE_BYTES)
    _send_all(sock, _HELLO + nonce)
    proof = _receive(sock, hashlib.sha256().digest_size)
    if not hmac.compare_digest(proof, _prove(token, b"replica", theirs, nonce)):
        raise RefusedToken("somebody called who does not know the job's token")
    _send_all(sock, _prove(token, b"server", theirs, nonce))


def _prove(token: bytes, who: bytes, nonce_replica: bytes, nonce_server: bytes) -> bytes:
    # The role is part of it: an answer that is sent back to where it came from proves nothing.
    return hmac.digest(token, _HELLO + who + nonce_replica + nonce_server, "sha256")


def _render(message: Message) -> list[memoryview]:
    listed, body = [], []
    for tensor in message.tensors:
        flat = tensor.detach().reshape(-1)
        listed.append([_DTYPE_NAMES[flat.dtype], flat.numel()])
        if flat.numel():
            raw = memoryview(flat.view(torch.uint8).numpy())
            body.append(raw)
            if len(raw) % _ALIGNMENT:
                body.append(memoryview(_PADDING)[: -len(raw) % _ALIGNMENT])
    text = json.dumps({"head": message.head, "tensors": listed}, separators=(",", ":")).encode()
    if len(text) > HEAD_BYTES_MAX:
        raise ValueError(
            f"the head has {len(text)} bytes, {HEAD_BYTES_MAX} at most: the model has too many "
            "tensors for a server to be told all; join some of them"
        )
    prefix = _PREFIX.pack(_MAGIC, len(text), sum(len(part) for part in body))
    return [memoryview(prefix + text), *body]


def _parse_head(text: bytearray, payload_bytes: int) -> tuple[dict[str, Any], list[Any]]:
    """Return the head, and type, first and last byte of each tensor."""
    try:
        content = json.loads(text)
        head, listed = content["head"], content["tensors"]
        if not isinstance(head, dict):
            raise TypeError("it is no object")
        places, position = [], 0
        for name, count in listed:
            dtype = _DTYPES[name]
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"a tensor of {count} elements")
            stop = position + count * dtype.itemsize
            places.append((dtype, position, stop))
            position = stop + -stop % _ALIGNMENT
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenFrame(f"the head of a message cannot be read: {error!r}") from error
    if position != payload_bytes:
        raise BrokenFrame(f"the tensors take {position} bytes, {payload_bytes} are announced")
    return head, places


def _receive(sock: socket.socket, count: int) -> bytes:
    received = bytearray(count)
    _receive_into(sock, memoryview(received))
    return bytes(received)


def _receive_into(sock: socket.socket, view: memoryview) -> None:
    try:
        while len(view):
            count = sock.recv_into(view)
            if count == 0:
                raise PeerLost("the other side closed the connection")
            view = view[count:]
    except OSError as error:
        if isinstance(error, PeerLost):
            raise
        raise PeerLost(f"could not receive: {error}") from error


def _send_all(sock: socket.socket, content: bytes) -> None:
    try:
        sock.sendall(content)
    except OSError as error:
        raise PeerLost(f"could not send: {error}") from error
