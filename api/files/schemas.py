"""Uploaded files as users see them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope

Purpose = Literal["code", "input"]


class FileOut(BaseModel):
    """One uploaded file. Its bytes never change."""

    object: Literal["file"] = "file"
    id: str = Field(examples=["file_01k9x…"])
    filename: str = Field(examples=["bundle.zip"])
    purpose: str = Field(examples=["code", "input"])
    size_bytes: int
    sha256: str = Field(description="In hexadecimal.")
    content_url: str = Field(description="Path on this server; ranges are served.")
    created_at: datetime


class FileList(ListEnvelope[FileOut]):
    """Files of the project, newest first."""
