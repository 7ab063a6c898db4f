"""The key goes to the address it is for, and nowhere else."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import trainmaster
from tests.conformance.sdk.fake_service import KEY, FakeService, Fault
from trainmaster import Client


@pytest.fixture
def stranger() -> Iterator[FakeService]:
    """Another address: the same host, another port."""
    with FakeService(require_key=False) as running:
        yield running


def test_a_download_may_be_sent_elsewhere_and_the_key_stays_here(
    client: Client, service: FakeService, stranger: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"weights": b"1234567890"})
    path = f"/v1/checkpoints/{checkpoint_id}/files/weights"
    stranger.contents["/bucket/weights"] = b"1234567890"
    stranger.faults.append(Fault("GET", "/bucket", cut_after=4))
    away = Fault("GET", path, location=f"{stranger.url}/bucket/weights?sig=1", count=2)
    service.faults.append(away)

    client.checkpoints.download(checkpoint_id, tmp_path)

    assert (tmp_path / "weights").read_bytes() == b"1234567890"
    assert [each.headers.get("Range") for each in stranger.seen] == [None, "bytes=4-"]
    assert not any(KEY in str(each.headers) for each in stranger.seen)


def test_the_key_does_not_come_back_through_a_stranger(
    client: Client, service: FakeService, stranger: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"weights": b"12"})
    path = f"/v1/checkpoints/{checkpoint_id}/files/weights"
    service.faults.append(Fault("GET", path, location=f"{stranger.url}/x"))
    stranger.faults.append(Fault("GET", "/x", location=f"{service.url}/v1/keys"))

    with pytest.raises(trainmaster.AuthenticationError):
        client.checkpoints.download(checkpoint_id, tmp_path)

    assert "Authorization" not in service.requests("GET", "/v1/keys")[0].headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_ordinary_request_is_not_sent_elsewhere(
    client: Client, service: FakeService, stranger: FakeService, method: str
) -> None:
    service.faults.append(Fault(method, "/v1/jobs", location=f"{stranger.url}/v1/jobs"))

    with pytest.raises(trainmaster.APIResponseError, match="set TRAINMASTER_URL"):
        client.jobs.list() if method == "GET" else client.jobs.submit(recipe="x")

    assert not stranger.seen


def test_a_redirect_within_the_service_is_followed_with_the_key(
    client: Client, service: FakeService
) -> None:
    job_id = service.add_job()
    service.faults.append(Fault("GET", "/v1/jobs/old", location=f"/v1/jobs/{job_id}"))

    assert client.jobs.get("old").id == job_id


def test_a_redirect_to_an_unencrypted_address_is_not_followed(
    make_client: Callable[..., Client], tmp_path: Path
) -> None:
    hosts: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(str(request.url))
        if request.url.path.endswith("ckpt_1"):
            file = {"path": "a", "size_bytes": 1, "sha256": "00"}
            return httpx.Response(200, json={"id": "ckpt_1", "files": [file]})
        return httpx.Response(307, headers={"Location": "http://bucket.example/a"})

    with (
        make_client("https://tm.example", http=httpx.MockTransport(answer)) as client,
        pytest.raises(trainmaster.APIError, match="key is not sent there"),
    ):
        client.checkpoints.download("ckpt_1", tmp_path)

    assert all(host.startswith("https://tm.example/") for host in hosts)


def test_a_circle_of_redirects_ends(client: Client, service: FakeService) -> None:
    service.faults.append(Fault("GET", "/v1/jobs/a", location="/v1/jobs/a", count=100))

    with pytest.raises(trainmaster.APIResponseError, match="more than 5 times"):
        client.jobs.get("a")


def test_a_proxy_of_the_environment_never_sees_the_key_of_this_machine(
    service: FakeService,
    stranger: FakeService,
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", stranger.url)
    monkeypatch.setenv("ALL_PROXY", stranger.url)

    with make_client(service.url) as client:
        client.jobs.list()

    assert len(service.seen) == 1
    assert not stranger.seen
