"""Which files a checkpoint may have, and which checkpoints are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.checkpoints.manifest import FILE_BYTES_MAX, ManifestFile, check_files, find_path_fault
from api.checkpoints.retention import Candidate, decide_expired
from scheduler.core.spec import CheckpointPolicy, KeepBest

SHA = "a" * 64


@pytest.mark.parametrize(
    "path", ["model.pt", "a/b/c.bin", "ü/€.safetensors", "a b", "100%;x", "..a"]
)
def test_plain_relative_paths_are_good(path: str) -> None:
    assert find_path_fault(path) is None


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb", "a\u202eb",
     "x" * 513, "x/" * 32 + "x", "ü" * 200],
)  # fmt: skip
def test_paths_that_could_lead_elsewhere_are_refused(path: str) -> None:
    assert find_path_fault(path) is not None


@pytest.mark.parametrize(
    ("file", "pointer"),
    [
        (ManifestFile("../a", 1, SHA), "/files/1/path"),
        (ManifestFile("m", 1, SHA), "/files/1/path"),
        (ManifestFile("m/below", 1, SHA), "/files/1/path"),
        (ManifestFile("n", -1, SHA), "/files/1/size_bytes"),
        (ManifestFile("n", FILE_BYTES_MAX + 1, SHA), "/files/1/size_bytes"),
        (ManifestFile("n", 1, "A" * 64), "/files/1/sha256"),
    ],
)
def test_every_fault_of_a_manifest_is_named(file: ManifestFile, pointer: str) -> None:
    problems = check_files([ManifestFile("m", 1, SHA), file])

    assert [problem.pointer for problem in problems] == [pointer]


def test_a_checkpoint_has_some_files_but_not_too_many() -> None:
    many = [ManifestFile(str(index), 0, SHA) for index in range(10_001)]

    assert [problem.pointer for problem in check_files([])] == ["/files"]
    assert [problem.pointer for problem in check_files(many)] == ["/files"]
    assert check_files(many[:10_000]) == ()


def candidates(*accuracies: object, pinned: tuple[int, ...] = ()) -> list[Candidate]:
    """Return checkpoints 0, 1 … from the newest on."""
    return [
        Candidate(checkpoint_id=str(index), metrics={"acc": value}, is_pinned=index in pinned)
        for index, value in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("keep_last", "best", "want"),
    [
        pytest.param(2, None, ["2", "3"], id="the newest two stay"),
        pytest.param(1, KeepBest(metric="acc"), ["1", "2"], id="and the best"),
        pytest.param(1, KeepBest(metric="acc", mode="min"), ["1", "3"], id="the least is best"),
        pytest.param(1, KeepBest(metric="acc", count=2), ["2"], id="the best two"),
        pytest.param(1, KeepBest(metric="other"), ["1", "2", "3"], id="none has the metric"),
        pytest.param(0, None, ["1", "2", "3"], id="the newest always stays"),
    ],
)
def test_the_policy_decides_what_goes(
    keep_last: int, best: KeepBest | None, want: list[str]
) -> None:
    policy = CheckpointPolicy(keep_last=keep_last, keep_best=best)

    expired = decide_expired(candidates(0.3, 0.5, 0.2, 0.9), policy, in_use=())

    assert expired == want


def test_what_is_pinned_or_in_use_never_goes() -> None:
    policy = CheckpointPolicy(keep_last=1)

    expired = decide_expired(candidates(1, 2, 3, 4, pinned=(2,)), policy, in_use={"3"})

    assert expired == ["1"]


def test_what_is_no_number_is_never_the_best() -> None:
    policy = CheckpointPolicy(keep_last=1, keep_best=KeepBest(metric="acc"))

    expired = decide_expired(candidates(0.1, "NaN", True, 0.2, "Infinity", None), policy, in_use=())

    assert expired == ["1", "2", "4", "5"]


def test_of_equally_good_ones_the_newer_stays() -> None:
    policy = CheckpointPolicy(keep_last=1, keep_best=KeepBest(metric="acc"))

    assert decide_expired(candidates(0.1, 0.9, 0.9), policy, in_use=()) == ["2"]


@given(
    accuracies=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    keep_last=st.integers(0, 5),
    count=st.integers(1, 4),
)
def test_as_many_stay_as_the_policy_names_at_most(
    accuracies: list[float], keep_last: int, count: int
) -> None:
    policy = CheckpointPolicy(keep_last=keep_last, keep_best=KeepBest(metric="acc", count=count))

    kept = len(accuracies) - len(decide_expired(candidates(*accuracies), policy, in_use=()))

    assert min(len(accuracies), max(keep_last, 1, count)) <= kept <= max(keep_last, 1) + count
