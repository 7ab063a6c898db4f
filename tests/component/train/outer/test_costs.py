"""What an outer mode sends, and what it gains where a replica is slow."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch


def run(
    forge: Forge, folder: Path, script: str, ranks: int, **settings: Any
) -> list[dict[str, Any]]:
    """Return what each rank has written."""
    forge.run(SCRIPTS / script, folder, json.dumps(settings), ranks=ranks)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("compression", "times_less"),
    [("none", 100), ("fp16", 199), ("bf16", 199), ("int8", 390), ("int4", 750)],
)
def test_a_round_every_hundred_steps_sends_so_much_less_than_data_parallel(
    forge: Forge, tmp_path: Path, compression: str, times_less: float
) -> None:
    ranks, every = 2, 100
    sync = {"mode": "diloco", "every": every, "compression": compression}

    out = run(forge, tmp_path, "volume.py", ranks, sync=sync)[1]

    # A ring sends and receives 2 (N - 1) / N times the gradients, of 32 bits, in every step.
    per_step = 2 * (ranks - 1) / ranks * out["parameters"] * 4
    for direction in ("sent", "received"):
        assert every * per_step / out[direction] >= times_less * 0.999
        # With heads, and lengths rounded up: 1 % more at most.
        assert out[direction] < out[f"framed_{direction}"] < 1.01 * out[direction]


def test_one_slow_replica_of_four_holds_up_itself_only(forge: Forge, tmp_path: Path) -> None:
    sync: dict[str, Any] = {"mode": "parameter_server", "staleness": 0}
    gains: list[float] = []
    # Three waits of 1 and one of 4: 3.25 times the steps, if nothing else took time. Whatever
    # else this machine does takes some, so it has three tries.
    while len(gains) < 3 and max(gains, default=0.0) < 2.9:
        together = run(forge, tmp_path, "straggler.py", 4, sync=sync, steps=8, step_s=0.2)
        free = {**sync, "staleness": None}
        apart = run(forge, tmp_path, "straggler.py", 4, sync=free, steps=36, step_s=0.2)
        gains.append(apart[0]["steps_per_s"] / together[0]["steps_per_s"])

    assert max(gains) >= 2.9
    assert together[0]["counters"]["straggler_s"] > 5 * together[0]["counters"]["transfer_s"]
    assert apart[3]["pieces"] < apart[0]["pieces"] / 2.5


def test_a_bound_makes_the_fast_wait_at_the_gate(forge: Forge, tmp_path: Path) -> None:
    sync = {"mode": "parameter_server", "staleness": 2}

    out = run(forge, tmp_path, "straggler.py", 4, sync=sync, steps=12, step_s=0.05)

    gaps = {int(gap) for each in out for gap in each["counters"]["gaps"]}
    assert max(gaps) == 2
    assert out[0]["counters"]["gate_s"] > out[3]["counters"]["gate_s"]
