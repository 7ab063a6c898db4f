"""What the demo does, step by step, and the figures it leaves behind."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from api.demo.server import LocalService
from trainmaster import Client
from trainmaster.cli.follow import follow_job
from trainmaster.documents import Checkpoint

ACCURACY_MIN = 0.96
_WEIGHTS = "model.safetensors"


class DemoFailed(Exception):
    """A step did not end as it should; the message says which."""


@dataclass(kw_only=True)
class Story:
    """The figures of one demo; None for what was not reached. Seconds from the submission."""

    started_at: float
    job_id: str | None = None
    state: str | None = None
    accuracy: float | None = None
    checkpoint_url: str | None = None
    checkpoint_sha256: str | None = None
    first_step_seconds: float | None = None
    total_seconds: float | None = None

    def summary(self) -> dict[str, str | float | None]:
        """Return the figures as one JSON object."""
        return {
            "job_id": self.job_id,
            "state": self.state,
            "accuracy": self.accuracy,
            "checkpoint_url": self.checkpoint_url,
            "checkpoint_sha256": self.checkpoint_sha256,
            "first_step_seconds": self.first_step_seconds,
            "total_seconds": self.total_seconds,
        }


def tell(story: Story, service: LocalService, console: Console, *, num_workers: int) -> None:
    """Submit, follow, download, verify; fill `story` on the way.

    Raises:
        DemoFailed: the job did not succeed, or what it left is not what it says.
    """
    with service.client() as client:
        _train(story, client, console, num_workers)
        _judge(story, client, console)
        _fetch(story, client, service, console)
    story.total_seconds = round(time.time() - story.started_at, 3)
    console.print(f"done in {story.total_seconds:.1f} s", markup=False)


def _train(story: Story, client: Client, console: Console, num_workers: int) -> None:
    submitted_at = time.time()
    job = client.jobs.submit(
        name="demo", recipe="image-classifier", workers=num_workers, labels={"made-by": "demo"}
    )
    story.job_id, story.state = job.id, job.state
    console.print(
        f"submitted {job.id}: the image-classifier recipe, {num_workers} workers", markup=False
    )
    result = follow_job(client, job.id, console)
    story.state = result.job.state
    if result.first_point_at is not None:
        story.first_step_seconds = round(result.first_point_at - submitted_at, 3)
    if result.job.state != "succeeded":
        raise DemoFailed(
            f"the job is {result.job.state} ({result.job.reason}): {result.job.message}"
        )


def _judge(story: Story, client: Client, console: Console) -> None:
    assert story.job_id is not None
    series = client.jobs.metrics.series(story.job_id, "test/accuracy")
    story.accuracy = series.values[-1]
    console.print(f"accuracy on the test split: {story.accuracy:.2%}", markup=False)
    if story.accuracy < ACCURACY_MIN:
        raise DemoFailed(f"the accuracy is below {ACCURACY_MIN:.0%}")


def _fetch(story: Story, client: Client, service: LocalService, console: Console) -> None:
    assert story.job_id is not None
    newest = next(iter(client.jobs.checkpoints(story.job_id)), None)
    if newest is None:
        raise DemoFailed("the job left no checkpoint")
    checkpoint = client.checkpoints.get(newest)
    folder = client.checkpoints.download(checkpoint, Path(service.folder) / "demo" / checkpoint.id)
    weights = next((file for file in checkpoint.files if file.path == _WEIGHTS), None)
    if weights is None:
        raise DemoFailed(f"the checkpoint has no {_WEIGHTS}")
    _verify(checkpoint, folder)
    story.checkpoint_url = client.checkpoints.file_url(checkpoint, _WEIGHTS)
    story.checkpoint_sha256 = weights.sha256
    console.print(
        f"checkpoint of step {checkpoint.step}, {checkpoint.size_bytes} bytes, every hash right: "
        f"{folder}\nfetch it yourself:\n"
        f'  curl -fH "Authorization: Bearer $(cat {service.key_path})" '
        f"-o {_WEIGHTS} {story.checkpoint_url}",
        markup=False,
    )


def _verify(checkpoint: Checkpoint, folder: Path) -> None:
    """Hash what lies on this disk, independently of the client that put it there."""
    for file in checkpoint.files:
        digest = hashlib.sha256((folder / file.path).read_bytes()).hexdigest()
        if digest != file.sha256:
            raise DemoFailed(f"{file.path} has another hash than the manifest")
