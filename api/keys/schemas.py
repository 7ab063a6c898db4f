"""Keys as they go over the wire. Only the answer to `POST /v1/keys` holds the key itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.jobs.spec_schema import Document, Instant, Name
from api.pages import ListEnvelope
from models import Role


class Key(BaseModel):
    """A key, without its secret."""

    id: str = Field(examples=["key_01kasy0e5xq5b2p0v3m8n7r4tz"])
    object: Literal["key"] = "key"
    name: str = Field(examples=["ci"])
    project: str = Field(description="Name of its project.", examples=["default"])
    role: Role
    last4: str = Field(description="The last characters of the secret.", examples=["x7Qa"])
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(Key):
    """A key that was just made. The secret is shown this once and stored nowhere."""

    key: str = Field(examples=["tml-…"])


class KeyList(ListEnvelope[Key]):
    """One page of keys."""


class KeyRequest(Document):
    """A key to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ci", "role": "member"}]})

    name: Name = Field(description="What it is for.")
    role: Annotated[
        Literal["viewer", "member", "admin"],
        Field(description="viewer reads; member also works; admin also administers."),
    ] = "member"
    project: Annotated[Name | None, Field(description="Yours unless given.")] = None
    expires_at: Annotated[Instant | None, Field(description="Never, unless given.")] = None
