"""The recipe `lm`: that it learns, goes on from where it was, and begins from given weights."""

import json
import math
import re
import signal
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.component.train.fake_supervisor import FakeSupervisor
from tests.component.train.ranks import SCRIPTS, Forge, Gang, read_lines, read_values
from trainmaster._checkpoint_folder import hash_file, open_checkpoint

pytestmark = pytest.mark.torch

SCRIPT = SCRIPTS / "recipe.py"
MODULE = "trainmaster.recipes.lm"
PARTS = SCRIPTS / "lm_parts.py"
CHECKS = re.findall(r"^def (\w+)\(\) -> None:", PARTS.read_text(), re.MULTILINE)

SMALL = {"layers": 1, "heads": 2, "width": 32, "context": 32, "batch_size": 8, "validate_every": 10}
TEN_STEPS = {"steps": 10, "batch_size": 9}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 250 KB of programs."""
    folder = tmp_path_factory.mktemp("text")
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("argparse", "ast", "calendar", "csv", "difflib", "gzip", "heapq", "textwrap"):
        (folder / f"{name}.py").write_bytes((library / f"{name}.py").read_bytes())
    return folder


@pytest.fixture(scope="module")
def checked(_session_forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """The script of checks, after its end."""
    return _session_forge.run(PARTS, tmp_path_factory.mktemp("lm-parts"))


@pytest.mark.parametrize("check", CHECKS)
def test_in_a_job(checked: Gang, check: str) -> None:
    assert f"held {check}\n" in checked.output(), checked.output()


def describe(text: Path | None, **more: Any) -> dict[str, Any]:
    """Return a run's description, with a small model unless told otherwise."""
    config = {**SMALL, **more.pop("config", {})}
    inputs = {"text": str(text)} if text else {}
    return {"config": config, "inputs": inputs, **more}


def metrics_of(folder: Path, number: int = 1) -> Path:
    """Return the records of a run off the service."""
    return folder / "trainmaster-runs" / str(number) / "metrics.jsonl"


def newest_weights(folder: Path) -> str:
    """Return the hash of the weights that the last run in a folder has left."""
    run = max((folder / "trainmaster-runs").iterdir(), key=lambda path: int(path.name))
    return hash_file(open_checkpoint(run).path / "model.safetensors")


