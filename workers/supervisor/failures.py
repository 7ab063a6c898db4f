"""Why a run cannot be started, as the service has it. Knows only words."""

from __future__ import annotations


class CannotStart(Exception):
    """The run cannot be started; `reason` is for the service, the message for the user."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
