"""What of a folder is packed, and that it packs the same every time."""

import os
import stat
import time
import zipfile
from pathlib import Path

import pytest

from trainmaster import _bundle
from trainmaster._bundle import list_entries, pack_file, pack_folder
from trainmaster._errors import BundleError
from trainmaster._ignore import is_ignored, parse_patterns


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in list_entries(folder)]


def test_what_nobody_wants_stays_at_home(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "pkg/model.py", "pkg/__pycache__/model.pyc", "x.pyc", ".git/config")
    write(tmp_path, ".venv/bin/python", "env/pyvenv.cfg", "env/lib/x.py", ".env", ".DS_Store")

    assert names_in(tmp_path) == ["pkg/model.py", "train.py"]


def test_the_ignore_file_adds_and_takes_back(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "data/big.bin", "data/small.txt", "notes.md", "docs/notes.md")
    write(tmp_path, ".env", "logs/a.log")
    (tmp_path / ".trainmasterignore").write_text("# mine\n*.bin\n/notes.md\nlogs/\n!.env\n\n")

    assert names_in(tmp_path) == [".env", "data/small.txt", "docs/notes.md", "train.py"]


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.pt", "a.pt", True),
        ("*.pt", "deep/er/a.pt", True),
        ("*.pt", "a.pth", False),
        ("/a.pt", "deep/a.pt", False),
        ("data/*.bin", "data/x.bin", True),
        ("data/*.bin", "more/data/x.bin", False),
        ("data/*.bin", "data/sub/x.bin", False),
        ("data/**", "data/sub/x.bin", True),
        ("**/cache/x", "a/b/cache/x", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("file?.txt", "file1.txt", True),
        ("file?.txt", "file/.txt", False),
        ("file[0-9]", "file7", True),
        ("file[!0-9]", "file7", False),
        ("a.b", "axb", False),
        ("a+b", "a+b", True),
    ],
)
def test_patterns_mean_what_they_mean_in_git(pattern: str, path: str, ignored: bool) -> None:
    assert is_ignored(path, parse_patterns([pattern]), is_folder=False) == ignored


def test_the_last_pattern_decides() -> None:
    patterns = parse_patterns(["*.txt", "!keep.txt", "keep.txt"])

    assert is_ignored("keep.txt", patterns, is_folder=False)
    assert not is_ignored("keep.txt", patterns[:2], is_folder=False)
    assert not is_ignored("logs", parse_patterns(["logs/"]), is_folder=False)


def test_the_same_content_packs_to_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "b.py", "a/c.py")
    write(two, "a/c.py", "b.py")
    os.utime(two / "b.py", (time.time() - 10_000,) * 2)
    (two / "b.py").chmod(0o600)

    pack_folder(one, tmp_path / "1.zip")
    pack_folder(two, tmp_path / "2.zip")

    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_scripts_stay_executable_and_content_whole(tmp_path: Path) -> None:
    write(tmp_path / "code", "run.sh", "ünïcode.txt")
    (tmp_path / "code" / "run.sh").chmod(0o700)

    pack_folder(tmp_path / "code", tmp_path / "b.zip")

    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert bundle.testzip() is None
        assert bundle.read("ünïcode.txt").decode() == "ünïcode.txt"
        modes = {info.filename: info.external_attr >> 16 for info in bundle.infolist()}
    assert modes == {"run.sh": stat.S_IFREG | 0o755, "ünïcode.txt": stat.S_IFREG | 0o644}


def test_a_file_that_packs_too_well_is_stored_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "code", "train.py")
    (tmp_path / "code" / "zeros").write_bytes(bytes(1024 * 1024))

    pack_folder(tmp_path / "code", tmp_path / "b.zip")

    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        ratios = [info.file_size / max(1, info.compress_size) for info in bundle.infolist()]
    assert max(ratios) < _bundle.RATIO_MAX


def test_a_single_script_is_a_bundle(tmp_path: Path) -> None:
    write(tmp_path, "train.py")

    pack_file(tmp_path / "train.py", tmp_path / "b.zip")

    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert bundle.namelist() == ["train.py"]


def test_a_link_within_the_folder_is_packed_as_its_file(tmp_path: Path) -> None:
    write(tmp_path, "real.py")
    (tmp_path / "link.py").symlink_to("real.py")

    entries = {entry.name: entry.source.name for entry in list_entries(tmp_path)}

    assert entries == {"link.py": "real.py", "real.py": "real.py"}


@pytest.mark.parametrize(
    ("target", "fact"),
    [
        ("/etc/hostname", "a link out of the folder"),
        ("../secret", "a link out of the folder"),
        ("sub", "a link to a folder"),
        ("missing", "a link to nothing"),
        ("link", "a link to nothing"),
    ],
)
def test_links_that_lead_elsewhere_are_named(tmp_path: Path, target: str, fact: str) -> None:
    write(tmp_path, "secret", "code/train.py", "code/sub/x.py")
    (tmp_path / "code" / "link").symlink_to(target)

    with pytest.raises(BundleError, match=f"link is {fact}"):
        list_entries(tmp_path / "code")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(BundleError, match="pipe is no regular file"):
        list_entries(tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x1bb", "/".join(["x" * 200] * 6)])
def test_names_that_no_bundle_may_have_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)

    with pytest.raises(BundleError, match="rename the file"):
        list_entries(tmp_path)


def test_limits_are_checked_before_anything_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a", "b", "c")

    monkeypatch.setattr(_bundle, "ENTRIES_MAX", 2)
    with pytest.raises(BundleError, match="has 3 files, a bundle at most 2"):
        list_entries(tmp_path)
    monkeypatch.setattr(_bundle, "ENTRIES_MAX", 10)
    monkeypatch.setattr(_bundle, "UNPACKED_BYTES_MAX", 2)
    with pytest.raises(BundleError, match="the largest file is"):
        list_entries(tmp_path)
    monkeypatch.setattr(_bundle, "UNPACKED_BYTES_MAX", 100)
    monkeypatch.setattr(_bundle, "PACKED_BYTES_MAX", 100)
    with pytest.raises(BundleError, match="packed, the code has"):
        pack_folder(tmp_path, tmp_path.parent / "b.zip")


def test_an_empty_folder_is_no_code(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no files to pack"):
        list_entries(tmp_path)