def test_it_learns_more_than_how_frequent_bytes_are(
    forge: Forge, supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    content = (library / "argparse.py").read_bytes()
    (tmp_path / "argparse.py").write_bytes(content)
    sizes = {"width": 64, "context": 64, "batch_size": 16}
    config = {**sizes, "lr": 0.01, "steps": 150, "validate_every": 50}
    description = supervisor.describe_run(**describe(tmp_path / "argparse.py", config=config))

    forge.run(SCRIPT, supervisor.folder, MODULE, description=description)

    spool = supervisor.folder / "spool" / "0.jsonl"
    curve = read_values(spool, "val/bits_per_byte")
    assert [step for step, _ in curve] == [50, 100, 150]
    held_out = round(len(content) * 0.05)
    told, counted = content[-held_out:], Counter(content[:-held_out])
    unigram = -sum(math.log2((counted[byte] + 1) / len(content)) for byte in told) / len(told)
    assert curve[-1][1] < 0.9 * unigram
    assert read_values(spool, "val/loss")[-1][1] == pytest.approx(curve[-1][1] * math.log(2))
    names = {name for line in read_lines(spool) for name in line["values"]}
    assert names >= {
        "train/loss", "train/grad_norm", "val/loss", "val/bits_per_byte", "tokens_per_second",
    }  # fmt: skip
    assert len(read_values(spool, "train/loss")) == 150
    (commit,) = supervisor.of_kind("commit")
    assert commit["metrics"]["val/bits_per_byte"] == curve[-1][1]


def test_without_an_input_it_reads_the_standard_library(
    forge: Forge, supervisor: FakeSupervisor
) -> None:
    description = supervisor.describe_run(config={**SMALL, "steps": 2})

    gang = forge.run(SCRIPT, supervisor.folder, MODULE, ranks=2, description=description)

    found = re.search(r"(\d+) documents, ([\d,]+) tokens to train on", gang.output())
    assert found is not None
    assert int(found[2].replace(",", "")) > 4_000_000
    assert gang.output(1) == ""


@pytest.fixture(scope="module")
def alone(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory, text: Path
) -> list[float]:
    """What one worker measures in ten steps: the loss and the length of the last gradient."""
    folder = tmp_path_factory.mktemp("alone")
    _session_forge.run(SCRIPT, folder, MODULE, description=describe(text, config=TEN_STEPS))
    return last_values(metrics_of(folder))


def last_values(records: Path) -> list[float]:
    """Return what a run measured last."""
    return [read_values(records, name)[-1][1] for name in ("val/loss", "train/grad_norm")]


@pytest.mark.parametrize(
    ("parallel", "microbatches"),
    [
        pytest.param({"data": 2}, 1, id="replicas"),
        pytest.param({"data": 2}, 2, id="replicas, gradients added up"),
        pytest.param({"shard": 2}, 1, id="sharded"),
        pytest.param({"tensor": 2}, 1, id="heads and vocabulary divided"),
        pytest.param({"pipeline": 2}, 0, id="layers divided"),
    ],
)
def test_two_workers_compute_what_one_worker_does(
    forge: Forge,
    tmp_path: Path,
    text: Path,
    alone: list[float],
    parallel: dict[str, int],
    microbatches: int,
) -> None:
    config = {**TEN_STEPS, "microbatches": microbatches}
    description = describe(text, config=config, parallel=parallel)

    forge.run(SCRIPT, tmp_path, MODULE, ranks=2, description=description)

    # In float32, added up in another order.
    assert last_values(metrics_of(tmp_path)) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="bytes"),
        pytest.param(
            {"tokens": "bpe", "vocabulary": 300, "dropout": 0.1, "microbatches": 3},
            id="pairs, dropout, gradients added up",
        ),
        pytest.param(
            {"precision": "bf16", "recompute_activations": True, "dropout": 0.1},
            id="bf16, activations recomputed",
        ),
    ],
)
def test_a_stopped_training_ends_with_the_weights_of_an_unstopped_one(
    forge: Forge, tmp_path: Path, text: Path, more: dict[str, Any]
) -> None:
    description = describe(text, config={"steps": 60, **more})
    forge.run(SCRIPT, tmp_path / "whole", MODULE, description=description)
    stopped = forge.start(SCRIPT, tmp_path / "parts", MODULE, description=description)
    stopped.until_said("step")
    stopped.signal(signal.SIGTERM)
    stopped.succeed()
    steps = [step for step, _ in read_values(metrics_of(tmp_path / "parts"), "train/loss")]
    assert steps[-1] < 60

    resume = {**description, "resume": "trainmaster-runs/1"}
    resumed = forge.run(SCRIPT, tmp_path / "parts", MODULE, description=resume)

    more_steps = [step for step, _ in read_values(metrics_of(tmp_path / "parts", 2), "train/loss")]
    assert steps + more_steps == list(range(1, 61))
    assert newest_weights(tmp_path / "parts") == newest_weights(tmp_path / "whole")
    assert "learnt" not in resumed.output()


@pytest.fixture(scope="module")
def trained(
    _session_forge: Forge, tmp_path_factory: pytest.TempPathFactory, text: Path
) -> tuple[Path, float]:
    """A trained model of pairs, and its loss on held-out text."""
    folder = tmp_path_factory.mktemp("trained")
    config = {"steps": 30, "tokens": "bpe", "vocabulary": 300, "width": 48}
    _session_forge.run(SCRIPT, folder, MODULE, description=describe(text, config=config))
    return folder / "trainmaster-runs" / "1", read_values(metrics_of(folder), "val/loss")[-1][1]


def test_a_new_training_begins_with_given_weights_and_their_tokens(
    forge: Forge, tmp_path: Path, text: Path, trained: tuple[Path, float]
) -> None:
    config = {"begin": "weights", "steps": 3, "lr": 1e-9, "batch_size": 8, "validate_every": 1}
    description = {
        "config": config,  # neither sizes nor tokens: they come with the weights
        "inputs": {"text": str(text)},
        "resume": str(trained[0]),
        "checkpoint": {"every_steps": 2},
    }

    first = forge.run(SCRIPT, tmp_path, MODULE, description=description)
    (half,) = (tmp_path / "trainmaster-runs/1/checkpoints").glob("ready-000000000002*")
    forge.run(SCRIPT, tmp_path, MODULE, description={**description, "resume": str(half)})

    losses = read_values(metrics_of(tmp_path), "val/loss")
    assert [step for step, _ in losses] == [1, 2, 3]
    assert losses[0][1] == pytest.approx(trained[1], rel=1e-5)  # the rate is too low to learn
    assert "learnt" not in first.output()
    # Its own checkpoint is no new beginning: the training goes on.
    assert [step for step, _ in read_values(metrics_of(tmp_path, 2), "val/loss")] == [3]
    facts = json.loads((half / "files/meta.json").read_text())["facts"]
    assert facts["tokens"] == "bpe"
    assert facts["shape"]["vocabulary"] == 300


