"""Who may stand behind a request: a person or program, a node, an attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from models import Role
from scheduler.core.errors import Forbidden

_RANKS = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A person or program with a key of a project.

    Attributes:
        project: the project's name.
        session_id: the browser session that stands for the key, None for the key itself.
    """

    key_id: str
    project_id: str
    project: str
    role: Role
    session_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether everything of every project is theirs to see."""
        return self.role is Role.ADMIN

    def may_see(self, project_id: str) -> bool:
        """Whether things of that project exist for this caller."""
        return self.is_admin or project_id == self.project_id

    def require(self, role: Role) -> None:
        """Refuse a caller whose role is less than `role`.

        Raises:
            Forbidden: it is less.
        """
        if _RANKS[self.role] < _RANKS[role]:
            raise Forbidden(
                f"your key has the role {self.role}, this needs {role}: ask an admin for such a key"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCaller:
    """The daemon of a node."""

    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCaller:
    """The supervisor of one node's part of one attempt."""

    attempt_id: str
    node_id: str
    epoch: int


Principal = Caller | NodeCaller | AttemptCaller
