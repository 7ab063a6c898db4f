"""What one node runs of an attempt, whole: spec, ranks, code, inputs, checkpoint. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.attempts.fence import Membership
from api.attempts.schemas import (
    AssignedEnvironment,
    AssignedFile,
    AssignedInput,
    AssignedNode,
    AssignedRank,
    AssignedTimers,
    Assignment,
    Command,
    Interruption,
    Rendezvous,
    Resume,
    ResumeFile,
)
from api.attempts.wanted import list_nodes
from api.config import Timers
from models import Attempt, Checkpoint, CheckpointFile, File, Job, Node, Project
from models.queries.verifications import find_interruption
from scheduler.core.errors import NotFound
from scheduler.core.spec import JobSpec, read_spec


def build_assignment(
    session: Session, member: Membership, *, modules: Mapping[str, str], timers: Timers
) -> Assignment:
    """Return the assignment of one node.

    Args:
        modules: recipe name to the module that runs it.

    Raises:
        NotFound: an uploaded file, the recipe or the checkpoint to resume is gone.
    """
    job, attempt, node = member.job, member.attempt, member.node
    spec = read_spec(job.spec)
    cluster = _list_cluster(session, attempt)
    project = session.get(Project, job.project_id)
    interruption = find_interruption(session, attempt)
    meeting = attempt.rendezvous if len(cluster) > 1 else None
    return Assignment(
        attempt_id=attempt.id,
        job_id=job.id,
        job_name=job.name,
        project="" if project is None else project.name,
        number=attempt.number,
        epoch=attempt.epoch,
        node_id=node.node_id,
        spec=job.spec,
        world_size=sum(len(each.ranks) for each in cluster),
        node_rank=node.node_rank,
        num_nodes=len(cluster),
        ranks=[AssignedRank(**rank) for rank in node.ranks],
        cluster=cluster,
        rendezvous=None if meeting is None else Rendezvous(**meeting),
        command=_decide_command(spec, modules),
        code=None if spec.code is None else _find_file(session, job, attempt.id, spec.code),
        inputs=[
            _find_input(session, job, attempt.id, name, source)
            for name, source in spec.inputs.items()
        ],
        environment=AssignedEnvironment(
            python=spec.environment.python, requirements=list(spec.environment.requirements)
        ),
        env=dict(spec.env),
        secrets={},
        resume=_find_resume(session, attempt),
        interruption=None if interruption is None else Interruption(**interruption),
        timers=AssignedTimers(
            heartbeat_seconds=timers.heartbeat_seconds,
            lease_seconds=timers.lease_seconds,
            fence_seconds=timers.fence_seconds,
            grace_seconds=float(spec.limits.grace_seconds),
        ),
    )


def list_file_ids(spec: JobSpec) -> set[str]:
    """Return the uploaded files that a job with this spec reads."""
    named = {source for source in spec.inputs.values() if source.startswith("file_")}
    return named | ({spec.code} if spec.code is not None else set())


def _list_cluster(session: Session, attempt: Attempt) -> list[AssignedNode]:
    nodes = list_nodes(session, attempt.id)
    statement = select(Node.id, Node.address).where(Node.id.in_([each.node_id for each in nodes]))
    addresses = {row.id: row.address for row in session.execute(statement)}
    return [
        AssignedNode(
            node_rank=each.node_rank,
            address=addresses.get(each.node_id) or "127.0.0.1",
            ranks=[rank["rank"] for rank in each.ranks],
        )
        for each in nodes
    ]


def _decide_command(spec: JobSpec, modules: Mapping[str, str]) -> Command:
    if spec.recipe is None:
        return Command(kind="script", path=spec.entrypoint, args=list(spec.args))
    module = modules.get(spec.recipe)
    if module is None:
        raise NotFound("this recipe")
    return Command(kind="module", module=module, args=list(spec.args))


def _find_file(session: Session, job: Job, attempt_id: str, file_id: str) -> AssignedFile:
    file = session.get(File, file_id)
    if file is None or file.project_id != job.project_id:
        raise NotFound("this file")
    return AssignedFile(
        url=f"/v1/attempts/{attempt_id}/files/{file_id}",
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        filename=file.filename,
    )


def _find_input(
    session: Session, job: Job, attempt_id: str, name: str, source: str
) -> AssignedInput:
    if source.startswith("dir:"):
        return AssignedInput(name=name, kind="dir", path=source.removeprefix("dir:"))
    file = _find_file(session, job, attempt_id, source)
    return AssignedInput(name=name, kind="file", **file.model_dump())


def _find_resume(session: Session, attempt: Attempt) -> Resume | None:
    if attempt.resume_checkpoint_id is None:
        return None
    checkpoint = session.get(Checkpoint, attempt.resume_checkpoint_id)
    if checkpoint is None:
        raise NotFound("this checkpoint")
    files = session.scalars(
        select(CheckpointFile)
        .where(CheckpointFile.checkpoint_id == checkpoint.id)
        .order_by(CheckpointFile.path)
    )
    root = f"/v1/attempts/{attempt.id}/checkpoints/{checkpoint.id}/files"
    return Resume(
        checkpoint_id=checkpoint.id,
        step=checkpoint.step,
        files=[
            ResumeFile(
                path=file.path,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                url=f"{root}/{quote(file.path)}",
            )
            for file in files
        ],
    )
