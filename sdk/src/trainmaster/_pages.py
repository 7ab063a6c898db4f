"""Lists that come in pages. Knows cursors; knows nothing about what is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from trainmaster._calls import Query
from trainmaster._errors import APIResponseError
from trainmaster._transport import Transport

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list. `data` is this page; iterating goes on through all that follow."""

    data: list[T]
    has_more: bool
    next_cursor: str | None
    _fetch: Callable[[str], Page[T]] = field(repr=False, compare=False)

    def next_page(self) -> Page[T] | None:
        """Return the page after this one, None after the last."""
        if not self.has_more or self.next_cursor is None:
            return None
        return self._fetch(self.next_cursor)

    def pages(self) -> Iterator[Page[T]]:
        """Yield this page and all that follow, each fetched when it is asked for."""
        page: Page[T] | None = self
        while page is not None:
            yield page
            following = page.next_page()
            if following is not None and following.next_cursor == page.next_cursor:
                raise APIResponseError(f"the list does not move on from cursor {page.next_cursor}")
            page = following

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data


def fetch_page(transport: Transport, path: str, query: Query, parse: Callable[[Any], T]) -> Page[T]:
    """Return the page of `path` that the query asks for.

    Raises:
        APIResponseError: the answer is not a list as the service writes them.
    """
    document = transport.get(path, query)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise APIResponseError(f"{transport.url_of(path)} did not answer with a list")
    cursor = document.get("next_cursor")
    return Page(
        data=[parse(item) for item in data],
        has_more=document.get("has_more") is True,
        next_cursor=cursor if isinstance(cursor, str) else None,
        _fetch=lambda after: fetch_page(transport, path, {**query, "after": after}, parse),
    )
