"""A run folder that the job has tampered with: nothing is followed, nothing blocks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from workers.supervisor import delivery
from workers.supervisor.files import find_json, open_regular, write_json
from workers.supervisor.layout import RunFolder
from workers.supervisor.link import Link
from workers.supervisor.logs import LogTail

PLANTS: list[Any] = [
    pytest.param(lambda path, canary: path.symlink_to(canary), id="a link"),
    pytest.param(lambda path, _canary: os.mkfifo(path), id="a pipe"),
    pytest.param(lambda path, _canary: path.mkdir(), id="a folder"),
    pytest.param(
        lambda path, canary: (path.parent.rmdir(), path.parent.symlink_to(canary.parent)),
        id="a link in place of the folder",
    ),
]


def put_pipe(folder: Path) -> None:
    folder.rmdir()
    os.mkfifo(folder)


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_in_a_files_place_is_not_opened(
    plant: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    canary = tmp_path / "elsewhere" / "0.stderr"
    canary.parent.mkdir()
    canary.write_text("secret")
    path = tmp_path / "logs" / "0.stderr"
    path.parent.mkdir()
    plant(path, canary)

    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
        with pytest.raises(OSError, match=r"Errno"):
            open_regular(path, flags)
    with pytest.raises(OSError, match=r"Errno"):
        LogTail(path, 0, "stderr").send(cast("Link", None))

    assert canary.read_text() == "secret"


def test_a_pipe_in_place_of_a_document_is_no_document(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "exit.json")

    assert find_json(tmp_path / "exit.json") is None


@pytest.mark.parametrize(
    ("damage", "is_lost"),
    [
        pytest.param(lambda run: run.handover.unlink(), True, id="the handover is gone"),
        pytest.param(lambda run: run.path.rename(run.path.parent / "x"), True, id="all is gone"),
        pytest.param(lambda run: run.logs.rmdir(), False, id="the logs are gone"),
        pytest.param(lambda run: put_pipe(run.spool), False, id="a pipe as spool"),
        pytest.param(
            lambda run: os.mkfifo(run.log(0, "stderr")), False, id="a pipe as a rank's output"
        ),
    ],
)
def test_damage_is_seen(
    damage: Callable[[RunFolder], object], is_lost: bool, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "att_1")
    run.path.mkdir()
    run.make()
    write_json(run.handover, {})
    assert not run.is_damaged()

    damage(run)

    assert (run.is_lost, run.is_damaged()) == (is_lost, True)


def test_an_exit_finds_room_on_a_full_disk_among_what_only_ranks_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.make()
    (run.tmp / "large").write_text("x")

    def write(path: Path, value: dict[str, Any]) -> None:
        if (run.tmp / "large").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    monkeypatch.setattr(delivery, "write_json", write)

    delivery.write_exit(run, {"outcome": "failed"})

    assert find_json(run.exit_record) == {"record": {"outcome": "failed"}, "reported": False}


def test_what_a_supervisor_says_on_a_full_disk_is_lost_and_no_error() -> None:
    script = (
        "import sys, traceback\n"
        "from workers.supervisor.murmur import Murmur\n"
        "sys.stderr = Murmur()\n"
        "sys.stderr.write('lost\\n'); traceback.print_stack(); sys.stderr.flush()\n"
    )
    with Path("/dev/full").open("w") as full:
        subprocess.run([sys.executable, "-c", script], stderr=full, check=True, timeout=30)
