"""Why a job is in its state: an open, documented list. Pure."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The documented reasons; the value is what the API shows."""

    # pending
    SUBMITTED = "Submitted"
    HELD_BY_USER = "HeldByUser"
    BEGIN_TIME_NOT_REACHED = "BeginTimeNotReached"
    RETRY_BACKOFF = "RetryBackoff"
    RESUMED = "Resumed"
    PREEMPTED = "Preempted"
    MIGRATED = "Migrated"
    RESIZED = "Resized"
    DEPENDENCY_NOT_MET = "DependencyNotMet"
    QUEUE_CLOSED = "QueueClosed"
    QUOTA_REACHED = "QuotaReached"
    BUDGET_SPENT = "BudgetSpent"
    # queued
    WAITING_FOR_PLACEMENT = "WaitingForPlacement"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    HIGHER_PRIORITY_AHEAD = "HigherPriorityAhead"
    NO_NODES = "NoNodes"
    BACKFILL_TOO_LONG = "BackfillTooLong"
    FRAGMENTED = "Fragmented"
    GPU_UNAVAILABLE = "GpuUnavailable"
    PREEMPTION_PENDING = "PreemptionPending"
    # starting
    LAUNCHING = "Launching"
    STAGING = "Staging"
    RENDEZVOUS = "Rendezvous"
    # running
    TRAINING = "Training"
    # stopping
    PAUSE_REQUESTED = "PauseRequested"
    CANCEL_REQUESTED = "CancelRequested"
    DEADLINE_REACHED = "DeadlineReached"
    NODE_DRAINING = "NodeDraining"
    PREEMPTING = "Preempting"
    MIGRATING = "Migrating"
    RESIZING = "Resizing"
    BUDGET_REACHED = "BudgetReached"
    # paused
    PAUSED_BY_USER = "PausedByUser"
    PAUSED_BY_DEADLINE = "PausedByDeadline"
    PAUSED_BY_BUDGET = "PausedByBudget"
    # finalizing and terminal
    UPLOADING_ARTIFACTS = "UploadingArtifacts"
    COMPLETED = "Completed"
    CANCELLED_BY_USER = "CancelledByUser"
    # failures of the user's side
    USER_CODE_ERROR = "UserCodeError"
    SETUP_FAILED = "SetupFailed"
    DATA_UNAVAILABLE = "DataUnavailable"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    NON_FINITE_LOSS = "NonFiniteLoss"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXCEEDED = "BudgetExceeded"
    DEPENDENCY_FAILED = "DependencyFailed"
    # failures of the platform's side
    RANK_KILLED = "RankKilled"
    NODE_FAILURE = "NodeFailure"
    SUPERVISOR_DIED = "SupervisorDied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    LEASE_LOST = "LeaseLost"
    PRELOADER_DIED = "PreloaderDied"
    STALL_DETECTED = "StallDetected"
    KILLED_TO_VERIFY = "KilledToVerify"


INFRASTRUCTURE_REASONS = frozenset(
    {
        Reason.RANK_KILLED,
        Reason.NODE_FAILURE,
        Reason.SUPERVISOR_DIED,
        Reason.STORAGE_UNAVAILABLE,
        Reason.LEASE_LOST,
        Reason.PRELOADER_DIED,
        Reason.STALL_DETECTED,
        Reason.KILLED_TO_VERIFY,
    }
)
"""Faults of machines and of ours: retried on their own budget, never on the user's."""

STOPS_THAT_GO_ON = frozenset(
    {Reason.PREEMPTING, Reason.MIGRATING, Reason.NODE_DRAINING, Reason.RESIZING}
)
"""Stops after which a job goes on by itself."""
