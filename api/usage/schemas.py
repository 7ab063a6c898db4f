"""Usage as it goes over the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class Usage(BaseModel):
    """What one user of a project has used in a month, and what that means for its turn."""

    object: Literal["usage"] = "usage"
    project: str = Field(examples=["vision"])
    user: str | None = Field(description="Id of a key; null: nobody's.")
    user_name: str | None = Field(description="The name of that key.", examples=["ci"])
    month: str = Field(description="In UTC.", examples=["2031-05"])
    gpu_hours: float = Field(
        description="GPUs x hours from claiming to giving back, running jobs included.",
        examples=[41.5],
    )
    cpu_hours: float = Field(description="CPUs x hours, of attempts that have ended.")
    num_attempts: int = Field(description="Attempts that ended in the month.", examples=[12])
    gpus_in_use: int = Field(description="Held now.", examples=[8])
    recent_gpu_hours: float = Field(
        description="All GPU-hours up to now, halved with every week that has passed since: what "
        "the order of jobs looks at.",
        examples=[17.25],
    )
    recent_share: float = Field(
        description="Part of all recent GPU-hours, of all projects; 0 to 1.", examples=[0.5]
    )
    fair_share: float | None = Field(
        description="The part that its weights give it among those who have jobs now; null when "
        "it has none.",
        examples=[0.25],
    )


class UsageList(ListEnvelope[Usage]):
    """One page of usage."""
