"""Fetches the files of a manifest into a folder: resumable, verified, all or nothing.

Everything arrives in a staging folder inside the target. Only when all files are there with their
promised sizes and hashes are they renamed into place, so a folder never shows half a checkpoint.
The manifest is not trusted: a name can only mean a file below the target.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from trainmaster._calls import Call
from trainmaster._errors import APIConnectionError, APIStatusError, DownloadError, IntegrityError
from trainmaster._transport import Patience, Transport
from trainmaster.documents import CheckpointFile

_PIECE_BYTES = 1024 * 1024
_SILENCE_SECONDS = 60.0
_NAME_BYTES_MAX = 255
_IS_WINDOWS = os.name == "nt"
_RESERVED_THERE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What to fetch and how.

    `base_path` is the path on the service that the files' names are appended to; `progress` is
    told the bytes done and the bytes in all; `overwrite` allows replacing other files.
    """

    base_path: str
    files: Sequence[CheckpointFile]
    target: Path
    staging_name: str
    resume: bool = True
    verify: bool = True
    overwrite: bool = False
    progress: Callable[[int, int], None] | None = None


def fetch_files(transport: Transport, download: Download) -> None:
    """Fetch every file of a download that is not in place already.

    Raises:
        DownloadError: a name is not safe, other files are in the way, or it broke off; what came
            is kept in the staging folder, and the next call goes on from there.
        IntegrityError: the service sent other bytes than its manifest promises, twice.
    """
    check_names([file.path for file in download.files])
    target = download.target
    target.mkdir(parents=True, exist_ok=True)
    present = {file.path for file in download.files if _is_in_place(target, file, download)}
    staging = target / download.staging_name
    if not download.resume:
        shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700, exist_ok=True)
    meter = _Meter(download)
    meter.add(sum(file.size_bytes for file in download.files if file.path in present))
    parts = {
        file: staging / f"{index:06d}.part"
        for index, file in enumerate(download.files)
        if file.path not in present
    }
    for file, part in parts.items():
        _fetch_one(transport, download, file, part, meter)
    for file, part in parts.items():
        place = _place_of(target, file.path)
        _check_stays_inside(target, place)
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
    shutil.rmtree(staging, ignore_errors=True)


