"""What a spec may mean: each refusal names the place and the way out."""

import dataclasses

import pytest

from scheduler.core.resources import Resources
from scheduler.core.spec import (
    CheckpointPolicy,
    Elastic,
    EnvironmentRequest,
    JobSpec,
    Limits,
    Parallel,
    ResourceRequest,
    Sync,
)
from scheduler.core.spec_rules import NodeOffer, PoolView, World, check_spec, settle_queue

LAPTOP = PoolView(nodes=(NodeOffer(capacity=Resources(cpu_milli=2000, memory_mib=8192)),))
GPUS = PoolView(
    nodes=(
        NodeOffer(
            capacity=Resources(num_gpus=8, cpu_milli=64000, memory_mib=65536),
            gpu_model="NVIDIA H100 80GB HBM3",
            gpu_memory_mib=81559,
        ),
        NodeOffer(
            capacity=Resources(num_gpus=4, cpu_milli=64000, memory_mib=65536),
            gpu_model="NVIDIA A100-SXM4-40GB",
            gpu_memory_mib=40960,
        ),
    )
)
WORLD = World(
    recipes={"image-classifier": frozenset(), "lm": frozenset({"tensor", "pipeline"})},
    pools={"default": LAPTOP, "empty": PoolView(), "gpus": GPUS},
    queues={"default": "default", "empty": "empty", "gpus": "gpus", "night": "gpus"},
    input_roots=("/datasets",),
)
GOOD = JobSpec(recipe="image-classifier", workers=2)


