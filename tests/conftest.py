"""What holds for every test: no network but loopback, no settings of whoever runs them."""

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import hypothesis
import pytest

# Machines that run tests are busy: a slow example is no failure.
hypothesis.settings.register_profile("trainmaster", deadline=None, print_blob=True)
hypothesis.settings.load_profile("trainmaster")


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """Refuse connections from this process to anywhere but this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_the_world(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_the_world(self, address)
        return connect_ex(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """Hide the TRAINMASTER_ variables of the shell; TRAINMASTER_TEST_ ones are for the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("TRAINMASTER_") and not name.startswith("TRAINMASTER_TEST_"):
                patch.delenv(name)
        yield


def _refuse_the_world(connection: socket.socket, address: Any) -> None:
    if connection.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address[0]):
        raise RuntimeError(f"a test connects to {address[0]}: only loopback is allowed")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
