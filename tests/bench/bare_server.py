"""The baseline for submits: FastAPI and one route that stores the document as one row.

    python -m tests.bench.bare_server DATABASE PORT

The web server's settings, the database's and the shape of the route are those of the service; what
it leaves out is everything else: keys, limits, rules, events, the scheduler.
"""

from __future__ import annotations

import json
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import JSON, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models import Database, DatabaseConfig
from models.base import new_id


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "documents"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[str] = mapped_column(String(32))


def create_app(database: Database) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.post("/documents", status_code=201)
    def store(document: dict[str, Any]) -> dict[str, Any]:
        row = _Row(id=new_id("doc"), document=document, created_at=datetime.now(UTC).isoformat())
        with database.write() as session:
            session.add(row)
        return {"id": row.id, "created_at": row.created_at, "document": document}

    return app


def main(path: str, port: int) -> None:
    """Serve until told to end."""
    database = Database(DatabaseConfig(url=f"sqlite:///{path}"))
    with database.write() as session:
        _Base.metadata.create_all(session.connection())
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(2048)
    config = uvicorn.Config(
        create_app(database),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
    )
    print(json.dumps({"ready": True}), flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
