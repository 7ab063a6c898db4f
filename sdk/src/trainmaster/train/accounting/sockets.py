"""What this process has put on the wire, as the kernel counts it for each TCP connection.

Whoever opened them: gloo, nccl, our own servers. Linux only; elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# Ethernet, IP and TCP with timestamps: what each segment carries besides its bytes.
HEADER_BYTES = 14 + 20 + 32

_DESCRIPTORS = Path("/proc/self/fd")
_INFO_BYTES = 216
# struct tcp_info of linux/tcp.h, since 4.19: bytes_received, segs_out, segs_in; bytes_sent, which
# counts what is sent again once more.
_RECEIVED_AT, _SEGMENTS_AT, _SENT_AT = 128, 136, 200


@dataclass(frozen=True)
class Wire:
    """Bytes sent and received, headers included."""

    sent: int = 0
    received: int = 0


class Connections:
    """The TCP connections of this process, those that are closed by now included."""

    def __init__(self) -> None:
        self._last: dict[str, Wire] = {}

    def read(self) -> Wire | None:
        """Return the sums, None where the kernel does not tell.

        A connection that was opened and closed between two calls is missed.
        """
        if not _DESCRIPTORS.is_dir():
            return None
        for entry in os.scandir(_DESCRIPTORS):
            with contextlib.suppress(OSError, struct.error):
                place = Path(entry.path).readlink().name
                if place.startswith("socket:"):
                    wire = _read_connection(int(entry.name))
                    if wire is not None:
                        self._last[place] = wire
        sums = self._last.values()
        return Wire(sum(each.sent for each in sums), sum(each.received for each in sums))


def _read_connection(descriptor: int) -> Wire | None:
    with socket.socket(fileno=os.dup(descriptor)) as other:
        is_tcp = other.family in {socket.AF_INET, socket.AF_INET6} and (
            other.type & socket.SOCK_STREAM
        )
        if not is_tcp:
            return None
        info = other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    (received,) = struct.unpack_from("=Q", info, _RECEIVED_AT)
    segments_out, segments_in = struct.unpack_from("=II", info, _SEGMENTS_AT)
    (sent,) = struct.unpack_from("=Q", info, _SENT_AT)
    return Wire(
        sent=sent + segments_out * HEADER_BYTES, received=received + segments_in * HEADER_BYTES
    )
