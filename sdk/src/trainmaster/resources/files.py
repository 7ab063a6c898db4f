"""Uploaded files, and code packed on the way: `client.files`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainmaster._bundle import PACKED_BYTES_MAX, pack_file, pack_folder
from trainmaster._calls import Call, Query, new_idempotency_key
from trainmaster._errors import BundleError, ConfigurationError, IntegrityError
from trainmaster._pages import Page, fetch_page
from trainmaster._transport import Patience, Transport
from trainmaster.documents import File
from trainmaster.resources.addresses import Ref, path_to

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""

_PIECE_BYTES = 256 * 1024
_STALL_SECONDS = 120.0
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


class Files:
    """Files of the project: code bundles and inputs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        *,
        purpose: str = "code",
        filename: str | None = None,
        progress: Progress | None = None,
    ) -> File:
        """Send a file, or a folder packed as a zip file, and return what the service stored.

        With the purpose `code` a single script is packed as well; archives go as they are. What
        `.trainmasterignore` names stays at home, and so do version control, caches, virtual
        environments and `.env`.

        Raises:
            BundleError: the folder cannot be packed, or is over a limit; nothing was sent.
            IntegrityError: the service stored other bytes than were sent.
        """
        with _packed(path, purpose) as (source, default_name):
            return self._send(source, purpose, filename or default_name, progress)

    def check(self, path: str | Path) -> int:
        """Pack code as `upload` would, send nothing, and return the bytes that it has.

        Raises:
            BundleError: the folder cannot be packed, or is over a limit.
        """
        with _packed(path, "code") as (source, _):
            return source.stat().st_size

    def get(self, file: Ref) -> File:
        """Return what is known of a file."""
        return File.parse(self._transport.get(path_to("files", file)))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[File]:
        """Return a page of files, newest first; iterate over it for all of them."""
        query: Query = {"limit": limit, "after": after}
        return fetch_page(self._transport, "/v1/files", query, File.parse)

    def _send(self, source: Path, purpose: str, filename: str, progress: Progress | None) -> File:
        size_bytes = source.stat().st_size
        sha256 = _sha256_of(source)
        patience = Patience(self._transport, self._transport.retry_seconds)

        def body() -> Iterator[bytes]:
            done_bytes = 0
            with source.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
                    patience.answered()
                    done_bytes += len(piece)
                    if progress is not None:
                        progress(done_bytes, size_bytes)

        call = Call(
            method="POST",
            path="/v1/files",
            query={"filename": filename, "purpose": purpose},
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size_bytes),
                "Idempotency-Key": new_idempotency_key(),
            },
            body=body,
            timeout_seconds=_STALL_SECONDS,
        )
        stored = File.parse(self._transport.send(call, patience=patience).json())
        if stored.sha256 and stored.sha256 != sha256:
            raise IntegrityError(
                f"the service stored other bytes than {source} has: did the file change meanwhile? "
                "Upload it again"
            )
        return stored


@contextmanager
def _packed(path: str | Path, purpose: str) -> Iterator[tuple[Path, str]]:
    """Yield the file to send and what to call it; a bundle is gone afterwards."""
    source = Path(path).expanduser()
    if not source.exists():
        raise ConfigurationError(f"{source} does not exist")
    is_script = purpose == "code" and not source.name.endswith(_ARCHIVES)
    if source.is_file() and not is_script:
        if purpose == "code" and source.stat().st_size > PACKED_BYTES_MAX:
            raise BundleError(f"{source} is over 100 MiB, the most that a bundle may have")
        yield source, source.name
        return
    folder = Path(tempfile.mkdtemp(prefix="trainmaster-"))
    try:
        bundle = folder / "bundle.zip"
        if source.is_dir():
            pack_folder(source, bundle)
        else:
            pack_file(source, bundle)
        yield bundle, f"{source.resolve().stem or 'code'}.zip"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
