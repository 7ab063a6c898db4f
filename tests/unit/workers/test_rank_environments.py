"""The environment of a rank, built from nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workers.supervisor.environment import (
    Gang,
    RankPlace,
    build_environment,
    find_read_at_start,
)


def build(place: RankPlace, gang: Gang, **extra: str) -> dict[str, str]:
    return build_environment(
        place, gang, path="/bin", home="/h", tmp="/t", run_file="/r.json", threads=2, extra=extra
    )


def gang(**changes: Any) -> Gang:
    values: dict[str, Any] = {
        "world_size": 4, "node_rank": 0, "num_nodes": 1, "local_world_size": 4,
        "address": "127.0.0.1", "port": 1234, "is_store_served": False,
        "worker_addresses": ("127.0.0.1:1", "127.0.0.1:2"),
        **changes,
    }  # fmt: skip
    return Gang(**values)


def test_a_rank_is_told_its_place() -> None:
    environment = build(RankPlace(1, 1, (2, 3)), gang())

    assert environment["RANK"] == environment["LOCAL_RANK"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert json.loads(environment["TF_CONFIG"]) == {
        "cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
        "task": {"type": "worker", "index": 1},
    }
    assert "TORCHELASTIC_USE_AGENT_STORE" not in environment


def test_the_jobs_own_variables_cannot_take_our_names() -> None:
    environment = build(RankPlace(1, 1, ()), gang(), RANK="7", HOME="/root", MINE="1")

    assert (environment["RANK"], environment["HOME"], environment["MINE"]) == ("1", "/h", "1")


def test_loopback_is_named_only_where_every_rank_is_on_it() -> None:
    assert build(RankPlace(0, 0, ()), gang())["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in build(RankPlace(0, 0, ()), gang(num_nodes=2))


def test_a_served_store_is_announced_to_every_rank() -> None:
    environment = build(RankPlace(3, 3, ()), gang(is_store_served=True))

    assert environment["TORCHELASTIC_USE_AGENT_STORE"] == "True"
    assert environment["TORCHELASTIC_RESTART_COUNT"] == "0"


@pytest.mark.parametrize(
    ("name", "is_early"),
    [
        ("PYTHONHASHSEED", True),
        ("LD_LIBRARY_PATH", True),
        ("TORCH_LOGS", True),
        ("MKL_NUM_THREADS", True),
        ("HF_TOKEN", False),
        ("WANDB_MODE", False),
    ],
)
def test_what_is_read_while_a_process_starts_is_known(name: str, is_early: bool) -> None:
    assert (find_read_at_start({name: "1"}) is not None) == is_early
