"""What a bundle may hold, and all that it may not."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from workers.supervisor.bundle import BadBundle, Limits, check_name, unpack

SMALL = Limits(bytes_total=10_000, entries=10, depth=3, ratio_free_bytes=20_000)


def make_tar(
    *members: tuple[str, bytes | None, dict[str, object]], mode: Literal["w", "w:gz"] = "w"
) -> bytes:
    """Return a tar of (name, content or None, attributes of TarInfo)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content) if content is not None else None)
    return buffer.getvalue()


def make_zip(*members: tuple[str, bytes, int], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of (name, content, unix mode)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            archive.writestr(info, content)
    return buffer.getvalue()


def patch(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


def unpack_bytes(content: bytes, folder: Path, name: str = "code", limits: Limits = SMALL) -> Path:
    (folder / "bundle").write_bytes(content)
    into = folder / "into"
    into.mkdir()
    unpack(folder / "bundle", name, into, limits)
    return into


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


FILES = {"train.py": b"print(1)", "pkg/a.py": b"a = 1", "pkg/data/empty": b""}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(make_zip(*((name, data, 0) for name, data in FILES.items())), id="zip"),
        pytest.param(
            make_zip(*((n, d, 0) for n, d in FILES.items()), compression=zipfile.ZIP_STORED),
            id="stored zip",
        ),
        pytest.param(make_tar(*((name, data, {}) for name, data in FILES.items())), id="tar"),
        pytest.param(
            make_tar(*((name, data, {}) for name, data in FILES.items()), mode="w:gz"), id="tar.gz"
        ),
        pytest.param(
            make_tar(
                ("./", None, {"type": tarfile.DIRTYPE}),
                *((f"./{name}", data, {}) for name, data in FILES.items()),
            ),
            id="tar of the current folder",
        ),
    ],
)
def test_every_kind_of_bundle_unpacks_to_the_same_files(content: bytes, tmp_path: Path) -> None:
    into = unpack_bytes(content, tmp_path)

    assert read_tree(into) == FILES
    assert stat.S_IMODE((into / "train.py").stat().st_mode) == 0o600
    assert stat.S_IMODE((into / "pkg").stat().st_mode) == 0o700


def test_long_names_survive_in_both_tar_dialects(tmp_path: Path) -> None:
    name = "a" * 120 + "/" + "b" * 120
    for number, dialect in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        folder = tmp_path / str(number)
        folder.mkdir()

        assert read_tree(unpack_bytes(buffer.getvalue(), folder)) == {name: b"x"}


def test_one_python_file_is_a_bundle_too(tmp_path: Path) -> None:
    assert read_tree(unpack_bytes(b"print(1)", tmp_path, "train.py")) == {"train.py": b"print(1)"}


def test_an_executable_stays_one(tmp_path: Path) -> None:
    into = unpack_bytes(make_tar(("run.sh", b"#!", {"mode": 0o755})), tmp_path)

    assert stat.S_IMODE((into / "run.sh").stat().st_mode) == 0o700


def bad_text_tar() -> bytes:
    header = bytearray(make_tar(("ab", b"x", {})))
    header[0:2] = b"\xff\xfe"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def lying_tar() -> bytes:
    header = bytearray(make_tar(("a", b"x", {})))
    header[124:136] = b"%011o\0" % 9_000
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header[:1024])


def duplicate_zip() -> bytes:
    return patch(make_zip(("aa", b"1", 0), ("ab", b"2", 0)), b"ab", b"aa")


def patch_zip_size(content: bytes, old: int, new: int) -> bytes:
    """Change the uncompressed size wherever the zip says it."""
    return content.replace(struct.pack("<L", old), struct.pack("<L", new))


