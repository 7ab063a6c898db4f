"""What can go wrong when talking to Trainmaster. Knows nothing about HTTP libraries.

Every message states the fact and the way out. All of them derive from `TrainmasterError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.documents import Job


class TrainmasterError(Exception):
    """Anything this library raises on purpose."""


class ConfigurationError(TrainmasterError):
    """The address, the key or another local setting cannot be used as it is."""


class BundleError(TrainmasterError):
    """The code folder cannot be packed: a link that leaves it, or a limit that it passes."""


class DownloadError(TrainmasterError):
    """A download was refused or could not be finished; what was fetched so far is kept."""


class IntegrityError(DownloadError):
    """Bytes arrived whose size or SHA-256 is not the promised one; they were thrown away."""


class WaitTimeout(TrainmasterError, TimeoutError):
    """The job did not get there in the time given to `wait`; it goes on."""


class JobFailed(TrainmasterError):
    """The job ended without success. Carries the job and the last lines of its log."""

    def __init__(self, job: Job, log_tail: Sequence[str] = ()) -> None:
        cause = ": ".join(part for part in (job.reason, job.message) if part)
        text = f"{job.id} {job.state}" + (f" ({cause})" if cause else "")
        if log_tail:
            text += "\n" + "\n".join(f"  | {line}" for line in log_tail)
        super().__init__(text)
        self.job = job
        self.log_tail = tuple(log_tail)


class JobCancelled(JobFailed):
    """The job was cancelled before it could end by itself."""


class APIError(TrainmasterError):
    """A request to the service did not do what was asked.

    `retry_after` is the delay in seconds that the server asks for, if it did;
    `should_retry` is the server's own word on trying again, if it gave one.
    """

    retry_after: float | None = None
    should_retry: bool | None = None


class APIConnectionError(APIError):
    """No complete answer arrived. `sent` is False when the request surely never left."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class APITimeoutError(APIConnectionError):
    """The answer did not arrive, or did not end, in time."""


class APIResponseError(APIError):
    """An answer arrived that is not one of Trainmaster's: often a wrong address or a proxy."""


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """One thing wrong with one field of a request: `pointer` is an RFC 6901 JSON pointer."""

    pointer: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.message}" if self.pointer else self.message


class APIStatusError(APIError):
    """The service answered with a status of 400 or more.

    Attributes:
        status: the HTTP status.
        code: the stable snake_case code of the problem, "" when the answer had none.
        errors: every field that is wrong, each with its pointer.
        request_id: to be named when asking the operator about it.
        problem: the whole problem document (RFC 9457), {} when the answer was not one.
    """

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = _text(problem.get("code"))
        self.title = _text(problem.get("title"))
        self.detail = _text(problem.get("detail"))
        self.request_id = request_id or _text(problem.get("request_id")) or None
        self.errors = parse_field_problems(problem.get("errors"))
        self.retry_after = retry_after
        self.should_retry = should_retry
        super().__init__(self._describe())

    def _describe(self) -> str:
        text = self.detail or self.title or f"the server answered {self.status}"
        # They follow right below.
        text = text.removesuffix(": see `errors`")
        lines = [str(error) for error in self.errors if str(error) not in text]
        if self.status >= 500 and self.request_id:
            lines.append(f"request {self.request_id}: the server's log says more under this id")
        return "\n".join([text, *(f"  {line}" for line in lines)])


class BadRequestError(APIStatusError):
    """400: the request cannot be right; `errors` says where."""


class AuthenticationError(APIStatusError):
    """401: no key, or one that is unknown, expired or revoked."""

    def _describe(self) -> str:
        return (
            f"{super()._describe()}\n  set TRAINMASTER_API_KEY, or store a key with "
            "`trainmaster login`"
        )


class PermissionDeniedError(APIStatusError):
    """403: the key's role does not allow this."""


class NotFoundError(APIStatusError):
    """404: no such thing, or none that this key may see."""


class ConflictError(APIStatusError):
    """409: the right request at the wrong time, such as cancelling a finished job."""


class PreconditionFailedError(APIStatusError):
    """412: it changed since it was read; read it again."""


class TooLargeError(APIStatusError):
    """413: the body is over a limit of the server."""


class UnprocessableError(APIStatusError):
    """422: understood, and impossible; `errors` says why."""


class RateLimitError(APIStatusError):
    """429: too many requests, even after waiting as long as the server asked."""


class ServerError(APIStatusError):
    """5xx: the service could not do it; the job itself is not harmed by this."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    413: TooLargeError,
    422: UnprocessableError,
    429: RateLimitError,
}


def status_error(
    status: int,
    problem: Mapping[str, Any],
    *,
    request_id: str | None = None,
    retry_after: float | None = None,
    should_retry: bool | None = None,
) -> APIStatusError:
    """Return the exception for an answer of 400 or more."""
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else APIStatusError)
    return kind(
        status,
        problem,
        request_id=request_id,
        retry_after=retry_after,
        should_retry=should_retry,
    )


def parse_field_problems(errors: object) -> list[FieldProblem]:
    """Return the entries of a problem's `errors`; what is none is left out."""
    if not isinstance(errors, list):
        return []
    return [
        FieldProblem(
            pointer=_text(error.get("pointer")),
            code=_text(error.get("code")),
            message=_text(error.get("message")) or _text(error.get("detail")),
        )
        for error in errors
        if isinstance(error, dict)
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
