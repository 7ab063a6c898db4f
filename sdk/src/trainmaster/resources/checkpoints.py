"""Checkpoints: look at them, export them, bring them home. `client.checkpoints`."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote

from trainmaster._calls import Call
from trainmaster._download import Download, fetch_files
from trainmaster._errors import DownloadError
from trainmaster._transport import Transport
from trainmaster.documents import Checkpoint, CheckpointFile, Job
from trainmaster.resources.addresses import Ref, id_of, path_to
from trainmaster.resources.files import Progress

_SILENCE_SECONDS = 60.0


class Checkpoints:
    """Saved states of jobs. A checkpoint is named by its id or by the `Checkpoint` itself."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, checkpoint: Ref) -> Checkpoint:
        """Return a checkpoint with its files, their sizes and hashes."""
        return Checkpoint.parse(self._transport.get(path_to("checkpoints", checkpoint)))

    def files(self, checkpoint: Ref) -> list[CheckpointFile]:
        """Return the files of a checkpoint."""
        return self.get(checkpoint).files

    def file_url(self, checkpoint: Ref, path: str) -> str:
        """Return the whole address of one file, as `curl` wants it."""
        base = path_to("checkpoints", checkpoint, "files")
        return self._transport.url_of(f"{base}/{quote(path)}")

    def archive_url(self, checkpoint: Ref) -> str:
        """Return the whole address of the tar archive, as `curl` wants it."""
        return self._transport.url_of(path_to("checkpoints", checkpoint, "archive"))

    def download(
        self,
        checkpoint: Ref,
        directory: str | Path,
        *,
        resume: bool = True,
        verify: bool = True,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch all files of a checkpoint into a folder and return the folder.

        The files appear in it together, once all are there. A download that broke off goes on
        where it was when it is asked for again.

        Args:
            checkpoint: the checkpoint, or its id.
            directory: made when it is not there; files of the same content are kept.
            resume: use what an earlier try left.
            verify: compare each file with its SHA-256.
            overwrite: replace files of the same name with another content.
            progress: told the bytes done and the bytes in all.

        Raises:
            DownloadError: it is not committed, a name in it is not safe, another file is in the
                way, or the connection is gone for longer than the client's patience.
            IntegrityError: the service sent other bytes than it promised.
        """
        found = self.get(checkpoint)
        _check_is_committed(found)
        target = Path(directory).expanduser()
        fetch_files(
            self._transport,
            Download(
                base_path=path_to("checkpoints", found, "files"),
                files=found.files,
                target=target,
                staging_name=f".trainmaster-{found.id}",
                resume=resume,
                verify=verify,
                overwrite=overwrite,
                progress=progress,
            ),
        )
        return target

    def download_file(
        self,
        checkpoint: Ref,
        path: str,
        target: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch one file of a checkpoint under another name, and return that.

        It is compared with its SHA-256 and appears once it is whole; one that broke off goes on
        where it was when it is asked for again.

        Args:
            checkpoint: the checkpoint, or its id.
            path: of the file in the checkpoint.
            target: its name here.
            overwrite: replace a file of that name.
            progress: told the bytes done and the bytes in all.

        Raises:
            DownloadError: the checkpoint has no such file, or another file is in the way.
            IntegrityError: the service sent other bytes than it promised.
        """
        found = self.get(checkpoint)
        _check_is_committed(found)
        place = Path(target).expanduser()
        files = [file for file in found.files if file.path == path]
        if not files:
            raise DownloadError(f"checkpoint {found.id} has no file {path}: list its files first")
        if place.exists() and not overwrite:
            raise DownloadError(f"{place} is there already: choose another name, or overwrite it")
        folder = place.with_name(f".trainmaster-{found.id}")
        fetch_files(
            self._transport,
            Download(
                base_path=path_to("checkpoints", found, "files"),
                files=files,
                target=folder,
                staging_name=".parts",
                progress=progress,
            ),
        )
        (folder / path).replace(place)
        shutil.rmtree(folder, ignore_errors=True)
        return place

    def download_archive(
        self, checkpoint: Ref, path: str | Path, *, progress: Progress | None = None
    ) -> Path:
        """Fetch a checkpoint as one tar file, which appears under its name once it is whole.

        Tar has no hashes, and it cannot be resumed: `download` does both.
        """
        target = Path(path).expanduser()
        part = target.with_name(f".{target.name}.part")
        call = Call(
            method="GET",
            path=path_to("checkpoints", checkpoint, "archive"),
            headers={"Accept": "application/x-tar", "Accept-Encoding": "identity"},
            timeout_seconds=_SILENCE_SECONDS,
        )
        try:
            with self._transport.open(call, may_leave=True) as response, part.open("wb") as sink:
                total_bytes = int(response.headers.get("content-length", 0))
                for piece in response.iter_raw():
                    sink.write(piece)
                    if progress is not None:
                        progress(sink.tell(), total_bytes)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def export(
        self, checkpoint: Ref, *, dtype: str = "keep", idempotency_key: str | None = None
    ) -> Job:
        """Submit a job that writes all weights into one safetensors file, its only checkpoint.

        `dtype` is what floating-point weights become: keep, fp32, bf16 or fp16.
        """
        path = path_to("checkpoints", checkpoint, "export")
        reply = self._transport.post(path, {"dtype": dtype}, idempotency_key=idempotency_key)
        return Job.parse(reply.json())

    def pin(self, checkpoint: Ref) -> Checkpoint:
        """Keep a checkpoint whatever the job's `keep_last` and `keep_best` say."""
        return Checkpoint.parse(
            self._transport.post(path_to("checkpoints", checkpoint, "pin")).json()
        )


def _check_is_committed(checkpoint: Checkpoint) -> None:
    if checkpoint.state not in {"committed", ""}:
        raise DownloadError(
            f"checkpoint {id_of(checkpoint)} is {checkpoint.state}, and only committed ones can "
            "be downloaded: wait for it, or choose another one"
        )
