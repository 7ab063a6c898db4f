"""What is uploaded arrives whole, once, or is refused before it leaves."""

import io
import zipfile
from pathlib import Path

import pytest

import trainmaster
from tests.conformance.sdk.fake_service import FakeService, Fault
from trainmaster import Client, _bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "project"
    (code / "pkg").mkdir(parents=True)
    (code / "train.py").write_text("import pkg")
    (code / "pkg" / "__init__.py").write_text("")
    return code


def stored(service: FakeService, file_id: str) -> bytes:
    return service.contents[f"/v1/files/{file_id}/content"]


def test_a_folder_is_sent_as_a_bundle_with_its_hash_checked(
    client: Client, service: FakeService, folder: Path
) -> None:
    done: list[tuple[int, int]] = []

    file = client.files.upload(folder, progress=lambda *now: done.append(now))

    with zipfile.ZipFile(io.BytesIO(stored(service, file.id))) as bundle:
        assert bundle.namelist() == ["pkg/__init__.py", "train.py"]
    assert (file.filename, file.purpose) == ("project.zip", "code")
    assert done == [(file.size_bytes, file.size_bytes)]
    assert service.seen[0].headers["Content-Length"] == str(file.size_bytes)
    assert "Transfer-Encoding" not in service.seen[0].headers


def test_the_same_folder_is_the_same_file(client: Client, folder: Path) -> None:
    assert client.files.upload(folder).sha256 == client.files.upload(folder).sha256


def test_an_upload_whose_reply_is_lost_leaves_one_file(
    client: Client, service: FakeService, folder: Path
) -> None:
    service.faults.append(Fault("POST", "/v1/files", drop=True, count=2))

    file = client.files.upload(folder)

    first, *others = service.requests("POST", "/v1/files")
    assert len(others) == 2
    assert all(each.body == first.body for each in others)
    assert list(service.contents) == [f"/v1/files/{file.id}/content"]


def test_an_archive_and_an_input_go_as_they_are(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "code.tar.gz").write_bytes(b"archive")
    (tmp_path / "data.npz").write_bytes(b"")

    code = client.files.upload(tmp_path / "code.tar.gz")
    data = client.files.upload(tmp_path / "data.npz", purpose="input", filename="train.npz")

    assert stored(service, code.id) == b"archive"
    assert stored(service, data.id) == b""
    assert data.filename == "train.npz"


def test_other_bytes_in_the_store_than_were_sent_are_noticed(
    client: Client, service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conformance.sdk.fake_service.sha256", lambda _: "00" * 32)

    with pytest.raises(trainmaster.IntegrityError, match="other bytes"):
        client.files.upload(folder)


def test_what_is_too_large_never_leaves(
    client: Client, service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bundle, "UNPACKED_BYTES_MAX", 3)

    with pytest.raises(trainmaster.BundleError):
        client.files.upload(folder)
    with pytest.raises(trainmaster.ConfigurationError, match="does not exist"):
        client.files.upload(folder / "nowhere")

    assert not service.seen
