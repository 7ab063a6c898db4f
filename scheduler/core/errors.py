"""What can go wrong in the domain, said without HTTP.

One table in `api.errors` maps the categories to answers. Every message states the fact and the
way out, and never repeats raw input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document.

    Attributes:
        pointer: RFC 6901 pointer to the offending value.
        code: stable snake_case name.
        message: the fact, and what to do instead.
    """

    pointer: str
    code: str
    message: str


class ServiceError(Exception):
    """Base of every error that is somebody else's to mend."""

    code: ClassVar[str] = "service_error"
    is_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        problems: Sequence[Problem] = (),
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.members = dict(members or {})


class Invalid(ServiceError):
    """The request says something that cannot be meant."""

    code = "invalid"


class InvalidSpec(Invalid):
    """The job spec has problems, all of them listed."""

    code = "invalid_spec"

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__(f"the job spec has {count} {noun}: see `errors`", problems=problems)


class NotFound(ServiceError):
    """There is no such thing, or it belongs to somebody else."""

    code = "not_found"

    def __init__(self, kind: str) -> None:
        super().__init__(f"{kind} does not exist, or your key may not see it")


class Conflict(ServiceError):
    """The request is fine, the state of the thing is not."""

    code = "conflict"


class IllegalTransition(Conflict):
    """The job is in a state in which this action is not possible."""

    code = "illegal_transition"

    def __init__(self, job_id: str, state: str, action: str, needs: Sequence[str]) -> None:
        super().__init__(f"{job_id} is {state}; {action} needs one of: {', '.join(needs)}")


class StaleVersion(Conflict):
    """Somebody changed the row first."""

    code = "stale_version"
    is_retryable = True


class StaleAttempt(Conflict):
    """Someone newer owns the job, or the attempt has ended: drop everything."""

    code = "stale_attempt"

    def __init__(self, attempt_id: str) -> None:
        super().__init__(
            f"{attempt_id} has ended or was replaced: stop its processes and leave the job alone"
        )


class OffsetMismatch(Conflict):
    """Log bytes were offered at another place than the end of the log."""

    code = "offset_mismatch"

    def __init__(self, length: int) -> None:
        super().__init__(
            f"the log has {length} bytes: send on from there", members={"length": length}
        )


class SequenceMismatch(Conflict):
    """A metric batch does not follow the last one."""

    code = "sequence_mismatch"

    def __init__(self, high_water: int) -> None:
        super().__init__(
            f"the stream is at {high_water}: send on from there", members={"high_water": high_water}
        )


class Unauthenticated(ServiceError):
    """No credential, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(ServiceError):
    """The credential is good, but not for this."""

    code = "forbidden"


class TooLarge(ServiceError):
    """More bytes, entries or depth than the limits allow."""

    code = "too_large"


class OutOfStorage(ServiceError):
    """The disk is full."""

    code = "out_of_storage"
    is_retryable = True


class Unavailable(ServiceError):
    """A dependency is down: the same request may go through later."""

    code = "unavailable"
    is_retryable = True
