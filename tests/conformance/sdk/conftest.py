"""A fake service, a client of it whose waits cost nothing, and the command line on both."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conformance.sdk.fake_service import KEY, FakeService
from trainmaster import Client
from trainmaster.cli import program
from trainmaster.cli.session import Session


class FakeTime:
    """Real time that can be pushed on: sleeping is done at once, and remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def clock(self) -> float:
        return time.monotonic() + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def faketime() -> FakeTime:
    return FakeTime()


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as running:
        yield running


@pytest.fixture(autouse=True)
def _nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a stored login nor an admin key of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def make_client(faketime: FakeTime) -> Callable[..., Client]:
    def make(url: str, api_key: str | None = KEY, **options: Any) -> Client:
        return Client(
            url,
            api_key,
            clock=faketime.clock,
            sleep=faketime.sleep,
            jitter=lambda: 0.5,
            **options,
        )

    return make


@pytest.fixture
def client(service: FakeService, make_client: Callable[..., Client]) -> Iterator[Client]:
    with make_client(service.url) as made:
        yield made


@pytest.fixture
def run(service: FakeService, make_client: Callable[..., Client]) -> Callable[..., Result]:
    """Run the command line against the fake service."""

    def run_program(*args: str, service_url: str = service.url, **options: Any) -> Result:
        def connect(url: str | None, api_key: str | None = None, *, on_retry: Any) -> Client:
            return make_client(url or service_url, api_key or KEY, on_retry=on_retry)

        session = Session(connect=connect)
        return CliRunner().invoke(program, list(args), obj=session, **options)

    return run_program
