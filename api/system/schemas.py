"""What the service says of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Database and storage answer too."""

    status: Literal["ready"] = "ready"


class Version(BaseModel):
    """Which service this is."""

    name: Literal["trainmaster"] = "trainmaster"
    version: str = Field(examples=["0.1.0"])
    api: Literal["v1"] = "v1"
