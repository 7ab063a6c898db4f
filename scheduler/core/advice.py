"""What to do about a job, for every reason that it may show. Pure; a test holds it complete."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do.

    Attributes:
        command: how to do it on the command line, "" where that is not the place.
    """

    text: str
    command: str = ""


_LOGS = Step(
    text="read the end of its log: the message is its last line",
    command="trainmaster logs {job} --tail 50",
)
_FOLLOW = Step(text="watch it", command="trainmaster follow {job}")
_RESUME = Step(text="let it go on from its checkpoint", command="trainmaster resume {job}")
_FORK = Step(text="go on from its newest checkpoint in a new job", command="trainmaster fork {job}")
_WAIT = Step(text="nothing: it goes on by itself")
_NODES = Step(text="look at the machines", command="trainmaster nodes")
_QUOTAS = Step(text="see what your project may use", command="trainmaster quotas")
_CANCEL = Step(text="or give it up", command="trainmaster cancel {job}")
_RETRIED = Step(
    text="submit it again, or raise retry.max_infra_failures; machines failed, not your code"
)

_STEPS: dict[Reason, tuple[Step, ...]] = {
    Reason.SUBMITTED: (_WAIT,),
    Reason.HELD_BY_USER: (
        Step(text="let it run: POST /v1/jobs/{job}/release, or client.jobs.release in Python"),
    ),
    Reason.BEGIN_TIME_NOT_REACHED: (Step(text="wait: it starts no earlier than begin_at"),),
    Reason.RETRY_BACKOFF: (
        Step(text="nothing: it is tried again; the message has the cause"),
        _LOGS,
    ),
    Reason.RESUMED: (_WAIT,),
    Reason.PREEMPTED: (
        Step(text="nothing: it goes on from its newest checkpoint when there is room"),
    ),
    Reason.MIGRATED: (Step(text="nothing: it goes on in another place"),),
    Reason.RESIZED: (Step(text="nothing: it goes on with its new size when there is room"),),
    Reason.DEPENDENCY_NOT_MET: (Step(text="wait for the jobs that it depends on, or mend them"),),
    Reason.QUEUE_CLOSED: (
        Step(
            text="see which queues are open, and move it with PATCH", command="trainmaster queues"
        ),
    ),
    Reason.QUOTA_REACHED: (
        Step(text="wait for other jobs of yours to end, or use fewer workers"),
        _QUOTAS,
    ),
    Reason.BUDGET_SPENT: (
        Step(text="wait for the next month, or ask an admin to raise gpu_hours_per_month"),
        _QUOTAS,
    ),
    Reason.WAITING_FOR_PLACEMENT: (_WAIT,),
    Reason.INSUFFICIENT_RESOURCES: (Step(text="wait for jobs to end, or ask for less"),),
    Reason.HIGHER_PRIORITY_AHEAD: (Step(text="wait its turn"),),
    Reason.NO_NODES: (Step(text="join a machine to its pool, or open one that is closed"), _NODES),
    Reason.BACKFILL_TOO_LONG: (
        Step(text="with a limits.wall_seconds that ends before the guaranteed start it may begin"),
    ),
    Reason.FRAGMENTED: (
        Step(text="let it spread over nodes (resources.spread), or use fewer workers"),
    ),
    Reason.GPU_UNAVAILABLE: (
        Step(text="name GPUs that the pool has, or another pool", command="trainmaster nodes"),
    ),
    Reason.PREEMPTION_PENDING: (Step(text="nothing: others are saving to make room for it"),),
    Reason.LAUNCHING: (_FOLLOW,),
    Reason.STAGING: (_FOLLOW,),
    Reason.RENDEZVOUS: (_FOLLOW, _CANCEL),
    Reason.TRAINING: (_FOLLOW,),
    Reason.PAUSE_REQUESTED: (Step(text="nothing: it saves, then it is paused"),),
    Reason.CANCEL_REQUESTED: (Step(text="nothing: it ends within its grace"),),
    Reason.DEADLINE_REACHED: (
        Step(text="nothing now: it has reached limits.wall_seconds and saves within its grace"),
    ),
    Reason.NODE_DRAINING: (Step(text="nothing: it saves, and goes on elsewhere"),),
    Reason.PREEMPTING: (Step(text="nothing: it saves to make room, and goes on later"),),
    Reason.MIGRATING: (Step(text="nothing: it saves, and goes on in another place"),),
    Reason.RESIZING: (Step(text="nothing: it saves, and goes on with its new size"),),
    Reason.BUDGET_REACHED: (
        Step(text="nothing now: it has used its limits.gpu_hours and saves within its grace"),
    ),
    Reason.PAUSED_BY_USER: (_RESUME,),
    Reason.PAUSED_BY_DEADLINE: (
        Step(text="raise limits.wall_seconds with PATCH /v1/jobs/{job}"),
        _RESUME,
    ),
    Reason.PAUSED_BY_BUDGET: (
        Step(text="raise limits.gpu_hours with PATCH /v1/jobs/{job}, or wait for the next month"),
        _RESUME,
    ),
    Reason.UPLOADING_ARTIFACTS: (_WAIT,),
    Reason.COMPLETED: (
        Step(text="fetch its newest checkpoint", command="trainmaster download {job}"),
    ),
    Reason.CANCELLED_BY_USER: (_FORK,),
    Reason.USER_CODE_ERROR: (
        _LOGS,
        Step(text="mend the code, then go on from the newest checkpoint: fork takes --set code=…"),
    ),
    Reason.SETUP_FAILED: (
        Step(text="check environment.requirements and the entrypoint", command=_LOGS.command),
    ),
    Reason.DATA_UNAVAILABLE: (
        Step(text="check the names in inputs: files must be uploaded, folders be on the nodes"),
    ),
    Reason.GPU_OUT_OF_MEMORY: (
        Step(text="use a smaller batch, more workers, or GPUs with more memory (gpu_memory_gib)"),
        _FORK,
    ),
    Reason.HOST_OUT_OF_MEMORY: (
        Step(text="ask for more resources.memory_gib, or load less data at once"),
        _FORK,
    ),
    Reason.NON_FINITE_LOSS: (
        Step(
            text="go on from its newest checkpoint, which is older than that loss, with a lower "
            "learning rate",
            command="trainmaster fork {job} --set config.lr=LR",
        ),
        Step(text="clip the gradients, or use bf16 where it uses fp16; look for bad samples"),
        Step(text="or let it train on through such values: health.on_nan = ignore"),
    ),
    Reason.DEADLINE_EXCEEDED: (
        Step(
            text="give it more time, and let it pause instead of fail at the end of it",
            command="trainmaster fork {job} --set limits.wall_seconds=SECONDS "
            "--set limits.on_deadline=pause",
        ),
    ),
    Reason.BUDGET_EXCEEDED: (
        Step(
            text="give it more GPU-hours, and let it pause instead of fail when they are used",
            command="trainmaster fork {job} --set limits.gpu_hours=HOURS "
            "--set limits.on_budget=pause",
        ),
    ),
    Reason.DEPENDENCY_FAILED: (
        Step(text="mend the job that it depended on, then submit this one again"),
    ),
    Reason.RANK_KILLED: (
        Step(text="see what was killed, and where", command=_LOGS.command),
        _RETRIED,
        _NODES,
    ),
    Reason.NODE_FAILURE: (_RETRIED, _NODES),
    Reason.SUPERVISOR_DIED: (_RETRIED, _NODES),
    Reason.STORAGE_UNAVAILABLE: (
        Step(text="check that the service's storage and the nodes' disks have room"),
        _RETRIED,
    ),
    Reason.LEASE_LOST: (
        Step(text="check the machine and its way to the service; the lease was not renewed"),
        _RETRIED,
        _NODES,
    ),
    Reason.PRELOADER_DIED: (_RETRIED, _NODES),
    Reason.KILLED_TO_VERIFY: (
        Step(text="nothing: it goes on by itself, which is what the verification looks at"),
    ),
    Reason.STALL_DETECTED: (
        Step(
            text="see where each rank stood: the event attempt.stalled has every stack",
            command="trainmaster events {job}",
        ),
        Step(text="if a rank was at work on something long, raise health.stall_seconds"),
    ),
}


def find_steps(reason: str, job_id: str) -> tuple[Step, ...]:
    """Return what to do about a job that shows `reason`, the likeliest first; () if unknown."""
    found = _STEPS.get(Reason(reason)) if reason in set(Reason) else None
    return tuple(
        Step(text=step.text.replace("{job}", job_id), command=step.command.replace("{job}", job_id))
        for step in found or ()
    )
