"""The storage of the running app, as a dependency of routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.storage import LocalStorage


async def _storage(request: Request) -> LocalStorage:
    storage: LocalStorage = request.app.state.storage
    return storage


StorageDep = Annotated[LocalStorage, Depends(_storage)]
