"""One client that posts the same document again and again on one connection. Nothing installed.

Reads its orders, one JSON object, from standard input; says `ready` once connected; starts at
the given instant; prints how many answers it got, and their latencies in seconds. Plain sockets
and ready-made bytes: on a machine of two cores the client must not be what is measured.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import uuid

_ID = "00000000-0000-0000-0000-000000000000"


def main() -> None:
    """Obey the orders."""
    orders = json.loads(sys.stdin.readline())
    body = json.dumps(orders["document"]).encode()
    lines = [
        f"POST {orders['path']} HTTP/1.1",
        f"Host: 127.0.0.1:{orders['port']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name}: {text}" for name, text in orders["headers"].items()]
    if orders["with_keys"]:
        lines.append(f"Idempotency-Key: {_ID}")
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    connection = socket.create_connection(("127.0.0.1", orders["port"]), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("ready", flush=True)
    start_at = float(sys.stdin.readline())
    time.sleep(max(0.0, start_at - time.time()))
    end_at = start_at + orders["seconds"]
    latencies_s = []
    while (before := time.time()) < end_at:
        if orders["with_keys"]:
            send = request.replace(_ID.encode(), str(uuid.uuid4()).encode())
        else:
            send = request
        connection.sendall(send)
        status, answer = _read_answer(connection)
        if status != 201:
            sys.exit(f"status {status}: {answer[:500]!r}")
        latencies_s.append(time.time() - before)
    print(json.dumps({"ended_at": time.time(), "latencies_s": latencies_s}), flush=True)


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    while len(rest) < int(lengths[0]):
        rest += _receive(connection)
    return int(head.split(b" ", 2)[1]), rest


def _receive(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        sys.exit("the server closed the connection")
    return piece


if __name__ == "__main__":
    main()
