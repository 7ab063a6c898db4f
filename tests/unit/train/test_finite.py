"""Which numbers end a run, and what is said then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from trainmaster._finite import complain, find_bad_loss
from trainmaster.run import NonFiniteLoss, Run


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({"loss": math.nan}, "loss"),
        ({"train/loss": math.inf}, "train/loss"),
        ({"accuracy": 0.1, "val_loss": -math.inf}, "val_loss"),
        ({"Loss/policy": math.nan}, "Loss/policy"),
        ({"loss": 3, "val/auc": math.nan}, None),
        ({"grad_norm": math.inf}, None),
        ({"glossary": math.nan}, None),
    ],
)
def test_the_loss_that_is_no_number_is(values: dict[str, float], want: str | None) -> None:
    assert find_bad_loss(values) == want


def _make_run(folder: Path, **health: Any) -> Run:
    for name in ("spool", "checkpoints"):
        (folder / name).mkdir()
    description = {
        "socket": str(folder / "s.sock"),
        "spool_dir": str(folder / "spool"),
        "checkpoints_dir": str(folder / "checkpoints"),
        "health": health,
    }
    return Run(description, {"RANK": "1", "WORLD_SIZE": "2"})


def test_a_loss_that_is_nan_is_recorded_and_ends_the_run(tmp_path: Path) -> None:
    run = _make_run(tmp_path, on_nan="fail")

    with pytest.raises(NonFiniteLoss, match="loss is nan at step 25"):
        run.log(25, loss=math.nan)

    assert "NaN" in (tmp_path / "spool" / "1.jsonl").read_text()


@pytest.mark.parametrize("health", [{"on_nan": "ignore"}, {}], ids=["ignored", "not asked for"])
def test_a_run_may_train_on_through_it(tmp_path: Path, health: dict[str, str]) -> None:
    run = _make_run(tmp_path, **health)

    run.log(25, loss=math.nan)


def test_the_message_says_what_to_do() -> None:
    message = str(complain("loss is inf", 3))

    assert message.startswith("loss is inf at step 3. Use a lower learning rate")
    assert "health.on_nan = ignore" in message
    assert len(message) < 400
