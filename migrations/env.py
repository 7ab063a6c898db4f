"""Runs the migrations inside the connection that `models.schema` hands over."""

from __future__ import annotations

from typing import Any

from alembic import context

from models import Base
from models.base import UtcDateTime


def _render_plain(kind: str, value: Any, _context: Any) -> str | bool:
    # Old revisions must never import living code.
    if kind == "type" and isinstance(value, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=_render_plain,
    compare_type=False,
)
context.run_migrations()
