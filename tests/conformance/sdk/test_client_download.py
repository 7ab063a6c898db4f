"""A checkpoint comes home whole and right, or not at all."""

from pathlib import Path

import pytest

import trainmaster
from tests.conformance.sdk.fake_service import FakeService, Fault
from trainmaster import Client

WEIGHTS = bytes(range(256)) * 40
FILES = {"model.safetensors": WEIGHTS, "state/rank 0.bin": b"zero", "state/empty": b""}


@pytest.fixture
def checkpoint_id(service: FakeService) -> str:
    return service.add_checkpoint(service.add_job(), FILES)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".trainmaster-")
    }


def test_all_files_arrive_and_nothing_else(
    client: Client, checkpoint_id: str, tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []

    target = client.checkpoints.download(
        checkpoint_id, tmp_path / "here", progress=lambda *now: done.append(now)
    )

    assert contents(target) == FILES
    assert sorted(path.name for path in target.iterdir()) == ["model.safetensors", "state"]
    assert done[-1] == (10244, 10244)


def test_a_download_that_is_cut_goes_on_where_it_was(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/files/model.safetensors"
    service.faults.append(Fault("GET", path, cut_after=1000))
    service.faults.append(Fault("GET", path, cut_after=500))

    client.checkpoints.download(checkpoint_id, tmp_path)

    assert contents(tmp_path) == FILES
    ranges = [each.headers.get("Range") for each in service.requests("GET", path)]
    assert ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_a_download_given_up_is_resumed_by_the_next(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/files/model.safetensors"
    service.faults.append(Fault("GET", path, cut_after=1000))
    service.faults.append(Fault("GET", path, drop=True, count=1000))

    with pytest.raises(trainmaster.DownloadError, match="run the same again"):
        client.checkpoints.download(checkpoint_id, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    service.faults.clear()
    client.checkpoints.download(checkpoint_id, tmp_path)

    assert contents(tmp_path) == FILES
    assert service.requests("GET", path)[-1].headers["Range"] == "bytes=1000-"


def test_no_file_appears_before_all_are_there(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/files/state/rank 0.bin"
    service.faults.append(Fault("GET", path, status=404))

    with pytest.raises(trainmaster.NotFoundError):
        client.checkpoints.download(checkpoint_id, tmp_path)

    assert [entry.name for entry in tmp_path.iterdir()] == [f".trainmaster-{checkpoint_id}"]


def test_a_changed_byte_is_found_and_fetched_again(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/files/model.safetensors"
    service.faults.append(Fault("GET", path, flip=4321))

    client.checkpoints.download(checkpoint_id, tmp_path)

    assert contents(tmp_path) == FILES
    assert len(service.requests("GET", path)) == 2


def test_bytes_that_stay_wrong_are_never_given_out(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/files/model.safetensors"
    service.faults.append(Fault("GET", path, flip=4321, count=1000))

    with pytest.raises(trainmaster.IntegrityError, match="another SHA-256"):
        client.checkpoints.download(checkpoint_id, tmp_path)

    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a//b",
        "a/./b",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "a/",
        "x" * 300,
        ".trainmaster-ckpt_0001/000000.part",
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused_before_a_byte_is_written(
    client: Client, service: FakeService, tmp_path: Path, name: str
) -> None:
    hostile = service.add_checkpoint(service.add_job(), {"good": b"good", name: b"bad"})

    with pytest.raises(trainmaster.DownloadError, match="do not trust"):
        client.checkpoints.download(hostile, tmp_path / "here")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a/b"), ("x/y", "X")])
def test_two_names_for_one_place_are_refused(
    client: Client, service: FakeService, tmp_path: Path, names: tuple[str, str]
) -> None:
    hostile = service.add_checkpoint(service.add_job(), dict.fromkeys(names, b"x"))

    with pytest.raises(trainmaster.DownloadError, match="taken by another"):
        client.checkpoints.download(hostile, tmp_path)


def test_a_link_in_the_target_does_not_lead_out_of_it(
    client: Client, checkpoint_id: str, tmp_path: Path
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "state").symlink_to(outside)

    with pytest.raises(trainmaster.DownloadError, match="through a link"):
        client.checkpoints.download(checkpoint_id, inside)

    assert list(outside.iterdir()) == []


def test_other_files_are_kept_unless_said_otherwise(
    client: Client, checkpoint_id: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")

    with pytest.raises(trainmaster.DownloadError, match="is there already"):
        client.checkpoints.download(checkpoint_id, tmp_path)
    assert contents(tmp_path) == {"model.safetensors": b"mine"}
    client.checkpoints.download(checkpoint_id, tmp_path, overwrite=True)

    assert contents(tmp_path) == FILES


def test_what_is_there_already_is_not_fetched_again(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    client.checkpoints.download(checkpoint_id, tmp_path)
    before = len(service.seen)

    client.checkpoints.download(checkpoint_id, tmp_path)

    assert len(service.seen) == before + 1


def test_a_file_longer_or_shorter_than_its_manifest_is_refused(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"a": b"1234"})
    path = f"/v1/checkpoints/{checkpoint_id}/files/a"

    service.contents[path] = b"12345"
    with pytest.raises(trainmaster.IntegrityError, match="longer than"):
        client.checkpoints.download(checkpoint_id, tmp_path)
    service.contents[path] = b"123"
    with pytest.raises(trainmaster.IntegrityError):
        client.checkpoints.download(checkpoint_id, tmp_path)

    assert contents(tmp_path) == {}


def test_an_uncommitted_checkpoint_is_not_downloaded(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    checkpoint_id = service.add_checkpoint(service.add_job(), {"a": b"1"}, state="uploading")

    with pytest.raises(trainmaster.DownloadError, match="is uploading"):
        client.checkpoints.download(checkpoint_id, tmp_path)


def test_an_archive_appears_when_it_is_whole(
    client: Client, service: FakeService, checkpoint_id: str, tmp_path: Path
) -> None:
    path = f"/v1/checkpoints/{checkpoint_id}/archive"
    service.contents[path] = b"tar" * 1000
    service.faults.append(Fault("GET", path, cut_after=100))

    with pytest.raises(trainmaster.APIConnectionError):
        client.checkpoints.download_archive(checkpoint_id, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []
    client.checkpoints.download_archive(checkpoint_id, tmp_path / "a.tar")

    assert contents(tmp_path) == {"a.tar": b"tar" * 1000}
