"""Committing a rank's folder: whole or not at all, and nothing that is not the rank's own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from workers.supervisor.checkpoints import (
    Committer,
    Uploader,
    commit_folder,
    list_ready,
)
from workers.supervisor.link import Link
from workers.supervisor.manifest import BadCheckpoint, read_metrics


def make_folder(checkpoints: Path, **files: bytes) -> Path:
    folder = checkpoints / "tmp-a"
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_committed_folder_has_a_manifest_of_its_bytes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, weights=b"w", sub__a=b"")

    ready = commit_folder(tmp_path, folder, step=100, metrics={"loss": 0.5})

    assert ready.name.startswith("ready-000000000100-")
    manifest = json.loads((ready / "manifest.json").read_text())
    assert (manifest["step"], manifest["metrics"]) == (100, {"loss": 0.5})
    assert manifest["files"] == [
        {"path": "sub/a", "size_bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        {"path": "weights", "size_bytes": 1, "sha256": hashlib.sha256(b"w").hexdigest()},
    ]
    assert (ready / "files/weights").read_bytes() == b"w"
    assert list_ready(tmp_path) == [ready]
    assert [path.name for path in tmp_path.iterdir()] == [ready.name]


def test_links_and_special_files_are_refused_and_nothing_is_committed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    plants: list[Callable[[Path], None]] = [
        lambda path: path.symlink_to(canary),
        lambda path: path.hardlink_to(canary),
        os.mkfifo,
    ]
    for number, plant in enumerate(plants):
        checkpoints = tmp_path / str(number)
        folder = make_folder(checkpoints, good=b"1")
        plant(folder / "bad")

        with pytest.raises(BadCheckpoint):
            commit_folder(checkpoints, folder, step=1, metrics={})

        assert list_ready(checkpoints) == []


def test_only_a_folder_of_its_own_can_be_committed(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    make_folder(checkpoints, a=b"1")
    (tmp_path / "tmp-outside").mkdir()
    (checkpoints / "tmp-link").symlink_to(tmp_path / "tmp-outside")
    (checkpoints / "other").mkdir()
    (checkpoints / "tmp-empty").mkdir()

    for path in (
        tmp_path / "tmp-outside",
        checkpoints / "tmp-link",
        checkpoints / "other",
        checkpoints / "tmp-empty",
        checkpoints / "tmp-a" / ".." / ".." / "tmp-outside",
    ):
        with pytest.raises(BadCheckpoint):
            commit_folder(checkpoints, path, step=1, metrics={})


@pytest.mark.parametrize("step", [-1, 10**12])
def test_a_step_has_bounds(step: int, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="step"):
        commit_folder(tmp_path, make_folder(tmp_path, a=b"1"), step=step, metrics={})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a\\b", id="a backslash"),
        pytest.param("a\tb", id="a control character"),
        pytest.param("a\u202eb", id="a character that turns text around"),
        pytest.param(os.fsdecode(b"a\xff"), id="no text"),
        pytest.param("__".join(["a" * 200] * 3), id="too long a path"),
        pytest.param("__".join("a" * 33), id="too deep"),
    ],
)
def test_names_that_the_service_refuses_are_not_committed(name: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, good=b"1", **{name: b"1"})

    with pytest.raises(BadCheckpoint, match=r"rename|flatten"):
        commit_folder(tmp_path, folder, step=1, metrics={})

    assert list_ready(tmp_path) == []


def test_metrics_are_as_the_service_takes_them() -> None:
    odd = {"a": float("nan"), "b": float("-inf"), "c": True, "d": "NaN", "e": "text", "f": None}

    assert read_metrics(odd) == {"a": "NaN", "b": "-Infinity", "c": 1.0, "d": "NaN"}
    assert len(read_metrics({f"m{number}": 1.0 for number in range(300)})) == 256
    with pytest.raises(BadCheckpoint, match="printable"):
        read_metrics({"x" * 129: 1.0})


def test_odd_messages_are_refused_and_the_next_is_committed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, a=b"1")
    (tmp_path / "tmp-loop").symlink_to(tmp_path / "tmp-loop")
    uploader = Uploader(cast("Link", None), print)
    uploader.add = lambda ready: None  # type: ignore[method-assign]  # nobody uploads here
    committer = Committer(tmp_path, uploader)
    answers: list[dict[str, Any]] = []
    odd: list[dict[str, Any]] = [
        {"path": "/a\0b", "step": 1},
        {"path": str(folder), "step": 1, "metrics": {"loss": int("1" + "0" * 400)}},
        {"path": str(tmp_path / "tmp-loop" / "tmp-a"), "step": 1},
        {"path": str(folder), "step": [1]},
    ]

    for message in [*odd, {"path": str(folder), "step": 1}]:
        committer.add(message, answers.append)
    committer.finish()

    assert [answer["op"] for answer in answers] == [*["refused"] * len(odd), "committed"]
