"""Which ways of spreading a model and joining its replicas go together."""

import dataclasses
from typing import Any

import pytest

from scheduler.core.mode_rules import check_modes
from scheduler.core.spec import JobSpec, Parallel, Sync

BRINGS_CODE = JobSpec(code="file_1", entrypoint="train.py")
RECIPE = JobSpec(recipe="image-classifier")


def _codes(spec: JobSpec, splits: frozenset[str] | None = None) -> list[tuple[str, str]]:
    return [(problem.pointer, problem.code) for problem in check_modes(spec, splits)]


@pytest.mark.parametrize(
    ("parallel", "sync"),
    [
        pytest.param({"data": 4}, {}, id="plain data parallel"),
        pytest.param({"data": 4}, {"compression": "bf16"}, id="gradients in 16 bits"),
        pytest.param({"data": 2, "shard": 2}, {}, id="HSDP"),
        pytest.param({"shard": 2, "tensor": 2}, {}, id="FSDP and tensor"),
        pytest.param({"data": 2, "tensor": 2, "pipeline": 2}, {}, id="three dimensions"),
        pytest.param(
            {"data": 2, "shard": 2},
            {"mode": "local_sgd", "every": 8, "compression": "int8"},
            id="sharded replicas that meet now and then",
        ),
        pytest.param(
            {"data": 2},
            {"mode": "diloco", "outer_lr": 0.7, "outer_momentum": 0.9, "fragments": 4},
            id="an outer optimizer",
        ),
        pytest.param(
            {"data": 4},
            {"mode": "parameter_server", "staleness": 3, "servers": 2, "compensation": 0.1},
            id="bounded staleness",
        ),
        pytest.param({"data": 1}, {"mode": "diloco"}, id="one replica, the same script"),
    ],
)
def test_what_goes_together(parallel: dict[str, int], sync: dict[str, Any]) -> None:
    spec = dataclasses.replace(BRINGS_CODE, parallel=Parallel(**parallel), sync=Sync(**sync))

    assert _codes(spec) == []


@pytest.mark.parametrize(
    ("parallel", "sync", "want"),
    [
        ({"data": 2}, {"every": 4}, ("/sync/every", "not_of_this_mode")),
        (
            {"data": 2},
            {"mode": "local_sgd", "staleness": 1},
            ("/sync/staleness", "not_of_this_mode"),
        ),
        (
            {"data": 2},
            {"mode": "parameter_server", "outer_lr": 1.0},
            ("/sync/outer_lr", "not_of_this_mode"),
        ),
        ({"data": 2}, {"compression": "int8"}, ("/sync/compression", "not_of_this_mode")),
        (
            {"data": 2},
            {"mode": "diloco", "compression": "topk"},
            ("/sync/compression", "not_of_this_mode"),
        ),
        ({"shard": 2}, {"compression": "fp16"}, ("/sync/compression", "spread_uncompressed")),
        (
            {"data": 2, "shard": 2},
            {"mode": "parameter_server"},
            ("/sync/mode", "spread_replicas"),
        ),
        (
            {"data": 2, "tensor": 2},
            {"mode": "parameter_server", "staleness": 2},
            ("/sync/mode", "spread_replicas"),
        ),
        (
            {"data": 2, "pipeline": 2},
            {"mode": "parameter_server", "staleness": 0},
            ("/sync/mode", "spread_replicas"),
        ),
        ({"data": 2}, {"mode": "diloco", "servers": 2}, ("/sync/servers", "not_of_this_mode")),
        (
            {"data": 2},
            {"mode": "parameter_server", "servers": 3},
            ("/sync/servers", "too_many_servers"),
        ),
        (
            {"data": 2},
            {"mode": "diloco", "every": 2, "fragments": 3},
            ("/sync/fragments", "too_many_fragments"),
        ),
        (
            {"data": 2},
            {"mode": "parameter_server", "staleness": 0, "compensation": 0.1},
            ("/sync/compensation", "nothing_to_compensate"),
        ),
        ({"data": 2}, {"mode": "gossip"}, ("/sync/mode", "not_available")),
    ],
)
def test_what_does_not_is_refused_at_its_place(
    parallel: dict[str, int], sync: dict[str, Any], want: tuple[str, str]
) -> None:
    spec = dataclasses.replace(BRINGS_CODE, parallel=Parallel(**parallel), sync=Sync(**sync))

    assert _codes(spec) == [want]


@pytest.mark.parametrize("split", ["tensor", "pipeline"])
def test_a_recipe_is_split_only_where_it_has_a_plan(split: str) -> None:
    spec = dataclasses.replace(RECIPE, parallel=Parallel(**{split: 2}))

    assert _codes(spec, frozenset()) == [(f"/parallel/{split}", "no_plan")]
    assert _codes(spec, frozenset({split})) == []


def test_asynchronous_replicas_that_are_spread_are_told_why() -> None:
    spec = dataclasses.replace(
        BRINGS_CODE, parallel=Parallel(data=2, shard=2), sync=Sync(mode="parameter_server")
    )

    (problem,) = check_modes(spec, None)

    assert "asynchronous pulls cannot promise" in problem.message
    assert "local_sgd" in problem.message


@pytest.mark.parametrize("framework", ["tensorflow", "other"])
def test_what_another_framework_does_itself_is_not_promised(framework: Any) -> None:
    spec = dataclasses.replace(
        BRINGS_CODE, framework=framework, parallel=Parallel(shard=2), sync=Sync(mode="diloco")
    )

    assert _codes(spec) == [
        ("/parallel", "not_of_this_framework"),
        ("/sync", "not_of_this_framework"),
    ]
