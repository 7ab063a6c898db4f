"""Rings wake who waits, and forget nobody who matters."""

import threading

import pytest

from models.doorbell import Doorbell


def test_a_ring_before_the_wait_is_not_missed() -> None:
    doorbell = Doorbell()
    since = doorbell.count("jobs")

    doorbell.ring(["jobs"])

    assert doorbell.wait("jobs", since=since, timeout_s=0)


def test_a_ring_of_another_topic_wakes_nobody() -> None:
    doorbell = Doorbell()

    doorbell.ring(["logs:1"])

    assert not doorbell.wait("jobs", since=doorbell.count("jobs"), timeout_s=0)


def test_a_waiting_thread_is_woken() -> None:
    doorbell = Doorbell()
    woken: list[bool] = []
    since = doorbell.count("jobs")
    thread = threading.Thread(
        target=lambda: woken.append(doorbell.wait("jobs", since=since, timeout_s=10))
    )

    thread.start()
    doorbell.ring(["jobs"])
    thread.join(10)

    assert woken == [True]


def test_listeners_hear_all_topics_of_a_ring_until_they_end() -> None:
    doorbell = Doorbell()
    heard: list[frozenset[str]] = []
    end = doorbell.listen(heard.append)

    doorbell.ring(["a", "b"])
    doorbell.ring([])
    end()
    doorbell.ring(["c"])

    assert heard == [frozenset({"a", "b"})]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.doorbell._TOPICS_MAX", 3)
    doorbell = Doorbell()

    for number in range(10):
        doorbell.ring([f"job:{number}"])

    assert doorbell.count("job:9") == 10
    assert doorbell.count("job:0") == 0
