"""Projects, and the credentials that belong to them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Enum, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, Name, new_id


class Role(StrEnum):
    """What a key may do: look, work, or administer."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


class Project(Base):
    """A group of people who see one another's jobs."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("prj"))
    name: Mapped[str] = mapped_column(Name, unique=True)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key of a project. Only its SHA-256 is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("key"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(Name)
    role: Mapped[Role] = mapped_column(
        Enum(
            Role, native_enum=False, length=16, values_callable=lambda kind: [r.value for r in kind]
        )
    )
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    last4: Mapped[str] = mapped_column(String(4))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class BrowserSession(Base):
    """A browser that has shown a key. Only the SHA-256 of its cookie is kept."""

    __tablename__ = "browser_sessions"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("ses"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