def check_names(paths: Sequence[str]) -> None:
    """Refuse names that could mean anything but a file of their own below the target.

    Raises:
        DownloadError: absolute, with `..`, control characters, reserved, too long, or two names
            for one place.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if not all(_is_safe_part(part) for part in parts):
            raise DownloadError(
                f"the file name {path!r} could leave the folder; nothing was written: "
                "do not trust this checkpoint"
            )
        # Lower case: some file systems see two names as one.
        lowered = path.lower()
        parents = {"/".join(lowered.split("/")[:depth]) for depth in range(1, len(parts))}
        if lowered in seen or lowered in folders or parents & seen:
            raise DownloadError(
                f"the file name {path!r} is taken by another file of the checkpoint; "
                "nothing was written"
            )
        seen.add(lowered)
        folders |= parents


class _Meter:
    """Adds up the bytes of all files for one progress report."""

    def __init__(self, download: Download) -> None:
        self._report = download.progress
        self._total_bytes = sum(file.size_bytes for file in download.files)
        self._done_bytes = 0

    def add(self, num_bytes: int) -> None:
        self._done_bytes += num_bytes
        if self._report is not None and num_bytes:
            self._report(self._done_bytes, self._total_bytes)


class _Part:
    """One file on its way: the bytes that are there, and the furthest it ever got."""

    def __init__(
        self,
        transport: Transport,
        download: Download,
        file: CheckpointFile,
        path: Path,
        meter: _Meter,
    ) -> None:
        self._transport = transport
        self._file = file
        self._url_path = f"{download.base_path}/{quote(file.path)}"
        self._path = path
        self._meter = meter
        self._patience = Patience(transport, transport.retry_seconds)
        path.touch()
        self._have = path.stat().st_size
        self._furthest = self._have
        meter.add(self._have)
        if self._have > file.size_bytes:
            self.drop()

    def forget(self) -> None:
        """Begin again, and with new patience: what came was wrong."""
        self.drop()
        self._furthest = 0

    def drop(self) -> None:
        """Begin again with nothing."""
        self._path.write_bytes(b"")
        self._meter.add(-self._have)
        self._have = 0

    def fetch(self) -> None:
        """Bring it to its promised size, over as many requests as it takes."""
        has_restarted = False
        while self._have < self._file.size_bytes:
            before = self._furthest
            try:
                self._fetch_rest()
            except APIStatusError as error:
                if error.status == 416 and self._have and not has_restarted:
                    has_restarted = True  # the service sees another file: from the first byte
                    self.drop()
                else:
                    self._patience.wait_after(error)
            except APIConnectionError as error:
                self._wait_after_cut(error)
            except IntegrityError:
                self.drop()
                raise
            else:
                if self._have < self._file.size_bytes and self._furthest == before:
                    raise IntegrityError(
                        f"{self._file.path} ends after {self._have} of the manifest's "
                        f"{self._file.size_bytes} bytes: choose another checkpoint"
                    )

    def _fetch_rest(self) -> None:
        """Read one answer to its end."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
        call = Call(
            method="GET",
            path=self._url_path,
            headers=headers,
            timeout_seconds=_SILENCE_SECONDS,
        )
        with self._transport.open(call, may_leave=True) as response:
            self._check_start(response.status_code, response.headers.get("content-range", ""))
            with self._path.open("r+b") as sink:
                sink.seek(self._have)
                # No piece size: what waits in a buffer for more is lost with the connection.
                for piece in response.iter_raw():
                    self._check_length(self._have + len(piece))
                    sink.write(piece)
                    self._advance(len(piece))

    def _check_start(self, status: int, content_range: str) -> None:
        """Begin again when the service sends the whole file instead of its rest."""
        match = _CONTENT_RANGE.match(content_range)
        start = 0 if status != 206 else int(match[1]) if match else self._have
        if start == 0 and self._have:
            self.drop()
        if start != self._have:
            raise DownloadError(
                f"{self._file.path}: asked for byte {self._have}, was sent byte {start}"
            )

    def _check_length(self, length: int) -> None:
        if length > self._file.size_bytes:
            raise IntegrityError(
                f"{self._file.path} is longer than the manifest's {self._file.size_bytes} bytes; "
                "the bytes were thrown away"
            )

    def _advance(self, num_bytes: int) -> None:
        self._have += num_bytes
        self._meter.add(num_bytes)
        # The same bytes again are no progress, else a service without ranges is asked for ever.
        if self._have > self._furthest:
            self._furthest = self._have
            self._patience.moved()

    def _wait_after_cut(self, error: APIConnectionError) -> None:
        try:
            self._patience.wait_after(error)
        except APIConnectionError as final:
            raise DownloadError(
                f"{self._file.path} broke off ({final}); what came is kept: run the same again "
                "to go on"
            ) from final


def _fetch_one(
    transport: Transport, download: Download, file: CheckpointFile, path: Path, meter: _Meter
) -> None:
    part = _Part(transport, download, file, path, meter)
    for _ in range(2):
        part.fetch()
        if not download.verify or _sha256_of(path) == file.sha256.lower():
            return
        # Perhaps what an earlier run left was bad: once more from the first byte.
        part.forget()
    raise IntegrityError(
        f"{file.path} arrived twice with another SHA-256 than the manifest's {file.sha256[:12]}…: "
        "the stored file or the way to it is damaged; the bytes were thrown away"
    )


def _is_in_place(target: Path, file: CheckpointFile, download: Download) -> bool:
    place = _place_of(target, file.path)
    if not os.path.lexists(place):
        return False
    _check_stays_inside(target, place)
    is_same = (
        place.is_file()
        and place.stat().st_size == file.size_bytes
        and _sha256_of(place) == file.sha256.lower()
    )
    if not is_same and (place.is_dir() or not download.overwrite):
        raise DownloadError(
            f"{place} is there already and is another file: choose another folder, or allow "
            "overwriting"
        )
    return is_same


def _place_of(target: Path, path: str) -> Path:
    return target.joinpath(*path.split("/"))


def _check_stays_inside(target: Path, place: Path) -> None:
    if not place.parent.resolve().is_relative_to(target.resolve()):
        raise DownloadError(f"{place.parent} leads out of {target} through a link: remove the link")


def _is_safe_part(part: str) -> bool:
    return (
        part not in {"", ".", ".."}
        and part.isprintable()
        and "\\" not in part
        and not part.startswith(".trainmaster-")
        and len(part.encode("utf-8", errors="replace")) <= _NAME_BYTES_MAX
        and not (_IS_WINDOWS and _is_special_on_windows(part))
    )


def _is_special_on_windows(part: str) -> bool:
    return (
        bool(set(part) & set(':*?"<>|'))
        or part.endswith((" ", "."))
        or _RESERVED_THERE.fullmatch(part) is not None
    )


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
