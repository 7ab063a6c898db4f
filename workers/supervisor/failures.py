"""Why a run cannot be started, as the service has it. Knows only words."""

from __future__ import annotations

from pathlib import Path

FOLDER_LOST = (
    "the run folder was removed or damaged while the job ran; a job must leave the folder above "
    "its own alone"
)


class CannotStart(Exception):
    """The run cannot be started; `reason` is for the service, the message for the user."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def describe_full_disk(folder: Path) -> str:
    """Return what a user is told when the node cannot write below `folder`."""
    return (
        f"the node's disk is full below {folder}: free space there, or have the job keep less in "
        "its folders and checkpoints"
    )
