"""A checkpoint as a folder, off the service."""

import json
import os
from pathlib import Path

import pytest

from trainmaster._checkpoint_folder import (
    commit_folder,
    flush_folder,
    fresh_folder,
    hash_file,
    open_checkpoint,
    prune,
)
from trainmaster._job_errors import RunError


def commit(checkpoints: Path, step: int, text: str = "weights") -> Path:
    """Make a checkpoint with one file; return its folder."""
    folder = fresh_folder(checkpoints, 0)
    (folder / "part").mkdir()
    (folder / "part" / "model.bin").write_text(text)
    flush_folder(folder)
    return commit_folder(folder, checkpoints, step, {"loss": 0.5}).path.parent


def test_the_manifest_names_every_file_by_size_and_hash(tmp_path: Path) -> None:
    ready = commit(tmp_path, 7)

    manifest = json.loads((ready / "manifest.json").read_text())

    path = ready / "files" / "part" / "model.bin"
    assert manifest["files"] == [
        {"path": "part/model.bin", "size_bytes": 7, "sha256": hash_file(path)}
    ]
    assert (manifest["step"], manifest["metrics"]) == (7, {"loss": 0.5})


def test_a_crash_while_committing_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename to the final name is the last act: before each one, there is nothing to find."""
    renames = 0
    real_rename = Path.rename

    def crash_at_last(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if target.name.startswith("ready-"):
            assert (self / "manifest.json").is_file()
            raise KeyboardInterrupt
        return real_rename(self, target)

    monkeypatch.setattr(Path, "rename", crash_at_last)
    with pytest.raises(KeyboardInterrupt):
        commit(tmp_path, 7)

    assert renames == 2
    with pytest.raises(RunError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (30, 5, 100, 20):
        commit(tmp_path, step)

    prune(tmp_path, 2)

    assert sorted(path.name[:18] for path in tmp_path.iterdir()) == [
        "ready-000000000030",
        "ready-000000000100",
    ]


def test_of_two_checkpoints_of_one_step_the_later_is_the_newest(tmp_path: Path) -> None:
    first, second = commit(tmp_path, 5, "first"), commit(tmp_path, 5, "second")
    os.utime(first, ns=(1, 1))

    prune(tmp_path, 1)

    assert list(tmp_path.iterdir()) == [second]


@pytest.mark.parametrize(
    "below", ["", "checkpoints", "checkpoints/{ready}", "checkpoints/{ready}/files"]
)
def test_a_checkpoint_is_found_from_any_folder_around_it(tmp_path: Path, below: str) -> None:
    commit(tmp_path / "checkpoints", 3)
    ready = commit(tmp_path / "checkpoints", 12)

    found = open_checkpoint(tmp_path / below.format(ready=ready.name))

    assert (found.step, found.path) == (12, ready / "files")


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path: Path, damage: str) -> None:
    path = commit(tmp_path, 3) / "files" / "part" / "model.bin"
    if damage == "changed":
        path.write_text("weighty")
    else:
        path.unlink()

    with pytest.raises(RunError, match="resume from another checkpoint"):
        open_checkpoint(tmp_path)


def test_links_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/etc/hostname")

    with pytest.raises(RunError, match="link: copy the file itself"):
        flush_folder(tmp_path / "folder")


def test_pipes_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "pipe")

    with pytest.raises(RunError, match="not a regular file"):
        flush_folder(tmp_path / "folder")


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "folder" / "empty").mkdir(parents=True)

    with pytest.raises(RunError, match="holds no file"):
        flush_folder(tmp_path / "folder")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        pytest.param("a\\b", "rename", id="a backslash"),
        pytest.param("a\nb", "rename", id="a control character"),
        pytest.param("a\u202eb", "rename", id="a character that turns text around"),
        pytest.param(os.fsdecode(b"a\xff"), "rename", id="no text"),
        pytest.param("/".join(["a" * 200] * 3), "rename", id="too long a path"),
        pytest.param("/".join("a" * 33), "flatten", id="too deep"),
    ],
)
def test_names_that_the_service_refuses_are_refused_before_anything_is_committed(
    name: str, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")

    with pytest.raises(RunError, match=advice):
        flush_folder(tmp_path / "folder")


def test_a_manifest_is_json_whatever_the_metrics_are(tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path, 0)
    (folder / "a").write_text("1")

    ready = commit_folder(folder, tmp_path, 1, {"loss": float("nan")}).path.parent

    assert json.loads((ready / "manifest.json").read_text())["metrics"] == {"loss": "NaN"}
