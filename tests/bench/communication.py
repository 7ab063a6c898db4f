"""Bytes of a step: predicted, counted, and on the interface, for every way of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.bench.bench import Bench
from tests.bench.figures import Figure, Series, Target
from tests.bench.language_gangs import FAST_MBIT, SHAPE, Mode, train
from tests.bench.networks import find_obstacle
from trainmaster._communication import Prediction, predict
from trainmaster._layout import Layout
from trainmaster.recipes import default_config
from trainmaster.recipes._sizes import find_size

NAME = "communication"
_ERROR_MAX_PERCENT = 2.0

_MODES = (
    Mode("allreduce, 2 ranks", {"data": 2}),
    Mode("allreduce, 4 ranks", {"data": 4}),
    Mode("allreduce fp16", {"data": 2}, {"compression": "fp16"}),
    Mode("allreduce bf16", {"data": 2}, {"compression": "bf16"}),
    Mode("shard 2", {"shard": 2}),
    Mode("data 2 x shard 2", {"data": 2, "shard": 2}),
    Mode("tensor 2", {"tensor": 2}),
    Mode("pipeline 2", {"pipeline": 2}),
    Mode("local_sgd", {"data": 2}, {"mode": "local_sgd", "every": 4}),
    Mode("local_sgd, 4 ranks", {"data": 4}, {"mode": "local_sgd", "every": 4}),
    Mode("local_sgd int8", {"data": 2}, {"mode": "local_sgd", "every": 4, "compression": "int8"}),
    Mode("diloco int4", {"data": 2}, {"mode": "diloco", "every": 4, "compression": "int4"}),
    Mode("diloco, fragments", {"data": 2}, {"mode": "diloco", "every": 4, "fragments": 2}),
    Mode("parameter_server", {"data": 2}, {"mode": "parameter_server", "staleness": 0}),
    Mode(
        "parameter_server, 2 servers",
        {"data": 2},
        {"mode": "parameter_server", "staleness": 0, "servers": 2},
    ),
    Mode("parameter_server, async", {"data": 2}, {"mode": "parameter_server"}),
)


def measure(bench: Bench) -> list[Figure]:
    """Return the figures; 5 minutes. Nothing without root."""
    obstacle = find_obstacle()
    if obstacle is not None:
        bench.say(f"left out: {obstacle}")
        return []
    return [figure for mode in _MODES for figure in _count(bench, mode)]


def _count(bench: Bench, mode: Mode) -> list[Figure]:
    layout = Layout(**mode.parallel)
    steps = bench.count(44, 20)
    plan = {"context": 32, "batch": 4 * layout.shares, "steps": steps, "from_step": 4}
    trained = train(bench, mode, plan, FAST_MBIT)
    said = _predict(mode, plan)
    counted = trained.sent_per_step()
    on_interface = trained.per_step("interface_bytes")
    bench.say(
        f"{mode.name}: {said.total_bytes:,.0f} bytes a step predicted, {counted:,.0f} counted, "
        f"{said.wire_bytes:,.0f} predicted on the wire, {on_interface:,.0f} there"
    )
    return [
        _error(f"logical bytes, {mode.name}", said.total_bytes, counted, "counted"),
        _error(f"wire bytes, {mode.name}", said.wire_bytes, on_interface, "interface"),
    ]


def _error(name: str, predicted: float, found: float, what: str) -> Figure:
    return Figure(
        name=name,
        unit="% off",
        values=Series((100 * abs(predicted / found - 1),)),
        target=Target(of="figure", bound="at most", limit=_ERROR_MAX_PERCENT),
        details={"predicted": predicted, what: found},
    )


def _predict(mode: Mode, plan: Mapping[str, Any]) -> Prediction:
    shape = {**SHAPE, "model": "tiny", "tokens": "bytes", "context": plan["context"]}
    model = find_size("lm", {**default_config("lm"), **shape}, ())
    layout = Layout(**mode.parallel)
    return predict(model, layout, mode.sync, backend="gloo", batch_size=plan["batch"])
