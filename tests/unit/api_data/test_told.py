"""A node hears news once, and everything again after a while."""

from __future__ import annotations

import math

from api.nodes.told import Told


def test_things_are_new_until_told_and_again_when_the_telling_is_old() -> None:
    told = Told(for_s=5.0)

    assert told.find_new(["a", "b"], now_s=0.5) == {"a", "b"}
    told.note(["a"], now_s=0.5)
    assert told.find_new(["a", "b"], now_s=1.0) == {"b"}
    assert told.find_new(["a"], now_s=5.5) == {"a"}


def test_some_things_are_told_once_for_all() -> None:
    told = Told(for_s=5.0)

    told.note(["a"], now_s=0.0, for_s=math.inf)

    assert told.find_new(["a"], now_s=1e9) == set()


def test_old_tellings_are_forgotten() -> None:
    told = Told(for_s=1.0)
    told.note(range(20_000), now_s=0.0)

    told.note(["new"], now_s=10.0)

    assert told.find_new(["new", 5], now_s=10.0) == {5}