def test_the_job_that_began_with_weights_is_told_by_its_id(
    forge: Forge, supervisor: FakeSupervisor, text: Path, trained: tuple[Path, float]
) -> None:
    """Its configuration may have been edited meanwhile."""
    base = {"inputs": {"text": str(text)}, "job_id": "job_1"}
    config = {"begin": "weights", "steps": 2, "batch_size": 4}
    resume = {"path": str(open_checkpoint(trained[0]).path), "step": 30}
    began = supervisor.describe_run(**base, config=config, resume=resume)
    forge.run(SCRIPT, supervisor.folder, MODULE, description=began)
    (files,) = (supervisor.folder / "checkpoints").glob("ready-*/files")

    edited = {"config": {**config, "steps": 3}, "resume": {"path": str(files), "step": 2}}
    forge.run(
        SCRIPT, supervisor.folder, MODULE, description=supervisor.describe_run(**base, **edited)
    )

    spool = supervisor.folder / "spool" / "0.jsonl"
    assert [step for step, _ in read_values(spool, "train/loss")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"heads": 5}, "the width must be a multiple of the heads", id="heads"),
        pytest.param({"vocabulary": 300}, 'set config.tokens to "bpe"', id="more than bytes"),
        pytest.param({"tokens": "bpe", "vocabulary": 99}, "bytes alone are 256", id="too few"),
        pytest.param({"context": 100_000}, "a smaller config.context", id="a long window"),
        pytest.param({"begin": "weights"}, "give the job one to resume_from", id="no weights"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_way_out(
    forge: Forge, tmp_path: Path, text: Path, config: dict[str, Any], message: str
) -> None:
    gang = forge.start(SCRIPT, tmp_path, MODULE, description=describe(text, config=config))

    assert gang.wait() == [2], gang.output()
    assert gang.output().startswith("lm: ")
    assert message in gang.output()
    assert "Traceback" not in gang.output()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"model": "tiny"}, "layers 4 instead of 1", id="another size"),
        pytest.param({"tokens": "bytes"}, "the checkpoint was trained on bpe", id="other tokens"),
    ],
)
def test_another_model_than_the_checkpoint_has_is_refused(
    forge: Forge,
    tmp_path: Path,
    text: Path,
    trained: tuple[Path, float],
    config: dict[str, Any],
    message: str,
) -> None:
    description = {"config": config, "inputs": {"text": str(text)}, "resume": str(trained[0])}

    gang = forge.start(SCRIPT, tmp_path, MODULE, description=description)

    assert gang.wait() == [2], gang.output()
    assert message in gang.output()


def test_heads_that_tensor_ranks_cannot_divide_are_refused_with_a_way_out(
    forge: Forge, tmp_path: Path, text: Path
) -> None:
    description = {
        "config": {**SMALL, "steps": 1},
        "inputs": {"text": str(text)},
        "parallel": {"tensor": 4},
    }

    gang = forge.start(SCRIPT, tmp_path, MODULE, ranks=4, description=description)

    assert gang.wait() == [2] * 4, gang.output()
    assert "blocks.*.attention has 2 heads, which 4 tensor ranks cannot divide" in gang.output()
    assert "set parallel.tensor to a number that divides the heads" in gang.output()


def test_a_checkpoint_of_another_recipe_is_refused(forge: Forge, tmp_path: Path) -> None:
    images = {"config": {"epochs": 1}}
    forge.run("trainmaster.recipes.image_classifier", tmp_path, description=images)

    resume = {"config": {"begin": "weights"}, "resume": "trainmaster-runs/1"}
    gang = forge.start(SCRIPT, tmp_path, MODULE, description=resume)

    assert gang.wait() == [2], gang.output()
    assert "none of the recipe lm" in gang.output()


def test_no_text_is_refused(forge: Forge, tmp_path: Path) -> None:
    gang = forge.start(SCRIPT, tmp_path, MODULE, description=describe(tmp_path / "nowhere"))

    assert gang.wait() == [2], gang.output()
    assert "name a file or a directory" in gang.output()
