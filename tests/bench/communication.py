"""Bytes of a step: predicted, counted, and on the interface; and what fewer of them are worth.

Ranks are processes in network namespaces of their own, joined by a bridge and limited by token
buckets. A language model of 1.8 million parameters learns Python's own source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.bench import SCRIPTS, Bench
from tests.bench.figures import Figure, Series, Target
from tests.bench.gangs import run_gang
from tests.bench.networks import find_obstacle, running_network
from trainmaster._communication import Prediction, predict
from trainmaster._layout import Layout
from trainmaster.recipes import default_config
from trainmaster.recipes._sizes import find_size

NAME = "communication"
_SHAPE = {"layers": 4, "heads": 4, "width": 192}
_FAST_MBIT, _SLOW_MBIT = 1000.0, 100.0
_LIMIT_S = 600.0
_ERROR_MAX_PERCENT = 2.0


@dataclass(frozen=True, slots=True)
class _Mode:
    """One way to train: a layout and how replicas are joined."""

    name: str
    parallel: Mapping[str, int]
    sync: Mapping[str, Any] = field(default_factory=dict)


_MODES = (
    _Mode("allreduce, 2 ranks", {"data": 2}),
    _Mode("allreduce, 4 ranks", {"data": 4}),
    _Mode("allreduce fp16", {"data": 2}, {"compression": "fp16"}),
    _Mode("allreduce bf16", {"data": 2}, {"compression": "bf16"}),
    _Mode("shard 2", {"shard": 2}),
    _Mode("data 2 x shard 2", {"data": 2, "shard": 2}),
    _Mode("tensor 2", {"tensor": 2}),
    _Mode("pipeline 2", {"pipeline": 2}),
    _Mode("local_sgd", {"data": 2}, {"mode": "local_sgd", "every": 4}),
    _Mode("local_sgd, 4 ranks", {"data": 4}, {"mode": "local_sgd", "every": 4}),
    _Mode("local_sgd int8", {"data": 2}, {"mode": "local_sgd", "every": 4, "compression": "int8"}),
    _Mode("diloco int4", {"data": 2}, {"mode": "diloco", "every": 4, "compression": "int4"}),
    _Mode("diloco, fragments", {"data": 2}, {"mode": "diloco", "every": 4, "fragments": 2}),
    _Mode("parameter_server", {"data": 2}, {"mode": "parameter_server", "staleness": 0}),
    _Mode(
        "parameter_server, 2 servers",
        {"data": 2},
        {"mode": "parameter_server", "staleness": 0, "servers": 2},
    ),
    _Mode("parameter_server, async", {"data": 2}, {"mode": "parameter_server"}),
)
_DDP = _MODES[0]
_SEMI = _Mode(
    "local_sgd every 64 int8",
    {"data": 2},
    {"mode": "local_sgd", "every": 64, "compression": "int8"},
)
_RARE = _Mode(
    "diloco every 100 int8",
    {"data": 2},
    {"mode": "diloco", "every": 100, "compression": "int8"},
)


@dataclass(frozen=True, slots=True)
class _Trained:
    """What one training said: all ranks of it."""

    plan: Mapping[str, Any]
    ranks: Sequence[Mapping[str, Any]]

    def per_step(self, name: str) -> float:
        """Return the growth of a number per step, mean over the ranks."""
        spans: list[float] = [
            rank["marks"][-1][name] - rank["marks"][0][name] for rank in self.ranks
        ]
        return sum(spans) / len(self.ranks) / self.num_steps

    def sent_per_step(self, phases: Sequence[str] | None = None) -> float:
        """Return the logical bytes of some phases, or of all, likewise."""
        total = 0.0
        for rank in self.ranks:
            first, last = (rank["marks"][place]["sent_bytes"] for place in (0, -1))
            for phase, sent in last.items():
                if phases is None or phase in phases:
                    total += sent - first.get(phase, 0.0)
        return total / len(self.ranks) / self.num_steps

    @property
    def num_steps(self) -> int:
        """Steps between the two marks."""
        marks = self.ranks[0]["marks"]
        return int(marks[-1]["step"] - marks[0]["step"])

    @property
    def trained_s(self) -> float:
        """From the first mark to the last, without what measuring took."""
        marks = self.ranks[0]["marks"]
        return float(marks[-1]["at_s"] - marks[0]["at_s"] - self.ranks[0]["paused_s"])

    @property
    def utilization(self) -> float:
        """Share of that time in which nobody stood still for communication, mean over ranks."""
        waited_s = self.per_step("exposed_s") * self.num_steps
        return 1 - waited_s / self.trained_s


def measure(bench: Bench) -> list[Figure]:
    """Return the figures; 20 minutes. Nothing without root."""
    obstacle = find_obstacle()
    if obstacle is not None:
        bench.say(f"left out: {obstacle}")
        return []
    figures = [figure for mode in _MODES for figure in _count(bench, mode)]
    return [*figures, *_race(bench), *_compare_learning(bench)]


def _count(bench: Bench, mode: _Mode) -> list[Figure]:
    layout = Layout(**mode.parallel)
    steps = bench.count(44, 20)
    plan = {"context": 32, "batch": 4 * layout.shares, "steps": steps, "from_step": 4}
    trained = _train(bench, mode, plan, _FAST_MBIT)
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


def _race(bench: Bench) -> list[Figure]:
    """Two ranks and 100 Mbit/s: how long until a loss is reached that DDP reaches."""
    plan = {
        "context": 64, "batch": 8, "steps": bench.count(256, 128), "from_step": 0,
        "validate_every": 16,
    }  # fmt: skip
    theirs = _train(bench, _DDP, plan, _SLOW_MBIT)
    target_bits = theirs.ranks[0]["bits"][-1][2]
    plan = {**plan, "steps": 3 * plan["steps"], "validate_every": 64, "target_bits": target_bits}
    ours = _train(bench, _SEMI, plan, _SLOW_MBIT)
    reached = ours.ranks[0]["bits"][-1][2]
    bench.say(
        f"{target_bits:.3f} bits a byte: {_DDP.name} in {theirs.num_steps} steps and "
        f"{theirs.trained_s:.1f} s at {theirs.utilization:.1%}; {_SEMI.name} {reached:.3f} in "
        f"{ours.num_steps} steps and {ours.trained_s:.1f} s at {ours.utilization:.1%}"
    )
    return [
        Figure(
            name=f"{_SLOW_MBIT:.0f} Mbit/s: time to a loss, {_SEMI.name}",
            unit="s",
            values=Series((ours.trained_s if reached <= target_bits else float("inf"),)),
            baseline=Series((theirs.trained_s,)),
            baseline_name="DDP",
            target=Target(of="ratio", bound="at most", limit=0.35),
            details={"target_bits": target_bits, "steps": [ours.num_steps, theirs.num_steps]},
        ),
        Figure(
            name=f"{_SLOW_MBIT:.0f} Mbit/s: utilization, {_SEMI.name}",
            unit="%",
            values=Series((100 * ours.utilization,)),
            baseline=Series((100 * theirs.utilization,)),
            baseline_name="DDP",
            target=Target(of="figure", bound="at least", limit=95.0),
        ),
    ]


def _compare_learning(bench: Bench) -> list[Figure]:
    """Equal tokens with a round in 100 steps: how many bytes, and how well it has learnt."""
    plan = {
        "context": 64, "batch": 8, "steps": bench.count(800, 200), "from_step": 0,
        "validate_every": 10_000,
    }  # fmt: skip
    theirs = _train(bench, _DDP, plan, _FAST_MBIT)
    ours = _train(bench, _RARE, plan, _FAST_MBIT)
    bits = [trained.ranks[0]["last_bits"] for trained in (ours, theirs)]
    bytes_sent = [trained.per_step("interface_bytes") for trained in (ours, theirs)]
    factor = theirs.sent_per_step(["gradients"]) / ours.sent_per_step(["outer"])
    bench.say(
        f"{_RARE.name}: {bits[0]:.4f} bits a byte beside {bits[1]:.4f}, {factor:.1f} times fewer "
        f"bytes; on the interfaces {bytes_sent[1] / bytes_sent[0]:.1f} times"
    )
    return [
        Figure(
            name=f"fewer bytes, {_RARE.name}",
            unit="times",
            values=Series((factor,)),
            target=Target(of="figure", bound="at least", limit=390.0),
            details={"on_interfaces": bytes_sent[1] / bytes_sent[0]},
        ),
        Figure(
            name=f"bits a byte at equal tokens, {_RARE.name}",
            unit="bits",
            values=Series((bits[0],)),
            baseline=Series((bits[1],)),
            baseline_name="DDP",
            target=Target(of="ratio", bound="at most", limit=1.01),
        ),
    ]


def _train(bench: Bench, mode: _Mode, plan: Mapping[str, Any], rate_mbit: float) -> _Trained:
    whole = {"lr": 2e-3, "validate_every": 0, "target_bits": 0.0, **_SHAPE, **plan}
    folder = bench.folder / f"{NAME}-{len(list(bench.folder.iterdir()))}"
    num_ranks = Layout(**mode.parallel).size
    command = [str(SCRIPTS / "language.py"), str(folder / "result"), json.dumps(whole)]
    description = {"parallel": dict(mode.parallel), "sync": dict(mode.sync)}
    with running_network(num_ranks, rate_mbit=rate_mbit) as hosts:
        run_gang(hosts, command, description, folder, limit_s=_LIMIT_S)
    results = [json.loads((folder / f"result.{rank}").read_text()) for rank in range(num_ranks)]
    return _Trained(whole, results)


def _predict(mode: _Mode, plan: Mapping[str, Any]) -> Prediction:
    shape = {**_SHAPE, "model": "tiny", "tokens": "bytes", "context": plan["context"]}
    model = find_size("lm", {**default_config("lm"), **shape}, ())
    layout = Layout(**mode.parallel)
    return predict(model, layout, mode.sync, backend="gloo", batch_size=plan["batch"])
