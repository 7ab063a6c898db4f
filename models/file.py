"""Uploaded files: code bundles and inputs. The bytes lie in the storage, by this row's id."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, new_id


class File(Base):
    """One uploaded file; the row exists only once the bytes are whole on disk."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=lambda: new_id("file"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_by: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime]
