"""Identifiers and instants."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite

from models.base import UtcDateTime, new_id

_SQLITE: Dialect = sqlite.dialect()


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    ids = [new_id("job") for _ in range(1000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {len(one) for one in ids} == {len("job_") + 26}


def test_naive_instants_are_refused() -> None:
    with pytest.raises(TypeError, match="zone"):
        UtcDateTime().process_bind_param(datetime(2030, 1, 1), _SQLITE)  # noqa: DTZ001  the point


@pytest.mark.parametrize("make", [sqlite.dialect, postgresql.dialect])
def test_instants_come_back_equal_whatever_zone_they_were_given_in(
    make: Callable[[], Dialect],
) -> None:
    dialect = make()
    instant = datetime(2030, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))

    stored = UtcDateTime().process_bind_param(instant, dialect)
    back = UtcDateTime().process_result_value(stored, dialect)

    assert back == instant
    assert back is not None
    assert back.tzinfo is UTC
