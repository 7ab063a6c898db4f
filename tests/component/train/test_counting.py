"""What torch's collectives send is counted, whoever makes them, and nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "counted.py"
WIDTH = 96
PARAMETER_BYTES = 4 * (2 * (8 * WIDTH**2 + 5 * WIDTH) + WIDTH**2 + WIDTH)


def run_case(
    forge: Forge, folder: Path, case: str, *, ranks: int = 2, count: bool = True
) -> list[dict[str, Any]]:
    """Return what each rank says of a case."""
    gang = forge.run(SCRIPT, folder, case, str(int(count)), ranks=ranks)
    return [json.loads(gang.said("said", rank)) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_gradients_of_a_step_are_counted_to_the_byte_and_stay_the_same(
    forge: Forge, tmp_path: Path, ranks: int
) -> None:
    counted = run_case(forge, tmp_path / "counted", "data parallel", ranks=ranks)
    plain = run_case(forge, tmp_path / "plain", "data parallel", ranks=ranks, count=False)

    assert [each["hash"] for each in counted] == [each["hash"] for each in plain]
    for each in counted:
        assert each["sent"] == pytest.approx(2 * (ranks - 1) / ranks * PARAMETER_BYTES)
        assert each["predicted"] == {"gradients": pytest.approx(each["sent"])}


def test_whoever_comes_last_waits_least(forge: Forge, tmp_path: Path) -> None:
    first, last = run_case(forge, tmp_path, "late")

    assert first["exposed_s"] >= 0.09
    assert last["exposed_s"] < 0.05


def test_parameters_and_gradients_of_fsdp_are_counted(forge: Forge, tmp_path: Path) -> None:
    (said, _) = run_case(forge, tmp_path, "sharded")

    assert said["sent"] == {
        phase: pytest.approx(bytes_sent) for phase, bytes_sent in said["predicted"].items()
    }


def test_activations_of_divided_layers_are_counted(forge: Forge, tmp_path: Path) -> None:
    (said, _) = run_case(forge, tmp_path, "tensor parallel")

    # One sum on the way there and one on the way back, for each of two blocks.
    assert said["sent"] == 4 * (4 * 24 * WIDTH) * 2 / 2


def test_every_call_is_counted_once(forge: Forge, tmp_path: Path) -> None:
    (said, other) = run_case(forge, tmp_path, "every call")

    assert other["send"] == {"recv": 96}
    assert said.pop("barrier") == {}
    for name, counted in said.items():
        operation = name.partition(",")[0]
        assert counted == {operation: 96}, name
