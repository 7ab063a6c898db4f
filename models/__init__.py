"""The tables and the transactions on them. Imports every table, so that the metadata is complete.

Imports `scheduler.core` for the states and specs that rows store: the core defines them, the rows
only keep them.
"""

from models.attempt import Allocation, Attempt, AttemptNode
from models.base import Base, new_id
from models.checkpoint import Checkpoint, CheckpointFile, CheckpointState
from models.database import Database, DatabaseConfig, announce
from models.doorbell import Doorbell
from models.file import File
from models.idempotency import IdempotencyRecord
from models.job import Event, Job, JobDependency
from models.log_chunk import LogChunk, LogStream
from models.metric import MetricChunk, MetricStream
from models.node import Lease, Node, NodeFault, Pool, Queue
from models.project import ApiKey, BrowserSession, Project, Role
from models.quota import Quota, UsageMonth, UsageShare
from models.verification import Verification

__all__ = [
    "Allocation",
    "ApiKey",
    "Attempt",
    "AttemptNode",
    "Base",
    "BrowserSession",
    "Checkpoint",
    "CheckpointFile",
    "CheckpointState",
    "Database",
    "DatabaseConfig",
    "Doorbell",
    "Event",
    "File",
    "IdempotencyRecord",
    "Job",
    "JobDependency",
    "Lease",
    "LogChunk",
    "LogStream",
    "MetricChunk",
    "MetricStream",
    "Node",
    "NodeFault",
    "Pool",
    "Project",
    "Queue",
    "Quota",
    "Role",
    "UsageMonth",
    "UsageShare",
    "Verification",
    "announce",
    "new_id",
]
