"""The recipe `export`: one file, in which the reference library finds what was in many."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.ranks import SCRIPTS, Forge
from trainmaster._checkpoint_folder import hash_file, open_checkpoint

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "exports.py"
MODULE = "trainmaster.recipes.export"


def make(forge: Forge, folder: Path, kind: str) -> Path:
    """Return the run that has committed a checkpoint of this kind."""
    forge.run(SCRIPT, folder, "make", kind)
    return folder / "trainmaster-runs" / "1"


def export(forge: Forge, run: Path, folder: Path, dtype: str = "keep") -> Path:
    """Return the file that the recipe has made of a run's checkpoint."""
    description = {"resume": str(run), "config": {"dtype": dtype}}
    forge.run(MODULE, folder, description=description)
    checkpoint = open_checkpoint(folder / "trainmaster-runs" / "1")
    (file,) = checkpoint.path.iterdir()
    assert file.name == "model.safetensors"
    return file


def look(forge: Forge, file: Path, folder: Path) -> dict[str, Any]:
    """Return what the reference library finds in a file."""
    found: dict[str, Any] = json.loads(forge.run(SCRIPT, folder, "look", str(file)).said("found"))
    return found


def test_nothing_is_changed_unless_it_is_asked_for(forge: Forge, tmp_path: Path) -> None:
    run = make(forge, tmp_path / "a", "numbers")
    source = open_checkpoint(run).path / "model.safetensors"

    file = export(forge, run, tmp_path / "b")

    found = look(forge, file, tmp_path / "c")
    assert found["tensors"] == look(forge, source, tmp_path / "d")["tensors"]
    assert found["metadata"]["format"] == "pt"
    assert found["metadata"]["trainmaster.step"] == "7"
    assert open_checkpoint(tmp_path / "b" / "trainmaster-runs" / "1").step == 7


@pytest.mark.parametrize(
    ("dtype", "name", "nearest"),
    [
        pytest.param("bf16", "torch.bfloat16", [1.0, 1.0, -3.25], id="bf16"),
        pytest.param("fp32", "torch.float32", [1.0, 1.0 + 2**-10, -3.25], id="fp32"),
    ],
)
def test_floating_point_weights_become_what_was_asked_for(
    forge: Forge, tmp_path: Path, dtype: str, name: str, nearest: list[float]
) -> None:
    run = make(forge, tmp_path / "a", "numbers")

    file = export(forge, run, tmp_path / "b", dtype)

    tensors = look(forge, file, tmp_path / "c")["tensors"]
    kinds = {key: tensor["dtype"] for key, tensor in tensors.items()}
    assert kinds == {
        **dict.fromkeys(["w", "big", "half", "none", "scalar", "small"], name),
        "ids": "torch.int64",
        "bits": "torch.bool",
    }
    assert tensors["w"]["values"] == [*nearest, float("inf")]
    assert tensors["ids"]["values"] == [1, 2**40]
    assert tensors["small"]["values"] == [0.25, 448.0]


def test_models_keep_apart_by_their_names_and_metrics_go_along(
    forge: Forge, tmp_path: Path
) -> None:
    run = make(forge, tmp_path / "a", "two models")

    file = export(forge, run, tmp_path / "b", "fp16")

    found = look(forge, file, tmp_path / "c")
    assert sorted(found["tensors"]) == [
        "decoder.bias", "decoder.weight", "encoder.bias", "encoder.weight",
    ]  # fmt: skip
    assert {each["dtype"] for each in found["tensors"].values()} == {"torch.float16"}
    assert found["metadata"]["trainmaster.torch"].startswith("2.")
    manifest = json.loads((file.parent.parent / "manifest.json").read_text())
    assert (manifest["step"], manifest["metrics"]) == (2, {"loss": 1.5})


def test_a_name_that_shares_memory_is_in_the_metadata(forge: Forge, tmp_path: Path) -> None:
    run = make(forge, tmp_path / "a", "tied")

    found = look(forge, export(forge, run, tmp_path / "b"), tmp_path / "c")

    (kept,) = found["tensors"]
    (alias,) = {"words.weight", "head.weight"} - {kept}
    assert found["metadata"][alias] == kept


def test_a_model_in_several_parts_becomes_one(forge: Forge, tmp_path: Path) -> None:
    run = make(forge, tmp_path / "a", "parts")

    found = look(forge, export(forge, run, tmp_path / "b"), tmp_path / "c")

    assert sorted(found["tensors"]) == ["a", "b"]


def test_exporting_what_was_exported_gives_the_same_bytes(forge: Forge, tmp_path: Path) -> None:
    run = make(forge, tmp_path / "a", "two models")
    first = export(forge, run, tmp_path / "b", "bf16")

    again = export(forge, tmp_path / "b" / "trainmaster-runs" / "1", tmp_path / "c", "bf16")
    apart = export(forge, run, tmp_path / "d", "bf16")

    assert hash_file(first) == hash_file(again) == hash_file(apart)


@pytest.mark.parametrize(
    ("kind", "dtype", "said"),
    [
        pytest.param(
            "no weights", "keep", "holds no .safetensors file, only state.json", id="none"
        ),
        pytest.param("twice", "keep", "two tensors are called a", id="a name twice"),
        pytest.param("broken", "keep", "the header of model.safetensors cannot be", id="broken"),
        pytest.param("huge", "fp16", "tensor w holds 1e+06, which is too large", id="too large"),
    ],
)
def test_what_cannot_be_exported_ends_with_a_reason(
    forge: Forge, tmp_path: Path, kind: str, dtype: str, said: str
) -> None:
    run = make(forge, tmp_path / "a", kind)
    description = {"resume": str(run), "config": {"dtype": dtype}}

    gang = forge.start(MODULE, tmp_path / "b", description=description)

    assert gang.wait() == [2]
    assert said in gang.output()
    left = tmp_path / "b" / "trainmaster-runs" / "1" / "checkpoints"
    assert not left.exists() or not list(left.iterdir())


def test_without_a_checkpoint_there_is_nothing_to_export(forge: Forge, tmp_path: Path) -> None:
    gang = forge.start(MODULE, tmp_path)

    assert gang.wait() == [2]
    assert "name one in resume_from" in gang.output()
