"""What supervisors report while an attempt goes on, as documents of the worker protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.attempts.schemas import Message, Phase, Rank, Seconds, Step, Strict

RankList = Annotated[list[Rank], Field(max_length=1024)]


class StalledRankIn(Strict):
    """How far one rank was when nothing went on any more."""

    rank: Rank
    step: Step | None = None
    phase: Phase | None = None


class StackIn(Strict):
    """Where some ranks stood, all in the same place."""

    ranks: RankList
    stack: Annotated[str, Field(max_length=16_384)]


class StallIn(Strict):
    """Ranks that take no step, and what is done about it."""

    action: Literal["restart", "fail", "wait"]
    silent_seconds: Seconds
    missing_ranks: RankList
    waiting_ranks: RankList
    ranks: Annotated[list[StalledRankIn], Field(max_length=1024)]
    stacks: Annotated[list[StackIn], Field(max_length=1024)]


class ReplacementIn(Strict):
    """A rank that was killed and is started again, while the others go on."""

    rank: Rank
    signal: Annotated[int, Field(ge=0, le=255)]
    restarts: Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Report(Strict):
    """Something that a supervisor has seen. The same sequence again is the same report."""

    sequence: Annotated[int, Field(ge=0, le=999_999)]
    message: Message


class StallReportIn(_Report):
    """Ranks hang."""

    kind: Literal["stalled"]
    data: StallIn


class ReplacementReportIn(_Report):
    """A rank is started again."""

    kind: Literal["rank_replaced"]
    data: ReplacementIn


ReportIn = Annotated[StallReportIn | ReplacementReportIn, Field(discriminator="kind")]


class ReportOut(BaseModel):
    """The report is kept."""

    accepted: Literal[True]
