"""Networks of this machine's own: hosts that are network namespaces, joined by a bridge.

Every host has one interface, `eth0`, limited in both directions by a token bucket. Needs root and
`ip` and `tc` of iproute2. What a network is made of goes with it: nothing is left in the machine's
own namespace, and what a killed run has left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTERFACE = "eth0"
_PREFIX = "tmbench"
_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that an interface has sent and received, headers of Ethernet and TCP/IP included."""

    sent: int
    received: int

    def since(self, earlier: Traffic) -> Traffic:
        """Return what has passed since then."""
        return Traffic(self.sent - earlier.sent, self.received - earlier.received)


@dataclass(frozen=True, slots=True)
class Host:
    """One network namespace."""

    name: str
    address: str

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process there; `more` goes to Popen."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, env=dict(environment), **more)

    def read_traffic(self) -> Traffic:
        """Return the counters of its interface."""
        lines = _run("ip", "netns", "exec", self.name, "cat", "/proc/net/dev").splitlines()
        (line,) = (each for each in lines if each.strip().startswith(f"{INTERFACE}:"))
        numbers = [int(number) for number in line.partition(":")[2].split()]
        return Traffic(sent=numbers[8], received=numbers[0])


def find_obstacle() -> str | None:
    """Return why no network can be made here; None where one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"{missing[0]} is missing: apt install iproute2" if missing else None


@contextlib.contextmanager
def running_network(hosts: int, *, rate_mbit: float = 1000.0) -> Iterator[list[Host]]:
    """Yield the hosts of a new network.

    Args:
        hosts: how many; at most 200.
        rate_mbit: of each host's interface, each way. There is always a limit: only what a token
            bucket has cut up is counted as the frames that it would be on a real wire.
    """
    _remove_abandoned()
    hub = f"{_PREFIX}-{os.getpid()}-hub"
    members = [
        Host(name=f"{_PREFIX}-{os.getpid()}-{number}", address=f"10.99.0.{number + 1}")
        for number in range(hosts)
    ]
    try:
        _run("ip", "netns", "add", hub)
        _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", hub, "link", "set", "bridge", "up")
        for number, host in enumerate(members):
            _join(hub, f"port{number}", host, rate_mbit)
        yield members
    finally:
        for name in (hub, *(host.name for host in members)):
            _remove(name)


def _join(hub: str, port: str, host: Host, rate_mbit: float) -> None:
    _run("ip", "netns", "add", host.name)
    peer = ("peer", "name", INTERFACE, "netns", host.name)
    _run("ip", "-n", hub, "link", "add", port, "type", "veth", *peer)
    _run("ip", "-n", hub, "link", "set", port, "master", "bridge", "up")
    _run("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", INTERFACE)
    for device in ("lo", INTERFACE):
        _run("ip", "-n", host.name, "link", "set", device, "up")
    for name, device in ((host.name, INTERFACE), (hub, port)):
        # 32 KiB is less than the largest packet the kernel hands over, so those are cut to frames.
        bucket = ("rate", f"{rate_mbit:g}mbit", "burst", "32kb", "latency", "100ms")
        _run("tc", "-n", name, "qdisc", "add", "dev", device, "root", "tbf", *bucket)


def _remove_abandoned() -> None:
    """Remove the namespaces of runs that did not live to do it."""
    folder = Path("/run/netns")
    for path in folder.iterdir() if folder.is_dir() else ():
        prefix, _, rest = path.name.partition("-")
        owner = rest.partition("-")[0]
        if prefix == _PREFIX and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _remove(path.name)


def _remove(name: str) -> None:
    # A namespace lives on as long as a process is in it: end what is left there.
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=_LIMIT_S)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
