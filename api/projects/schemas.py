"""Projects as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api import shapes
from api.jobs.spec_schema import Document
from api.pages import ListEnvelope

ProjectName = Annotated[str, StringConstraints(pattern=shapes.PROJECT_NAME)]


class Project(BaseModel):
    """A group of people who see one another's jobs."""

    id: str = Field(examples=["prj_01kasy0e5xq5b2p0v3m8n7r4tz"])
    object: Literal["project"] = "project"
    name: str = Field(examples=["vision"])
    created_at: datetime


class ProjectList(ListEnvelope[Project]):
    """One page of projects."""


class ProjectRequest(Document):
    """A project to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "vision"}]})

    name: ProjectName = Field(description="Lower case; unique.")
