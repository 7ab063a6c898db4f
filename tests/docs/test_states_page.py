"""docs/states.md is drawn from the tables that the code runs on."""

from pathlib import Path

from scheduler.core.reasons import INFRASTRUCTURE_REASONS, Reason
from scheduler.core.states import JOB_TRANSITIONS, JobState

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"


def _edges() -> list[str]:
    return [
        f"    {source} --> {target}: {event}"
        for (source, event), target in JOB_TRANSITIONS.items()
        if source is not target
    ]


def test_the_drawing_has_exactly_the_edges_of_the_table() -> None:
    text = PAGE.read_text()
    drawn = [line for line in text.splitlines() if " --> " in line and "[*]" not in line]

    assert drawn == _edges()


def test_every_state_and_every_reason_is_explained() -> None:
    text = PAGE.read_text()

    assert [state for state in JobState if f"| `{state}` |" not in text] == []
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_the_reasons_that_are_retried_by_themselves_are_marked() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if "machines, retried" in line]
    marked = {reason for row in rows for reason in Reason if f"`{reason}`" in row}

    assert marked == set(INFRASTRUCTURE_REASONS)
