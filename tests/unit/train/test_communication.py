"""What a step will send, from layout and synchronization; by hand."""

from typing import Any

import pytest

from trainmaster._communication import Model, Prediction, predict, sent_share, transfer_seconds
from trainmaster._layout import Layout

MILLION = Model(num_parameters=1_000_000)


def predicted(layout: Layout, model: Model = MILLION, backend: str = "gloo", **sync: Any) -> Any:
    """Return the bytes of a step by phase."""
    return predict(model, layout, sync, backend=backend, batch_size=8).bytes_per_step


@pytest.mark.parametrize(
    ("layout", "sync", "want"),
    [
        pytest.param(Layout(), {}, {}, id="one rank says nothing"),
        pytest.param(Layout(data=2), {}, {"gradients": 4e6}, id="a ring of two sends it once"),
        pytest.param(Layout(data=4), {}, {"gradients": 6e6}, id="a ring of four, one and a half"),
        pytest.param(Layout(data=2), {"compression": "bf16"}, {"gradients": 2e6}, id="16 bits"),
        pytest.param(
            Layout(data=2),
            {"mode": "local_sgd", "every": 16},
            {"outer": 4e6 / 16},
            id="a round in 16 steps",
        ),
        pytest.param(
            Layout(data=2),
            {"mode": "diloco", "every": 100, "compression": "int8"},
            {"outer": 1e6 * (1 + 4 / 512) / 100},
            id="a byte a number, and four for the scale of 512",
        ),
        pytest.param(
            Layout(data=4),
            {"mode": "parameter_server", "staleness": 0},
            {"outer": 2 * 4e6 * 3 / 4},
            id="gradients up, parameters down; a quarter stays on its machine",
        ),
    ],
)
def test_what_replicas_send(layout: Layout, sync: dict[str, Any], want: dict[str, float]) -> None:
    assert predicted(layout, **sync) == pytest.approx(want)


def test_gloo_pays_twice_for_what_nccl_scatters() -> None:
    gloo, nccl = (predicted(Layout(shard=2), backend=each) for each in ("gloo", "nccl"))

    assert gloo == {"parameters": 4e6, "gradients": 4e6}
    assert nccl == {"parameters": 4e6, "gradients": 2e6}


def test_what_the_root_keeps_is_gathered_once() -> None:
    kept = predicted(Layout(shard=2), Model(num_parameters=1_000_000, root_share=0.25))

    assert kept["parameters"] == pytest.approx(1.75 * 2e6)


def test_copies_of_shards_add_up_their_shards() -> None:
    both = predicted(Layout(data=2, shard=2))

    assert both["gradients"] == pytest.approx(4e6 + 2e6)


def test_layers_that_are_divided_add_up_activations() -> None:
    model = Model(num_parameters=1_000_000, boundary_bytes=4000, num_sums=12)

    said = predicted(Layout(data=2, tensor=2), model)

    assert said == pytest.approx({"gradients": 2e6, "activations": 4 * 3 * 4000 * 4})


def test_stages_send_activations_and_what_they_have_in_common() -> None:
    model = Model(num_parameters=1_000_000, boundary_bytes=4000, tied_bytes=1000)

    said = predicted(Layout(pipeline=2), model)

    # Eight samples over one boundary and back, from one of two ranks each, and both tables.
    assert said == pytest.approx({"activations": 8 * 4000 + 1000})


def test_what_is_not_known_is_said() -> None:
    said = predict(MILLION, Layout(pipeline=2), {}, backend="gloo", batch_size=None)

    assert said.missing == ("the size of the activations between blocks", "the batch size")
    assert "activations" not in said.bytes_per_step


def test_four_hundred_times_fewer_bytes() -> None:
    sync = {"mode": "local_sgd", "every": 100, "compression": "int8"}
    said: Prediction = predict(MILLION, Layout(data=4), sync, backend="gloo", batch_size=8)

    assert 390 <= said.ddp_bytes_per_step / said.total_bytes <= 400


MB = 1e6


@pytest.mark.parametrize(
    ("layout", "sync", "want"),
    [
        pytest.param(Layout(data=4), {}, 6 * MB, id="a ring: every link carries the same"),
        pytest.param(
            Layout(shard=2), {}, 8 * MB, id="shards of one replica: all that a rank sends"
        ),
        pytest.param(
            # Within: 4 MB of parameters and 4 MB of gradients, on gloo. Between: half the model.
            Layout(data=2, shard=2), {}, 10 * MB, id="a link for each rank is the busier one",
        ),
        pytest.param(
            # Within: each sums 3 x 4000 bytes x 4 samples. Between: each half, by one link.
            Layout(data=2, tensor=2), {}, 4 * MB, id="two halves by the link of their node",
        ),
        pytest.param(
            Layout(data=2), {"mode": "local_sgd", "every": 10}, 0.8 * MB,
            id="one replica calls on the server, up and down",
        ),
        pytest.param(
            Layout(data=2, tensor=2), {"mode": "local_sgd", "every": 10}, 0.8 * MB + 48_000,
            id="so it does with two ranks, and its model is no smaller",
        ),
        pytest.param(
            Layout(data=4), {"mode": "parameter_server", "staleness": 0, "servers": 2},
            2 * 4 * MB * 3 / 2, id="three call on each of two servers for half",
        ),
    ],
)  # fmt: skip
def test_what_passes_the_busiest_link(layout: Layout, sync: dict[str, Any], want: float) -> None:
    model = Model(num_parameters=1_000_000, boundary_bytes=4000, num_sums=3)

    said = predict(model, layout, sync, backend="gloo", batch_size=8)

    assert said.serial_bytes_per_step == pytest.approx(want)


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "broadcast", "send"])
def test_a_group_of_one_sends_nothing(operation: str) -> None:
    assert sent_share(operation, 1, "gloo") == 0


def test_headers_take_their_part_of_a_link() -> None:
    assert transfer_seconds(1e6, 8.4e6) == pytest.approx(1.0)
