"""Documents of the service become values; errors become exceptions."""

from datetime import UTC, datetime

import pytest

import trainmaster
from trainmaster._errors import APIResponseError, JobFailed, status_error
from trainmaster.documents import Job, MetricPoint, parse_instant


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-01-02T03:04:05Z", 0),
        ("2026-01-02T03:04:05.1Z", 100_000),
        ("2026-01-02T03:04:05.123456Z", 123_456),
        ("2026-01-02T03:04:05.123456789Z", 123_456),
        ("2026-01-02T05:04:05.5+02:00", 500_000),
    ],
)
def test_instants_are_read_in_every_precision(text: str, microsecond: int) -> None:
    want = datetime(2026, 1, 2, 3, 4, 5, microsecond, tzinfo=UTC)

    assert parse_instant(text) == want
    assert parse_instant(text).tzinfo is UTC


def test_null_and_missing_mean_the_same() -> None:
    job = Job.parse({"id": "job_1", "state": "queued", "reason": None, "progress": None})

    assert (job.reason, job.progress, job.created_at, job.labels) == (None, None, None, {})


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"id": "job_1"},
        {"id": "job_1", "state": "queued", "created_at": "yesterday"},
        {"id": "job_1", "state": "queued", "created_at": 5},
        {"id": "job_1", "state": "queued", "progress": [1]},
    ],
)
def test_a_document_that_cannot_be_read_is_said_so(document: object) -> None:
    with pytest.raises(APIResponseError):
        Job.parse(document)


def test_a_number_may_come_as_text() -> None:
    assert MetricPoint.parse({"step": 1, "value": "-Infinity"}).value == float("-inf")
    with pytest.raises(APIResponseError):
        MetricPoint.parse({"step": 1, "value": "many"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, trainmaster.BadRequestError),
        (401, trainmaster.AuthenticationError),
        (403, trainmaster.PermissionDeniedError),
        (404, trainmaster.NotFoundError),
        (409, trainmaster.ConflictError),
        (412, trainmaster.PreconditionFailedError),
        (413, trainmaster.TooLargeError),
        (418, trainmaster.APIStatusError),
        (422, trainmaster.UnprocessableError),
        (429, trainmaster.RateLimitError),
        (500, trainmaster.ServerError),
        (599, trainmaster.ServerError),
    ],
)
def test_every_status_has_its_exception(
    status: int, kind: type[trainmaster.APIStatusError]
) -> None:
    assert type(status_error(status, {})) is kind


def test_a_problem_is_told_with_its_fields() -> None:
    problem = {
        "detail": "two things are wrong",
        "code": "invalid_spec",
        "errors": [
            {"pointer": "/workers", "code": "too_small", "message": "at least 1"},
            {"pointer": "", "code": "x", "message": "recipe or code"},
            "nonsense",
        ],
    }

    error = status_error(422, problem, request_id="req_9")

    assert str(error) == "two things are wrong\n  /workers: at least 1\n  recipe or code"
    assert [each.code for each in error.errors] == ["too_small", "x"]


@pytest.mark.parametrize(
    "problem", [{}, {"errors": 3, "code": 5, "detail": None}, {"detail": ["x"]}]
)
def test_a_problem_that_is_none_still_says_something(problem: dict[str, object]) -> None:
    error = status_error(500, problem, request_id="req_9")

    assert "the server answered 500" in str(error)
    assert "req_9" in str(error)


def test_a_failed_job_tells_why_and_how_it_ended() -> None:
    job = Job.parse(
        {"id": "job_1", "state": "failed", "reason": "UserCodeError", "message": "boom"}
    )

    assert str(JobFailed(job, ["last line"])) == "job_1 failed (UserCodeError: boom)\n  | last line"


@pytest.mark.parametrize(
    ("spec", "num_workers"),
    [
        ({}, 1),
        ({"workers": None, "parallel": None}, 1),
        ({"workers": 4}, 4),
        ({"workers": None, "parallel": {"data": 2, "tensor": 3}}, 6),
    ],
)
def test_the_ranks_of_a_job_follow_from_its_spec(spec: dict[str, object], num_workers: int) -> None:
    assert Job.parse({"id": "job_1", "state": "queued", "spec": spec}).num_workers == num_workers
