"""Browser sessions as they go over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.jobs.spec_schema import Document
from models import Role


class SessionRequest(Document):
    """A key, to be exchanged for a cookie."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "tml-…"}]})

    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Session(BaseModel):
    """Who you are to the service."""

    object: Literal["session"] = "session"
    key_id: str = Field(examples=["key_01kasy0e5xq5b2p0v3m8n7r4tz"])
    project: str = Field(examples=["default"])
    role: Role
    expires_at: datetime | None = Field(
        description="When the cookie ends; null for a key that was sent itself."
    )
