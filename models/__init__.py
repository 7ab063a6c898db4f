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
from models.job import Event, Job
from models.log_chunk import LogChunk, LogStream
from models.metric import MetricChunk, MetricStream
from models.node import Lease, Node, Pool
from models.project import ApiKey, BrowserSession, Project, Role

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
    "Lease",
    "LogChunk",
    "LogStream",
    "MetricChunk",
    "MetricStream",
    "Node",
    "Pool",
    "Project",
    "Role",
    "announce",
    "new_id",
]
