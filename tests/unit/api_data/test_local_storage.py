"""Bytes are there whole or not at all, and no name leads out of the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from api.storage import LocalStorage, ObjectKey
from models import new_id
from scheduler.core.errors import NotFound, OutOfStorage, Unavailable

DATA = b"weights" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


def put(storage: LocalStorage, key: ObjectKey, data: bytes = DATA) -> None:
    staged = storage.stage(expected_bytes=len(data))
    staged.write(data)
    storage.keep(staged, key)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("part", [None, SHA], ids=["a file", "a file of a checkpoint"])
def test_what_was_kept_is_read_back(storage: LocalStorage, part: str | None) -> None:
    key = ObjectKey(new_id("file" if part is None else "ckpt"), part)

    put(storage, key)

    with storage.open(key) as file:
        assert file.read() == DATA
    assert storage.find_size(key) == len(DATA)
    assert storage.hash(key) == SHA
    assert files_below(storage.root / "staging") == []


def test_staged_bytes_are_counted_and_hashed(storage: LocalStorage) -> None:
    staged = storage.stage()
    staged.write(DATA[:10])
    staged.write(DATA[10:])

    assert (staged.size_bytes, staged.sha256) == (len(DATA), SHA)
    staged.discard()


def test_discarded_bytes_leave_nothing(storage: LocalStorage) -> None:
    staged = storage.stage()
    staged.write(DATA)

    staged.discard()
    staged.discard()

    assert files_below(storage.root) == []


def test_folders_and_files_are_for_the_owner_only(storage: LocalStorage) -> None:
    key = ObjectKey(new_id("ckpt"), SHA)

    put(storage, key)

    modes = {path.stat().st_mode & 0o077 for path in storage.root.rglob("*")}
    assert modes == {0}


@pytest.mark.parametrize(
    "key",
    [
        ObjectKey("../../etc/passwd"),
        ObjectKey("file_../../../../etc/passwd00"),
        ObjectKey("file_%2e%2e%2f"),
        ObjectKey("job_01k9x00000000000000000000"),
        ObjectKey(""),
        ObjectKey("file_" + "0" * 26 + "\n"),
        ObjectKey("ckpt_" + "0" * 26, "../../x"),
        ObjectKey("ckpt_" + "0" * 26, "A" * 64),
        ObjectKey("ckpt_" + "0" * 26, "a" * 64 + "\0"),
    ],
)
def test_what_is_no_id_is_no_path(storage: LocalStorage, key: ObjectKey) -> None:
    with pytest.raises(NotFound):
        storage.path(key)


def test_deleting_twice_is_no_error(storage: LocalStorage) -> None:
    file, checkpoint = ObjectKey(new_id("file")), ObjectKey(new_id("ckpt"), SHA)
    put(storage, file)
    put(storage, checkpoint)

    for _ in range(2):
        storage.delete(file.owner_id)
        storage.delete(checkpoint.owner_id)

    assert storage.find_size(file) is None
    assert not storage.path(checkpoint).parent.exists()


def test_a_reader_is_not_disturbed_by_a_delete(storage: LocalStorage) -> None:
    key = ObjectKey(new_id("ckpt"), SHA)
    put(storage, key)

    with storage.open(key) as file:
        storage.delete(key.owner_id)
        assert file.read() == DATA

    with pytest.raises(NotFound):
        storage.open(key)


@pytest.mark.parametrize(
    ("number", "want"),
    [(errno.ENOSPC, OutOfStorage), (errno.EDQUOT, OutOfStorage), (errno.EIO, Unavailable)],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_failing_disk_is_an_error_and_no_half_file(
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    want: type[Exception],
) -> None:
    def fail(*_args: Any) -> None:
        raise OSError(number, "injected")

    key = ObjectKey(new_id("file"))
    staged = storage.stage()
    monkeypatch.setattr(os, call, fail)

    def write_and_keep() -> None:
        staged.write(DATA)
        storage.keep(staged, key)

    with pytest.raises(want):
        write_and_keep()

    monkeypatch.undo()
    staged.discard()
    assert files_below(storage.root) == []


def test_what_cannot_fit_is_refused_before_it_is_written(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 10**9
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(total, 0, 10**8)
    )

    with pytest.raises(OutOfStorage, match="free some space"):
        storage.stage(expected_bytes=10**8)

    storage.stage(expected_bytes=10**7).discard()


def test_staged_bytes_that_nobody_wants_are_swept(storage: LocalStorage) -> None:
    left = storage.stage()
    left.write(DATA)

    assert storage.sweep_staging(older_than=time.time() - 60) == 0
    assert storage.sweep_staging(older_than=time.time() + 60) == 1


def test_owners_of_bytes_are_listed_once_they_are_old_enough(storage: LocalStorage) -> None:
    file, checkpoint = ObjectKey(new_id("file")), ObjectKey(new_id("ckpt"), SHA)
    put(storage, file)
    put(storage, checkpoint)
    (storage.root / "files" / "README").write_text("not ours")

    assert list(storage.iter_owners(older_than=time.time() - 60)) == []
    assert set(storage.iter_owners(older_than=time.time() + 60)) == {
        file.owner_id,
        checkpoint.owner_id,
    }
