"""Jobs: submit, read, act, wait. `client.jobs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainmaster._calls import Call, Query, Reply, body_of
from trainmaster._errors import (
    APIError,
    JobCancelled,
    JobFailed,
    WaitTimeout,
)
from trainmaster._pages import Page, fetch_page
from trainmaster._transport import Transport
from trainmaster.documents import (
    Attempt,
    Checkpoint,
    Explanation,
    Job,
    Simulation,
    Validation,
    Verification,
)
from trainmaster.resources.addresses import Ref, path_to
from trainmaster.resources.events import Events
from trainmaster.resources.files import Files
from trainmaster.resources.logs import Logs
from trainmaster.resources.metrics import Metrics

_LONG_POLL_SECONDS = 30.0
_LONG_POLL_SLACK_SECONDS = 15.0
_SHORTEST_POLL_SECONDS = 0.5
_TAIL_LINES = 20
_LATER = "file_later"
"""Stands for a file that is not uploaded yet."""


class Jobs:
    """Everything about jobs. A job is named by its id or by the `Job` itself."""

    def __init__(self, transport: Transport, files: Files) -> None:
        self._transport = transport
        self._files = files
        self.events = Events(transport)
        self.logs = Logs(transport)
        self.metrics = Metrics(transport)

    def submit(
        self,
        spec: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Submit a job and return it as soon as it is stored for good.

        However often the network makes this ask again, one job comes of it.

        Args:
            spec: the job's spec; `fields` are laid over it, so that both
                `submit({"recipe": …})` and `submit(recipe=…, workers=2)` read well.
            idempotency_key: your own name for this submission, if a crash of your program must
                not submit twice either; a fresh one otherwise.
            **fields: fields of the spec. `code` may be a `pathlib.Path` to a folder or a file,
                which is packed and uploaded first.

        Raises:
            UnprocessableError, BadRequestError: the spec cannot be; `errors` names each field.
        """
        document = self._with_uploaded_code({**(spec or {}), **fields})
        reply = self._transport.post("/v1/jobs", document, idempotency_key=idempotency_key)
        return _parse_job(reply)

    def validate(self, spec: Mapping[str, Any] | None = None, /, **fields: Any) -> Validation:
        """Return what the service says of a spec, without submitting it."""
        document = self._with_uploaded_code({**(spec or {}), **fields})
        return Validation.parse(self._transport.post("/v1/jobs/validate", document).json())

    def simulate(
        self,
        spec: Mapping[str, Any] | None = None,
        /,
        *,
        num_parameters: int | None = None,
        link_mbit: float | None = None,
        **fields: Any,
    ) -> Simulation:
        """Return what would become of a spec if it were submitted now; nothing is.

        A `code` that is a `pathlib.Path` is packed as it would be for `submit`, to see that it can
        be, and not sent.

        Args:
            spec: what would be submitted.
            num_parameters: of the model, where the service cannot know it.
            link_mbit: of the slowest link between two ranks, each way.
            fields: of the spec, laid over it.
        """
        document = {**(spec or {}), **fields}
        if isinstance(document.get("code"), Path):
            self._files.check(document["code"])
            document["code"] = _LATER
        inputs = document.get("inputs")
        if isinstance(inputs, Mapping):
            document["inputs"] = {
                name: _LATER if isinstance(where, Path) else where for name, where in inputs.items()
            }
        takes_files = _LATER in (document.get("code"), *dict(document.get("inputs") or {}).values())
        query: Query = {
            "assume_files": takes_files or None,
            "num_parameters": num_parameters,
            "link_mbit": link_mbit,
        }
        reply = self._transport.post("/v1/jobs/simulate", document, query=query)
        return Simulation.parse(reply.json())

    def verify_resume(
        self,
        spec: Mapping[str, Any] | None = None,
        /,
        *,
        seed: int | None = None,
        tolerance: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Verification:
        """Find out how well a spec resumes: two jobs, one of them killed once, are compared.

        Wait for the verdict with `client.verifications.wait`.

        Args:
            spec: as for `submit`; `fields` are laid over it.
            seed: decides at which step is killed; another one each time otherwise.
            tolerance: how far metrics may differ, relative to the larger, and still be equivalent.
            idempotency_key: your own name for this request.
            **fields: fields of the spec.

        Raises:
            UnprocessableError, BadRequestError: the spec cannot be; `errors` names each field.
        """
        document = self._with_uploaded_code({**(spec or {}), **fields})
        reply = self._transport.post(
            "/v1/jobs/verify-resume",
            document,
            query={"seed": seed, "tolerance": None if tolerance is None else str(tolerance)},
            idempotency_key=idempotency_key,
        )
        return Verification.parse(reply.json())

    def explain(self, job: Ref) -> Explanation:
        """Return why the job is where it is, when it starts or ends, and what can be done."""
        call = Call(method="GET", path=path_to("jobs", job, "explain"))
        return Explanation.parse(self._transport.send(call).json())

    def list(
        self,
        *,
        state: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        project: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Job]:
        """Return a page of jobs, newest first; iterate over it for all of them.

        `state` and `label` (`team:vision`) are one or several: any of the states, all of the
        labels.
        """
        query: Query = {
            "state": _joined(state),
            "label": label,
            "project": project,
            "limit": limit,
            "after": after,
        }
        return fetch_page(self._transport, "/v1/jobs", query, Job.parse)

    def get(self, job: Ref) -> Job:
        """Return the job as it is now."""
        return _parse_job(self._transport.send(Call(method="GET", path=path_to("jobs", job))))

    def update(self, job: Ref, *, if_match: str | None = None, **changes: Any) -> Job:
        """Change fields of a job that may change: name, priority, labels, queue, limits.

        A `Job` is changed only if it is still as it was read; an id, or `if_match="*"`, is
        changed whatever it is now.

        Raises:
            PreconditionFailedError: it changed in between; read it again.
        """
        tag = if_match or (job.etag if isinstance(job, Job) else None)
        headers = {"Content-Type": "application/merge-patch+json"}
        if tag is not None:
            headers["If-Match"] = tag
        call = Call(
            method="PATCH", path=path_to("jobs", job), headers=headers, body=body_of(changes)
        )
        return _parse_job(self._transport.send(call))

    def cancel(self, job: Ref) -> Job:
        """Stop the job for good; cancelling twice is no error."""
        return self._act(job, "cancel")

    def pause(self, job: Ref) -> Job:
        """Save a checkpoint, then give all resources back until `resume`."""
        return self._act(job, "pause")

    def resume(self, job: Ref) -> Job:
        """Let a paused job go on from its checkpoint."""
        return self._act(job, "resume")

    def hold(self, job: Ref) -> Job:
        """Keep a waiting job from being started."""
        return self._act(job, "hold")

    def release(self, job: Ref) -> Job:
        """Let a held job start when its turn comes."""
        return self._act(job, "release")

    def checkpoint(self, job: Ref) -> Job:
        """Ask a running job to save a checkpoint at its next opportunity."""
        return self._act(job, "checkpoint")

    def resize(
        self,
        job: Ref,
        workers: int,
        *,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Give a job that was submitted with `elastic` another number of workers.

        A job that runs saves, stops and goes on from there when there is room for its new size. As
        for `update`, a `Job` is changed only if it is still as it was read.

        Raises:
            ConflictError: it has no `elastic`, or it ends.
            UnprocessableError: it may not have that size; `errors` says why.
            PreconditionFailedError: it changed in between; read it again.
        """
        tag = if_match or (job.etag if isinstance(job, Job) else None)
        reply = self._transport.post(
            path_to("jobs", job, "resize"),
            {"workers": workers},
            headers={} if tag is None else {"If-Match": tag},
            idempotency_key=idempotency_key,
        )
        return _parse_job(reply)

    def fork(
        self,
        job: Ref,
        *,
        checkpoint: Ref | None = None,
        idempotency_key: str | None = None,
        **changes: Any,
    ) -> Job:
        """Submit a new job that starts from a checkpoint of this one, its newest unless named.

        `changes` are merged into the spec of the old job: objects field by field, None takes
        a field away (RFC 7396).
        """
        body: dict[str, Any] = {"overrides": self._with_uploaded_code(changes)}
        if checkpoint is not None:
            body["checkpoint"] = checkpoint if isinstance(checkpoint, str) else checkpoint.id
        path = path_to("jobs", job, "fork")
        return _parse_job(self._transport.post(path, body, idempotency_key=idempotency_key))

    def rerun(self, job: Ref, *, idempotency_key: str | None = None) -> Job:
        """Submit a new job with the spec of this one, from the start."""
        path = path_to("jobs", job, "rerun")
        return _parse_job(self._transport.post(path, idempotency_key=idempotency_key))

    def attempts(self, job: Ref) -> Page[Attempt]:
        """Return the executions of a job, one per allocation."""
        return fetch_page(self._transport, path_to("jobs", job, "attempts"), {}, Attempt.parse)

    def checkpoints(
        self, job: Ref, *, limit: int | None = None, after: str | None = None
    ) -> Page[Checkpoint]:
        """Return the committed checkpoints of a job with their metrics, newest first."""
        path = path_to("jobs", job, "checkpoints")
        query: Query = {"limit": limit, "after": after}
        return fetch_page(self._transport, path, query, Checkpoint.parse)

    def poll(
        self,
        job: Ref,
        *,
        after_version: int,
        wait_seconds: float = _LONG_POLL_SECONDS,
        outage_seconds: float | None = None,
    ) -> Job:
        """Return the job once it has a newer version, or as it is when `wait_seconds` are over."""
        seconds = max(0, int(wait_seconds))
        call = Call(
            method="GET",
            path=path_to("jobs", job),
            query={"wait": seconds, "after_version": after_version},
            timeout_seconds=seconds + _LONG_POLL_SLACK_SECONDS,
        )
        return _parse_job(self._transport.send(call, retry_seconds=outage_seconds))

    def wait(
        self,
        job: Ref,
        *,
        timeout_seconds: float | None = None,
        until: Collection[str] = (),
        outage_seconds: float = 600.0,
        on_change: Callable[[Job], None] | None = None,
        raise_on_failure: bool = True,
    ) -> Job:
        """Wait until the job has ended, and return it.

        Args:
            job: the job, or its id.
            timeout_seconds: how long to wait; None: as long as it takes.
            until: further states to return at, such as `{"paused"}`.
            outage_seconds: how long the service may be away at a stretch, as when it restarts.
            on_change: told each new version of the job, the first one included.
            raise_on_failure: False returns failed and cancelled jobs as well.

        Raises:
            JobFailed: it failed; carries the end of its log.
            JobCancelled: it was cancelled.
            WaitTimeout: the time is over; the job goes on.
        """
        clock = self._transport.clock
        expires_at = None if timeout_seconds is None else clock() + timeout_seconds
        known_version = -1
        call = Call(method="GET", path=path_to("jobs", job))
        current = _parse_job(self._transport.send(call, retry_seconds=outage_seconds))
        while True:
            if current.version != known_version and on_change is not None:
                on_change(current)
            if current.is_terminal or current.state in until:
                break
            asked_at = clock()
            seconds = _LONG_POLL_SECONDS
            if expires_at is not None:
                seconds = min(seconds, expires_at - asked_at)
                if seconds <= 0:
                    raise WaitTimeout(
                        f"{current.id} is still {current.state} after {timeout_seconds:g} s; "
                        "it goes on"
                    )
            known_version = current.version
            current = self.poll(
                job,
                after_version=known_version,
                wait_seconds=seconds,
                outage_seconds=outage_seconds,
            )
            if current.version == known_version:
                # A server that does not hold the request must not be asked in a busy loop.
                pause = min(seconds, _SHORTEST_POLL_SECONDS) - (clock() - asked_at)
                if pause > 0:
                    self._transport.sleep(pause)
        if raise_on_failure and current.is_terminal and current.state != "succeeded":
            kind = JobCancelled if current.state == "cancelled" else JobFailed
            raise kind(current, self._log_tail(current))
        return current

    def _act(self, job: Ref, action: str) -> Job:
        return _parse_job(self._transport.post(path_to("jobs", job, action)))

    def _with_uploaded_code(self, spec: dict[str, Any]) -> dict[str, Any]:
        code = spec.get("code")
        if isinstance(code, Path):
            return {**spec, "code": self._files.upload(code, purpose="code").id}
        return spec

    def _log_tail(self, job: Job) -> Sequence[str]:
        if job.state == "cancelled":
            return ()
        try:
            return self.logs.text(job, tail=_TAIL_LINES).splitlines()[-_TAIL_LINES:]
        except APIError:  # the failure itself is what matters, and it is known
            return ()


def _parse_job(reply: Reply) -> Job:
    job = Job.parse(reply.json())
    etag = reply.headers.get("etag")
    return job if etag is None else dataclasses.replace(job, etag=etag)


def _joined(values: str | Sequence[str] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(values)