def encrypted_zip() -> bytes:
    content = bytearray(make_zip(("a", b"x", 0)))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("a tar with a symbolic link",
     lambda: make_tar(("l", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})),
     "symbolic link"),
    ("a tar with a hard link",
     lambda: make_tar(("l", None, {"type": tarfile.LNKTYPE, "linkname": "x"})), "hard link"),
    ("a tar with a device", lambda: make_tar(("d", None, {"type": tarfile.CHRTYPE})), "device"),
    ("a tar with a block device",
     lambda: make_tar(("d", None, {"type": tarfile.BLKTYPE})), "block device"),
    ("a tar with a pipe", lambda: make_tar(("d", None, {"type": tarfile.FIFOTYPE})), "pipe"),
    ("a zip with a symbolic link",
     lambda: make_zip(("l", b"/etc/passwd", stat.S_IFLNK | 0o777)), "symbolic link"),
    ("a zip with a pipe", lambda: make_zip(("l", b"", stat.S_IFIFO | 0o600)), "special file"),
    ("a tar with an absolute name", lambda: make_tar(("/tmp/x", b"x", {})), "absolute"),
    ("a zip with an absolute name", lambda: make_zip(("/tmp/x", b"x", 0)), "absolute"),
    ("a tar that climbs", lambda: make_tar(("a/../../x", b"x", {})), "leads out"),
    ("a zip that climbs", lambda: make_zip(("../x", b"x", 0)), "leads out"),
    ("a zip with a backslash",
     lambda: patch(make_zip(("a#b", b"x", 0)), b"a#b", b"a\\b"), "backslash"),
    ("a zip with a zero in a name",
     lambda: patch(make_zip(("a#b", b"x", 0)), b"a#b", b"a\0b"), "control character"),
    ("a tar with a newline in a name", lambda: make_tar(("a\nb", b"x", {})), "control character"),
    ("a tar with a name that is no text",
     bad_text_tar, "not valid UTF-8"),
    ("a name twice in a zip", duplicate_zip, "twice"),
    ("a name twice in a tar", lambda: make_tar(("a", b"1", {}), ("./a", b"2", {})), "twice"),
    ("a file that is also a folder",
     lambda: make_tar(("a", b"1", {}), ("a/b", b"2", {})), "both a file and a folder"),
    ("a folder that is also a file",
     lambda: make_tar(("a/b", b"1", {}), ("a", b"2", {})), "twice"),
    ("too many entries",
     lambda: make_tar(*((f"f{i}", b"", {}) for i in range(11))), "more than 10 entries"),
    ("too many bytes", lambda: make_tar(("a", b"x" * 10_001, {})), "unpacks to more than"),
    ("too deep", lambda: make_tar(("a/b/c/d", b"x", {})), "folders deep"),
    ("too long a name", lambda: make_tar(("a" * 300, b"x", {})), "too long"),
    ("a tar cut short", lambda: make_tar(("a", b"x" * 2000, {}))[:1500], "shorter|cut short"),
    ("a tar.gz cut short",
     lambda: make_tar(("a", b"x" * 2000, {}), mode="w:gz")[:60], "damaged|cut short|shorter"),
    ("a tar whose header lies about the size",
     lying_tar, "shorter|cut short|unpacks to more"),
    ("a tar with a wrong checksum", lambda: patch(
        make_tar(("a", b"x", {}), ("b", b"x", {})), b"b" + bytes(99), b"c" + bytes(99)), "damaged"),
    ("a zip whose directory says less than is there",
     lambda: patch_zip_size(make_zip(("a", b"x" * 100, 0), compression=0), 100, 50),
     "damaged|long"),
    ("a zip whose directory says more than is there",
     lambda: patch_zip_size(make_zip(("a", b"x" * 100, 0)), 100, 200), "damaged|shorter"),
    ("a zip with a password", encrypted_zip, "encrypted"),
    ("a zip packed with bzip2",
     lambda: make_zip(("a", b"x", 0), compression=zipfile.ZIP_BZIP2), "unusual"),
    ("a zip whose directory would lie before its start", lambda: b"PK\x03\x04" + struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 100, 2**32 - 2, 0), "damaged"),
    ("a zip without a directory", lambda: b"PK\x03\x04" + bytes(100), "no directory"),
    ("a file that is no archive", lambda: b"hello", "neither a zip"),
    ("an empty file", lambda: b"", "neither a zip"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"), [pytest.param(make, words, id=name) for name, make, words in HOSTILE]
)
def test_hostile_bundles_are_refused_and_leave_nothing_outside(
    make: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadBundle, match=message):
        unpack_bytes(make(), tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "into"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_stopped_before_it_fills_the_disk(kind: str, tmp_path: Path) -> None:
    zeros = bytes(50 * 1024 * 1024)
    content = {
        "zip": lambda: make_zip(("a", zeros, 0)),
        "tar.gz": lambda: make_tar(("a", zeros, {}), mode="w:gz"),
    }[kind]()

    with pytest.raises(BadBundle):
        unpack_bytes(content, tmp_path, limits=Limits())

    written = sum(path.stat().st_size for path in (tmp_path / "into").rglob("*"))
    assert written <= Limits().ratio_free_bytes + len(content) * 100


def test_a_tar_whose_headers_are_the_bomb_is_stopped(tmp_path: Path) -> None:
    header = bytearray(make_tar(("a", b"x", {"type": tarfile.XHDTYPE}))[:512])
    header[124:136] = b"%011o\0" % (50 * 1024 * 1024)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = gzip.compress(bytes(header) + bytes(50 * 1024 * 1024))

    with pytest.raises(BadBundle, match="oversized header"):
        unpack_bytes(content, tmp_path)


@pytest.mark.parametrize(
    "name", ["/a", "../a", "a/../b", "a\\b", "a\0b", "a\nb", "\x7f", "a" * 300, "/".join("a" * 40)]
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(BadBundle):
        check_name(name)


def test_a_trillion_entries_in_the_directory_are_not_read(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**31, 0, 0)

    with pytest.raises(BadBundle, match="directory is too large"):
        unpack_bytes(b"PK\x03\x04" + end, tmp_path)
