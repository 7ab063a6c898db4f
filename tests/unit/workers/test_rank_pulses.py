"""The page that a rank writes and its supervisor reads."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from trainmaster import _pulse as written
from workers.supervisor import pulse as read


def test_both_sides_know_the_same_slots() -> None:
    names = [name for name in vars(written) if name.startswith("SLOT_")]
    names += ["VERSION", "NUM_SLOTS", "PHASES", "STEPS_UNTIL_JUDGED"]

    assert {name: getattr(read, name) for name in names} == {
        name: getattr(written, name) for name in names
    }


def test_what_a_rank_shows_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "0"
    pulse = written.Pulse(str(path))
    pulse.note_step(4)
    pulse.note_step(5)
    pulse.enter(written.PHASES.index("data_wait"))
    pulse.add_seconds(0, 1.5)

    seen = read.find_pulse(path)

    assert seen is not None
    assert (seen.step, seen.steps_taken, seen.expects_step) == (5, 1, True)
    assert (seen.phase, list(seen.seconds)) == ("data_wait", [1.5, 0.0, 0.0, 0.0, 0.0])
    assert seen.beat_at_s > 0


def test_the_longest_gap_is_counted_from_the_second_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("trainmaster._pulse.time.clock_gettime", lambda _clock: now_s[0])
    pulse = written.Pulse(str(tmp_path / "0"))
    gaps = []
    for step, seconds in enumerate((1.0, 50.0, 2.0, 7.0, 3.0)):
        now_s[0] += seconds
        pulse.note_step(step)
        seen = read.find_pulse(tmp_path / "0")
        assert seen is not None
        gaps.append(seen.longest_gap_s)

    assert gaps == [0.0, 0.0, 2.0, 7.0, 7.0]


def test_after_its_last_step_a_rank_expects_none(tmp_path: Path) -> None:
    pulse = written.Pulse(str(tmp_path / "0"))
    pulse.note_step(9, is_last=True)

    seen = read.find_pulse(tmp_path / "0")

    assert seen is not None
    assert not seen.expects_step


def test_a_forked_child_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "0"
    pulse = written.Pulse(str(path))
    pulse.note_step(5)
    child = os.fork()
    if child == 0:
        pulse.note_step(99)
        os._exit(0)
    os.waitpid(child, 0)

    seen = read.find_pulse(path)

    assert seen is not None
    assert seen.step == 5


def test_where_no_page_can_be_made_a_rank_trains_on(tmp_path: Path) -> None:
    pulse = written.Pulse(str(tmp_path / "missing" / "0"))

    pulse.note_step(1)

    assert read.find_pulse(tmp_path / "missing" / "0") is None


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(256), id="of no version"),
        pytest.param(struct.pack("=32d", 1.0, *[float("nan")] * 31), id="not numbers"),
        pytest.param(os.urandom(100), id="too short"),
    ],
)
def test_a_page_that_makes_no_sense_says_nothing(page: bytes) -> None:
    assert read.parse_pulse(page) is None


def test_a_page_full_of_nonsense_stays_within_bounds() -> None:
    seen = read.parse_pulse(struct.pack("=32d", 1.0, *[-1e300, 1e300] * 15, 1e300))

    assert seen is not None
    assert (seen.beat_at_s, seen.step, seen.phase) == (0.0, None, None)
    assert seen.gpu_peak_bytes <= 2**53