def _codes(spec: JobSpec) -> list[tuple[str, str]]:
    settled = settle_queue(spec, WORLD)
    return [(problem.pointer, problem.code) for problem in check_spec(settled, WORLD)]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(GOOD, id="a recipe"),
        pytest.param(JobSpec(code="file_1", entrypoint="a/train.py"), id="a bundle"),
        pytest.param(
            dataclasses.replace(GOOD, workers=None, parallel=Parallel(data=2)), id="a layout"
        ),
        pytest.param(
            dataclasses.replace(GOOD, workers=4, resources=ResourceRequest(cpus=0.5)),
            id="four half CPUs on two",
        ),
        pytest.param(
            dataclasses.replace(GOOD, workers=99, pool="empty"), id="a pool nobody has joined yet"
        ),
        pytest.param(
            dataclasses.replace(
                GOOD, pool="gpus", resources=ResourceRequest(gpus=4, gpu_models=("h100",))
            ),
            id="two workers on one node with such GPUs",
        ),
        pytest.param(
            dataclasses.replace(GOOD, limits=Limits(gpu_hours=1.5, on_budget="fail")), id="a budget"
        ),
        pytest.param(dataclasses.replace(GOOD, queue="night"), id="a queue, and so its pool"),
        pytest.param(dataclasses.replace(GOOD, depends_on=("job_1",)), id="a dependency"),
        pytest.param(
            dataclasses.replace(GOOD, inputs={"a": "file_1", "b": "dir:/datasets/b"}), id="inputs"
        ),
        pytest.param(
            dataclasses.replace(GOOD, environment=EnvironmentRequest(requirements=("a==1",))),
            id="requirements",
        ),
    ],
)
def test_a_good_spec_has_no_problem(spec: JobSpec) -> None:
    assert _codes(spec) == []


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"recipe": None}, ("", "missing_source")),
        ({"recipe": "no-such"}, ("/recipe", "unknown_recipe")),
        ({"code": "file_1"}, ("/code", "two_sources")),
        ({"recipe": None, "code": "file_1"}, ("/entrypoint", "missing_entrypoint")),
        ({"recipe": None, "code": "file_1", "entrypoint": "../x.py"}, ("/entrypoint", "bad_path")),
        ({"recipe": None, "code": "file_1", "entrypoint": "/x.py"}, ("/entrypoint", "bad_path")),
        ({"parallel": Parallel(data=3)}, ("/workers", "layout_mismatch")),
        ({"sync": Sync(every=4)}, ("/sync/every", "not_of_this_mode")),
        ({"inputs": {"a/b": "dir:/etc"}}, ("/inputs/a~1b", "directory_not_allowed")),
        ({"inputs": {"a": "dir:/datasets/../etc"}}, ("/inputs/a", "directory_not_allowed")),
        ({"inputs": {"a": "dir:/datasets2"}}, ("/inputs/a", "directory_not_allowed")),
        ({"inputs": {"a": "http://x"}}, ("/inputs/a", "bad_input")),
        ({"env": {"RANK": "1"}}, ("/env/RANK", "reserved_name")),
        ({"env": {"TRAINMASTER_X": "1"}}, ("/env/TRAINMASTER_X", "reserved_name")),
        ({"secrets": ("A",)}, ("/secrets", "not_available")),
        ({"elastic": Elastic(min_workers=3, max_workers=4)}, ("/elastic", "workers_outside")),
        (
            {"elastic": Elastic(min_workers=2, max_workers=1)},
            ("/elastic/min_workers", "bounds_crossed"),
        ),
        (
            {
                "workers": 2,
                "parallel": Parallel(shard=2),
                "elastic": Elastic(min_workers=1, max_workers=2),
            },
            ("/elastic/min_workers", "replica_cut"),
        ),
        (
            {
                "workers": 2,
                "sync": Sync(mode="parameter_server", servers=2),
                "elastic": Elastic(min_workers=1, max_workers=2),
            },
            ("/elastic/min_workers", "too_many_servers"),
        ),
        ({"privacy": {}}, ("/privacy", "not_available")),
        ({"queue": "other"}, ("/queue", "unknown_queue")),
        ({"queue": "night", "pool": "empty"}, ("/queue", "wrong_queue")),
        (
            {"pool": "gpus", "resources": ResourceRequest(gpu_models=("A10",))},
            ("/resources/gpu_models", "no_such_gpu"),
        ),
        (
            {"pool": "gpus", "resources": ResourceRequest(gpu_memory_gib=141)},
            ("/resources/gpu_memory_gib", "no_such_gpu"),
        ),
        (
            {"pool": "gpus", "workers": 5, "resources": ResourceRequest(gpu_models=("A100",))},
            ("/workers", "gang_too_large"),
        ),
        (
            {"resources": ResourceRequest(gpus=0, gpu_models=("A100",))},
            ("/resources/gpu_models", "no_gpus_asked"),
        ),
        (
            {"resources": ResourceRequest(gpus=0, gpu_memory_gib=1)},
            ("/resources/gpu_memory_gib", "no_gpus_asked"),
        ),
        ({"pool": "other"}, ("/pool", "unknown_pool")),
        ({"workers": 3}, ("/workers", "gang_too_large")),
        ({"resources": ResourceRequest(gpus=1)}, ("/resources", "worker_too_large")),
        ({"resources": ResourceRequest(memory_gib=9)}, ("/resources", "worker_too_large")),
        (
            {"checkpoint": CheckpointPolicy(every_steps=None, every_seconds=None)},
            ("/checkpoint/every_seconds", "no_checkpoints"),
        ),
    ],
)
def test_a_refusal_names_the_place_and_the_code(
    changes: dict[str, object], want: tuple[str, str]
) -> None:
    spec = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]  # the table is checked by running

    assert want in _codes(spec)


def test_all_problems_come_at_once() -> None:
    spec = dataclasses.replace(
        GOOD, recipe="x", workers=9, secrets=("A",), sync=Sync(mode="gossip")
    )

    assert {pointer for pointer, _ in _codes(spec)} == {
        "/recipe", "/workers", "/secrets", "/sync/mode",
    }  # fmt: skip


def test_a_message_says_what_there_is_and_what_to_do() -> None:
    (problem,) = check_spec(dataclasses.replace(GOOD, workers=3), WORLD)

    assert "at most 2 workers" in problem.message
    assert "use fewer workers" in problem.message


@pytest.mark.parametrize(
    ("queue", "pool", "want"),
    [
        pytest.param("default", "default", ("default", "default"), id="neither is given"),
        pytest.param("night", "default", ("night", "gpus"), id="a queue brings its pool"),
        pytest.param("default", "gpus", ("gpus", "gpus"), id="a pool brings the queue of its name"),
        pytest.param("night", "gpus", ("night", "gpus"), id="both are given"),
        pytest.param("night", "empty", ("night", "empty"), id="what does not match is left alone"),
        pytest.param("default", "other", ("default", "other"), id="so is an unknown pool"),
    ],
)
def test_queue_and_pool_say_each_other(queue: str, pool: str, want: tuple[str, str]) -> None:
    settled = settle_queue(dataclasses.replace(GOOD, queue=queue, pool=pool), WORLD)

    assert (settled.queue, settled.pool) == want
