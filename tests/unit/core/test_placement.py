"""Where a gang goes: the smallest domain that holds it, the fullest place that does."""

from typing import Any

import pytest

from scheduler.core.cluster import NodeShare, NodeView, Shape
from scheduler.core.nodes import Nodes
from scheduler.core.placement import place
from scheduler.core.resources import Resources
from tests.unit.core.world import node, shape


def room(*views: NodeView, taken: dict[str, int] | None = None) -> Nodes:
    """Nodes of which so many GPUs each are taken."""
    nodes = Nodes()
    for view in views:
        nodes.put(view)
        count = (taken or {}).get(view.node_id, 0)
        share = NodeShare(
            node_id=view.node_id, num_workers=count, gpu_indices=view.gpu_indices[:count]
        )
        if count:
            nodes.take(f"on-{view.node_id}", share, Resources(num_gpus=1), is_claim=False)
    return nodes


def find(wanted: Shape, nodes: Nodes) -> list[tuple[str, int]] | None:
    found = place(wanted, "default", nodes)
    if found is None:
        return None
    return [(share.node_id, share.num_workers) for share in found.shares]


def small(name: str, **changes: object) -> NodeView:
    return node(name, 4, **changes)


BIG_MEMORY: dict[str, Any] = {"gpu_model": "H100", "gpu_memory_mib": 81_920}
LITTLE_CPU = Resources(num_gpus=8, cpu_milli=4000, memory_mib=1 << 20)


@pytest.mark.parametrize(
    ("wanted", "views", "taken", "want"),
    [
        pytest.param(
            shape(4, 1), [node("n0"), node("n1")], {"n0": 2}, [("n0", 4)],
            id="the fullest node that holds it",
        ),
        pytest.param(
            shape(8, 1), [node("n0"), node("n1")], {"n0": 1, "n1": 1}, None,
            id="what one node could hold waits for one node",
        ),
        pytest.param(
            shape(8, 1, may_spread=True), [node("n0"), node("n1")], {"n0": 1, "n1": 1},
            [("n0", 7), ("n1", 1)], id="unless it may be spread",
        ),
        pytest.param(
            shape(16, 1), [node("n0"), node("n1")], {}, [("n0", 8), ("n1", 8)],
            id="a large gang takes whole nodes",
        ),
        pytest.param(
            shape(12, 1), [node("n0"), node("n1"), node("n2")], {"n2": 3}, [("n0", 8), ("n2", 4)],
            id="and the fullest one for the rest",
        ),
        pytest.param(
            shape(16, 1), [node("n0"), node("n1")], {"n1": 1}, None,
            id="a gang never starts in part",
        ),
        pytest.param(
            shape(16, 1),
            [node("n0", rack="a"), node("n1", rack="b"), node("n2", rack="b")],
            {},
            [("n1", 8), ("n2", 8)],
            id="one rack if a rack has room",
        ),
        pytest.param(
            shape(16, 1), [node("n0", rack="a"), node("n1", rack="b")], {}, [("n0", 8), ("n1", 8)],
            id="else the pool",
        ),
        pytest.param(
            shape(8, 1), [small("n0"), small("n1"), node("n2", **BIG_MEMORY)], {}, [("n2", 8)],
            id="one node of another kind is better than two",
        ),
        pytest.param(
            shape(16, 1), [node("n0"), node("n1", **BIG_MEMORY)], {}, None,
            id="a gang stays among its own kind",
        ),
        pytest.param(
            shape(1, 1, gpu_models=("H100",)), [node("n0"), node("n1", **BIG_MEMORY)], {},
            [("n1", 1)], id="the model that was asked for",
        ),
        pytest.param(
            shape(1, 1, gpu_models=("B200",)), [node("n0")], {}, None, id="a model nobody has"
        ),
        pytest.param(
            shape(1, 1, gpu_memory_mib=50_000), [node("n0"), node("n1", **BIG_MEMORY)], {},
            [("n1", 1)], id="enough memory on each GPU",
        ),
        pytest.param(
            shape(1, 1, 8000), [node("n0", capacity=LITTLE_CPU), node("n1")], {"n1": 1},
            [("n1", 1)], id="GPUs without CPUs beside them are of no use",
        ),
        pytest.param(
            shape(3, 0, 1000), [node("n0"), node("n1", 0)], {}, [("n1", 3)],
            id="without GPUs it leaves nodes with GPUs alone",
        ),
        pytest.param(
            shape(1, 1), [node("n0", closed_reason="cordoned"), node("n1")], {}, [("n1", 1)],
            id="not where no new work goes",
        ),
        pytest.param(
            shape(1, 1), [node("n0", pool="other")], {}, None, id="not in another pool"
        ),
    ],
)  # fmt: skip
def test_a_gang_goes_to(
    wanted: Shape,
    views: list[NodeView],
    taken: dict[str, int],
    want: list[tuple[str, int]] | None,
) -> None:
    assert find(wanted, room(*views, taken=taken)) == want
    assert find(wanted, room(*views[::-1], taken=taken)) == want


def test_among_the_equally_full_the_one_with_the_least_cpus_left_is_taken() -> None:
    tight = Resources(num_gpus=8, cpu_milli=16_000, memory_mib=1 << 20)
    nodes = room(node("n0"), node("n1", capacity=tight))

    assert find(shape(1, 1), nodes) == [("n1", 1)]


def test_nodes_of_one_kind_that_differ_in_cpus_are_judged_by_what_they_have() -> None:
    weak = node("n0", capacity=LITTLE_CPU)
    nodes = Nodes()
    nodes.put(weak)
    nodes.put(node("n1"))

    assert find(shape(8, 1, 4000), nodes) == [("n1", 8)]
    nodes.remove("n1")
    assert find(shape(8, 1, 4000), nodes) is None
