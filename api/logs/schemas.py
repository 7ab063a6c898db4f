"""Log lines as users get them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.pages import ListEnvelope


class LogLine(BaseModel):
    """One line that a rank printed, or a piece of a very long one."""

    object: Literal["log_line"] = "log_line"
    id: str = Field(description="Give it as `after` to go on behind this line.", examples=["7-41"])
    attempt_id: str
    attempt: int = Field(description="Number of the attempt.", examples=[1])
    rank: int
    stream: Literal["stdout", "stderr"]
    offset: int = Field(description="Where in the log of this rank and stream it begins, in bytes.")
    text: str = Field(description="Without its newline; what is no UTF-8 becomes U+FFFD.")
    created_at: datetime = Field(description="When its end reached the service.")


class LogPage(ListEnvelope[LogLine]):
    """Lines in the order in which they reached the service.

    `next_cursor` is there on the last page as well: more lines may follow.
    """
